"""One call's RTP port as main sees it: audio out, figures, and the callbacks by which audio comes in."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sipagent.core.events import MediaFigures
from sipagent.media.protocol import Command, Connect
from sipagent.media.rings import TX_FRAMES, Counter, Rings
from sipagent.media.rtp import FRAME, PCMA, PCMU

MAX_FIGURE = 2**31 - 1  # what a column of the record holds
_TX_MASK = TX_FRAMES - 1


class Frames(NamedTuple):
    """New audio of one slot since the last tick."""

    pcm: NDArray[np.int16]  # (n, 160)
    flags: NDArray[np.uint8]  # (n,) see FLAG_* in `rings`
    arrival: NDArray[np.int64]  # (n,) monotonic ns, 0 when no packet contributed
    position: int  # index of the first frame since the port opened


class PortOwner(Protocol):
    """What a port needs of the client it belongs to."""

    def send(self, command: Command) -> None: ...

    async def flushed(self, slot: int, position: int) -> bool:
        """Waits until the engine's tail has reached the position; False when it did not in time."""

    async def close_port(self, port: "MediaPort") -> None: ...


class MediaPort:
    """One call's RTP port. Callbacks run on the event loop; one that raises is reported to the loop's handler."""

    def __init__(self, owner: PortOwner, rings: Rings, host: str, slot: int, port: int) -> None:
        self._owner = owner
        self._rings = rings
        self.slot = slot
        self.host = host
        self.port = port
        self.on_frames: Callable[[Frames], None] | None = None
        self.on_digit: Callable[[str, int], None] | None = None  # digit, duration in ms
        self.on_silent: Callable[[float], None] | None = None  # seconds without RTP
        self.on_source: Callable[[str, int], None] | None = None  # where the peer's RTP comes from
        self.on_interrupted: Callable[[float], None] | None = None  # ms of audio missed by a restart
        self.on_lost: Callable[[], None] | None = None  # the media process is gone for good
        self.connected: Connect | None = None
        self.source: tuple[str, int] | None = None  # learned from the peer's packets
        self.dropped = 0  # frames main was too slow to take
        self._final: MediaFigures | None = None
        self._at_close = (0, 0)  # written, played

    def connect(
        self,
        host: str,
        port: int,
        payload_type: int,
        telephone_event: int = -1,
        *,
        send: bool = True,
        receive: bool = True,
    ) -> None:
        """What the SDP says now. Raises ValueError for a codec that is neither PCMU nor PCMA."""
        if payload_type not in (PCMU, PCMA):
            raise ValueError(f"payload type {payload_type} is neither PCMU (0) nor PCMA (8)")
        before = self.connected
        self.connected = Connect(
            slot=self.slot,
            host=host,
            port=port,
            payload_type=payload_type,
            telephone_event=telephone_event,
            send=send,
            receive=receive,
        )
        if before is not None and (before.host, before.port) != (host, port):
            self.source = None
        if self._final is None:
            self._owner.send(self.connected)

    def write(self, pcm: NDArray[np.int16]) -> int:
        """Queues as many whole frames as fit (20 s); returns the samples taken. Never waits.

        `pcm` is one-dimensional at 8 kHz, its length a multiple of 160, else ValueError.
        """
        if pcm.ndim != 1 or len(pcm) % FRAME:
            raise ValueError(f"audio of shape {pcm.shape} is not a whole number of frames of {FRAME} samples")
        if self._final is not None:
            return 0
        rings, slot = self._rings, self.slot
        head = int(rings.tx_head[slot])
        count = min(len(pcm) // FRAME, TX_FRAMES - (head - int(rings.tx_tail[slot])))
        frames = pcm[: count * FRAME].reshape(count, FRAME)
        done = 0
        while done < count:
            place = (head + done) & _TX_MASK
            part = min(count - done, TX_FRAMES - place)
            rings.tx_pcm[slot, place : place + part] = frames[done : done + part]
            rings.tx_sent[slot, place : place + part] = 0
            done += part
        rings.tx_head[slot] = head + count
        return count * FRAME

    @property
    def queued(self) -> int:
        """Frames written and not yet sent."""
        return max(self.written - self.played, 0)

    @property
    def written(self) -> int:
        """Frame position after the last one written."""
        return int(self._rings.tx_head[self.slot]) if self._final is None else self._at_close[0]

    @property
    def played(self) -> int:
        """Frame position after the last one sent or dropped."""
        return int(self._rings.tx_tail[self.slot]) if self._final is None else self._at_close[1]

    def sent_at(self, position: int) -> int:
        """Monotonic ns when that frame left; 0 if it has not, was dropped, or lies further back than the ring."""
        if self._final is not None or not self.written - TX_FRAMES <= position < self.played:
            return 0
        return int(self._rings.tx_sent[self.slot, position & _TX_MASK])

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
            self._final = self.figures()
