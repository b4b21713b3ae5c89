"""One call's RTP port as main sees it: audio out, figures, and the callbacks by which audio comes in."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.core.events import MediaFigures
from sipagent.media.codecs import CODECS
from sipagent.media.ducking import TxMode
from sipagent.media.protocol import MOST_HEARD, Command, Connect, Crypto, Hear, SendDigits, StandIn
from sipagent.media.quality import QualityFigures
from sipagent.media.rings import FLAG_DIGIT, RX_FRAMES, TX_FRAMES, Counter, Rings
from sipagent.media.rtp import FRAME, RATE
from sipagent.media.telephone_event import QUEUED, check_keys

MOST_AT_ONCE = 50  # frames, 1 s
KEPT = 64  # frames that have left stay readable for so long (1.3 s), however much is queued behind them
MAX_FIGURE = 2**31 - 1  # what a column of the record holds
_RX_MASK = RX_FRAMES - 1
_TX_MASK = TX_FRAMES - 1


class Frames(NamedTuple):
    """New audio of one slot since the last tick."""

    pcm: NDArray[np.int16]  # (n, 160), or (n, 320) at 16 kHz
    flags: NDArray[np.uint8]  # (n,) see FLAG_* in `rings`
    arrival: NDArray[np.int64]  # (n,) monotonic ns, 0 when no packet contributed
    position: int  # index of the first frame since the port opened
    keyed: bool  # a key is held in some of them

    @property
    def pressed(self) -> NDArray[np.bool_]:
        """(n,) a key is held in the frame: what sounds there is no speech."""
        held: NDArray[np.bool_] = self.flags & FLAG_DIGIT != 0
        return held


class Stretch(NamedTuple):
    """What both sides of a line said in the same ticks; frames of 160 or 320 samples."""

    position: int  # of the first frame, as of `Frames`
    received: NDArray[np.int16]  # (n, 160 or 320)
    sent: NDArray[np.int16] | None  # the same shape; None when nothing was


class PortOwner(Protocol):
    """What a port needs of the client it belongs to."""

    def send(self, command: Command) -> None: ...

    def gather(self, slot: int, count: int) -> None: ...

    async def flushed(self, slot: int, position: int) -> bool:
        """Waits until the engine's tail has reached the position; False when it did not in time."""

    async def close_port(self, port: "MediaPort") -> None: ...


class MediaPort:
    """One call's RTP port. Callbacks run on the event loop; one that raises is reported to the loop's handler."""

    def __init__(self, owner: PortOwner, rings: Rings, host: str, slot: int, port: int) -> None:
        self._owner = owner
        self._rings = rings
        self.slot = slot
        self.port = port
        self.host, self.ipv6 = host, ":" in host
        self.on_frames: Callable[[Frames], None] | None = None
        self.taps: list[Callable[[Frames], None]] = []  # who else hears what `on_frames` does
        self.on_digit: Callable[[str, int], None] | None = None  # digit, duration in ms
        self.on_digits_sent: Callable[[], None] | None = None  # all keys asked for so far are pressed
        self.on_quality: Callable[[QualityFigures, bool], None] | None = (
            None  # every 5 s, and finally of the whole call
        )
        self.on_trouble: Callable[[str, bool, float], None] | None = None  # kind, active, seconds it has lasted
        self.on_silent: Callable[[float], None] | None = None  # seconds without RTP
        self.on_source: Callable[[str, int], None] | None = None  # where the peer's RTP comes from
        self.on_interrupted: Callable[[float], None] | None = None  # ms of audio missed by a restart
        self.on_lost: Callable[[], None] | None = None  # the media process is gone for good
        self.connected: Connect | None = None
        self._rate = RATE
        self.source: tuple[str, int] | None = None  # learned from the peer's packets
        self.stand_in = ""  # the sound that is heard while there is no main
        self.dropped = 0  # frames main was too slow to take
        self._heard: tuple[MediaPort, ...] = ()
        self._heard_said: tuple[MediaPort, ...] = ()
        self._hears_own, self._hears_keys = True, False
        self._ducked = self._held = False
        self._rings.tx_mode[slot] = TxMode.FULL  # a main before us may have died while the agent was held
        self._final: MediaFigures | None = None
        self._at_close = (0, 0)  # written, played
        self._received_at_close = 0

    def connect(
        self,
        host: str,
        port: int,
        payload_type: int,
        telephone_event: int = -1,
        *,
        send: bool = True,
        receive: bool = True,
        telephone_event_in: int = -1,
        comfort_noise: int = -1,
        rtcp_host: str = "",
        rtcp_port: int = 0,
        rtcp_mux: bool = False,
        crypto: Crypto | None = None,
    ) -> None:
        """What the SDP says now. Raises ValueError for a codec that is not in `codecs.CODECS`.

        When it changes `rate`, what is queued at the other rate is dropped.
        """
        if payload_type not in CODECS:
            raise ValueError(f"payload type {payload_type} is none of {', '.join(map(str, CODECS))}")
        before, rate = self.connected, self._rate
        self._rate = CODECS[payload_type].rate
        self.connected = Connect(
            slot=self.slot,
            host=host,
            port=port,
            payload_type=payload_type,
            telephone_event=telephone_event,
            telephone_event_in=telephone_event_in,
            send=send,
            receive=receive,
            comfort_noise=comfort_noise,
            rtcp_host=rtcp_host,
            rtcp_port=rtcp_port,
            rtcp_mux=rtcp_mux,
            crypto=crypto,
        )
        if rate != self.rate:
            self._rings.tx_flush[self.slot] = self._rings.tx_head[self.slot]
            self._rings.flushes[0] += 1
        if before is not None and (before.host, before.port) != (host, port):
            self.source = None
        if self._final is None:
            self._owner.send(self.connected)

    def listen(self, on: bool) -> None:
        """Whether what the peer sends is taken, until `connect` says something else."""
        if self.connected is not None:
            self.connected = msgspec.structs.replace(self.connected, receive=on)
            if self._final is None:
                self._owner.send(self.connected)

    def go_on(self, connected: Connect | None, source: tuple[str, int] | None) -> None:
        """With what an earlier main had told the engine, and the engine has learned."""
        self.connected, self.source = connected, source
        if connected is not None:
            self._rate = CODECS[connected.payload_type].rate

    def hear(
        self,
        *others: "MediaPort",
        said: "Sequence[MediaPort]" = (),
        own: bool = True,
        keys: bool | None = None,
    ) -> None:
        """From now on what these ports' callers say leaves here, added to what is queued; with none, no longer.

        What is `said` to these ports, out of their queues, is heard as well. Without `own` the queue waits. `keys` that
        the others' callers press are pressed here: None passes them on where one port is heard. Ports hear each other
        only within one process (`MediaPool.open(beside=)`), else ValueError. A port that is closed is no longer heard.
        Before the far end is connected nothing is played.
        """
        for other in (*others, *said):
            if other is self or other._owner is not self._owner:
                raise ValueError("a port hears other ports of its own media process")
        if max(len(others), len(said)) > MOST_HEARD:
            raise ValueError(f"a port hears at most {MOST_HEARD} others")
        self._heard, self._heard_said, self._hears_own = others, tuple(said), own
        self._hears_keys = len(others) == 1 if keys is None else keys
        if self._final is None:
            self._owner.send(self.hearing)

    @property
    def hearing(self) -> Hear:
        """The others that are open, as the engine is told."""
        others, said = (
            tuple(other.slot for other in heard if other._final is None) for heard in (self._heard, self._heard_said)
        )
        return Hear(slot=self.slot, others=others, said=said, own=self._hears_own, keys=self._hears_keys)

    def leave(self, sound: str) -> None:
        """What the caller is told while there is no main: a sound that the client has left with the engine, "" none."""
        if sound != self.stand_in:
            self.stand_in = sound
            if self._final is None:
                self._owner.send(StandIn(slot=self.slot, sound=sound))

    def gather(self, frames: int) -> None:
        """Lets `on_frames` have so many frames together, 1 to 50: who can wait costs main less."""
        if not 1 <= frames <= MOST_AT_ONCE:
            raise ValueError(f"{frames} frames at a time: it must be from 1 to {MOST_AT_ONCE}")
        self._owner.gather(self.slot, frames)

    @property
    def rate(self) -> int:
        """Samples per second of the audio, both ways: 8000 or 16000, as the codec has it."""
        return self._rate

    def write(self, pcm: NDArray[np.int16]) -> int:
        """Queues as many whole frames as fit (19 s, 9 s at 16 kHz); returns the samples taken. Never waits.

        `pcm` is one-dimensional at `rate`, its length a whole number of 20 ms, else ValueError.
        """
        frame = self.rate // 50
        if pcm.ndim != 1 or len(pcm) % frame:
            raise ValueError(f"audio of shape {pcm.shape} is not a whole number of frames of {frame} samples")
        if self._final is not None:
            return 0
        rings, slot = self._rings, self.slot
        ring, sent = rings.tx_pcm[slot] if frame == FRAME else rings.tx_wide[slot], rings.tx_sent[slot]
        room = len(ring)
        head = int(rings.tx_head[slot])
        count = min(len(pcm) // frame, room - KEPT - (head - int(rings.tx_tail[slot])))
        if count <= 0:
            return 0
        frames = pcm[: count * frame].reshape(count, frame)
        place = head % room
        part = min(count, room - place)
        ring[place : place + part] = frames[:part]
        sent[place : place + part] = 0
        if part < count:
            ring[: count - part] = frames[part:]
            sent[: count - part] = 0
        rings.tx_head[slot] = head + count
        return count * frame

    def press(self, digits: str, duration_ms: int = 160, gap_ms: int = 80) -> None:
        """Presses keys for the peer, by telephone-event where negotiated, else as tones; speech waits meanwhile.

        Raises ValueError that says what is wrong with them. `on_digits_sent` tells when all are pressed.
        """
        keys = check_keys(digits, duration_ms, gap_ms)
        if len(keys) > QUEUED:
            raise ValueError(f"{len(keys)} digits at once are too many: {QUEUED} may wait")
        if self._final is None:
            self._owner.send(SendDigits(slot=self.slot, digits=keys, duration_ms=duration_ms, gap_ms=gap_ms))

    def sent_beside(self, position: int, count: int) -> NDArray[np.int16] | None:
        """What left in the same ticks as the received frames from `position` on: (count, 160 or 320).

        Zeros where nothing did; None when nothing did at all.
        """
        if self._final is not None:
            return None
        mask = _RX_MASK if self._rate == RATE else _RX_MASK >> 1
        if count == 1:  # as mostly: looked up once a frame of each call
            return self._rings.beside_one(self.slot, position & mask)
        return self._rings.beside(self.slot, np.arange(position, position + count) & mask)

    @property
    def received(self) -> int:
        """Frame position after the newest received one; it stands still while the engine does."""
        return int(self._rings.rx_head[self.slot]) if self._final is None else self._received_at_close

    def since(self, position: int) -> Stretch | None:
        """Both sides from that frame on, as far as the ring still holds them; None when there is nothing new.

        It must be asked for at least every `KEPT` frames.
        """
        head = self.received
        if self._final is not None or head <= position:
            return None
        wide = self._rings.rate[self.slot] != RATE
        ring = (self._rings.rx_wide if wide else self._rings.rx_pcm)[self.slot]
        start = max(position, head - len(ring) + 2)  # the engine may be writing the frame after the newest one
        places = np.arange(start, head) % len(ring)
        received, sent = ring[places], self._rings.beside(self.slot, places)
        if sent is not None and sent.shape != received.shape:  # the rate has changed just now
            sent = None
        return Stretch(start, received, sent)

    @property
    def queued(self) -> int:
        """Frames written and not yet sent."""
        return max(self.written - self.played, 0)

    @property
    def written(self) -> int:
        """Frame position after the last one written."""
        return self._rings.tx_head.item(self.slot) if self._final is None else self._at_close[0]

    @property
    def played(self) -> int:
        """Frame position after the last one sent or dropped."""
        return self._rings.tx_tail.item(self.slot) if self._final is None else self._at_close[1]

    def sent_at(self, position: int) -> int:
        """Monotonic ns when that frame left; 0 if it has not, was dropped, or lies further back than the ring."""
        kept = TX_FRAMES if self.rate == RATE else TX_FRAMES // 2
        if self._final is not None or not self.written - kept <= position < self.played:
            return 0
        return int(self._rings.tx_sent[self.slot, position & (_TX_MASK if self.rate == RATE else _TX_MASK >> 1)])

    def duck(self, on: bool) -> None:
        """From the engine's next tick what is queued leaves at a lower level (-15 dB), or in full again."""
        self._ducked = on
        self._set_mode()

    def hold(self, on: bool) -> None:
        """From the engine's next tick silence leaves and what is queued stays, or goes on where it stopped."""
        self._held = on
        self._set_mode()

    def _set_mode(self) -> None:
        if self._final is None:
            mode = TxMode.HELD if self._held else TxMode.DUCKED if self._ducked else TxMode.FULL
            self._rings.tx_mode[self.slot] = mode

    async def flush(self) -> int:
        """Drops all that is queued; returns the position at which playing stopped.

        Waits up to 100 ms for the engine to obey; without an engine it is the position as far as known.
        """
        head, before = self.written, self.played
        if self._final is not None or before >= head:
            return before
        self._rings.tx_flush[self.slot] = head
        self._rings.flushes[0] += 1
        if await self._owner.flushed(self.slot, head):
            cut = int(self._rings.tx_cut[self.slot])
            # A cut from before we asked is an older flush's: this one came when the last frame had just been taken.
            return cut if cut >= before else head
        return self.played

    def figures(self) -> MediaFigures:
        """The counters as they are now, or as they were when the port was closed; each from 0 to `MAX_FIGURE`.

        A peer that jumps about in its sequence numbers can drive them further.
        """
        if self._final is not None:
            return self._final
        row = self._rings.counters[self.slot].clip(0, MAX_FIGURE).tolist()
        return MediaFigures(
            packets_in=row[Counter.PACKETS_IN],
            packets_out=row[Counter.PACKETS_OUT],
            lost=row[Counter.LOST],
            late=row[Counter.LATE],
            duplicate=row[Counter.DUPLICATE],
            reordered=row[Counter.REORDERED],
            malformed=row[Counter.MALFORMED],
            foreign=row[Counter.FOREIGN],
            concealed_ms=row[Counter.CONCEALED_MS],
            dropped_ms=min(self.dropped * 20, MAX_FIGURE),
            jitter_ms=row[Counter.JITTER_US] / 1000,
            digits_in=row[Counter.DIGITS_IN],
        )

    async def close(self) -> MediaFigures:
        """Gives port and slot back; idempotent."""
        await self._owner.close_port(self)
        return self.figures()

    def finish(self) -> None:
        if self._final is None:
            self._at_close = (self.written, self.played)
            self._received_at_close = self.received
            self._final = self.figures()
