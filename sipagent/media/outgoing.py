"""The outgoing streams of all slots: from queued audio to RTP packets, in arrays (RFC 3550 section 5.1, RFC 3551)."""

import secrets

import numpy as np
from numpy.typing import NDArray

from sipagent.media.ducking import TxMode, ducked
from sipagent.media.g711 import ALAW_SILENCE, LINEAR_TO_ALAW, LINEAR_TO_ULAW, ULAW_SILENCE
from sipagent.media.rates import saturated
from sipagent.media.rings import MIXED, RX_FRAMES, TX_FRAMES, Counter, Rings
from sipagent.media.rtp import FRAME, HEADER, PCMA, RtpPacket

Ints = NDArray[np.int64]

PACKET = HEADER + FRAME
FRAME_NS = 20_000_000
_MASK = TX_FRAMES - 1
_MARKER = 0x80


class Outgoing:
    """`packets` holds each slot's next packet ready to be sent: uint8 [C, 172].

    Streams that are not plain G.711, because they are encrypted, wide, or just now pressing keys, are made packet by
    packet with `take` and `packet`.
    """

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self.packets = np.full((rings.capacity, PACKET), ULAW_SILENCE, np.uint8)
        self.packets[:, 0] = 0x80
        self.sending = np.zeros(rings.capacity, np.bool_)
        self._sequence = self.packets[:, 2:4].view(">u2")[:, 0]
        self._timestamp = self.packets[:, 4:8].view(">u4")[:, 0]
        self._ssrc = self.packets[:, 8:12].view(">u4")[:, 0]
        self.alaw = np.zeros(rings.capacity, np.bool_)
        self.talking = np.zeros(rings.capacity, np.bool_)  # the packet holds audio, not silence
        self.marked = np.zeros(rings.capacity, np.bool_)  # the packet has the marker bit set
        self.left = np.full(
            rings.capacity, -1, np.int64
        )  # position of the frame that left in the newest tick, or MIXED
        self.mode = np.zeros(rings.capacity, np.uint8)  # of the newest tick, see `ducking.TxMode`
        self.waiting = np.zeros(rings.capacity, np.bool_)  # what is queued is not played for the time being
        self.some_marked = False

    def open(self, slot: int) -> None:
        """A stream of its own, with random numbers (RFC 3550 section 8.1 and 5.1)."""
        rings = self._rings
        rings.tx_ssrc[slot] = secrets.randbits(32)
        rings.tx_sequence[slot] = secrets.randbits(16)
        rings.tx_timestamp[slot] = secrets.randbits(32)
        self.sending[slot] = False
        self.mode[slot] = TxMode.FULL

    def resume(self, slot: int, gap_ns: int) -> None:
        """The stream another process left: the sequence goes on, the timestamp counts the frames not sent."""
        self.skip(np.array([slot]), max(gap_ns // FRAME_NS - 1, 0))
        self.sending[slot] = False
        self.mode[slot] = self._rings.tx_mode[slot]

    def skip(self, slots: Ints, frames: int) -> None:
        """Time passed in which these slots were not served."""
        self._rings.tx_timestamp[slots] += np.uint32(frames * FRAME & 0xFFFFFFFF)

    def configure(self, slot: int, payload_type: int, send: bool) -> None:
        """May be repeated. The first packet after a stretch without packets gets the marker (RFC 3551 section 4.1)."""
        marker = self.packets[slot, 1] & _MARKER
        if send and not self.sending[slot]:
            marker = _MARKER
            self.marked[slot] = self.some_marked = True
        self.sending[slot] = send
        self.packets[slot, 1] = payload_type | marker
        self.alaw[slot] = payload_type == PCMA
        self.talking[slot] = False
        self._silence(np.array([slot]))
        self._ssrc[slot] = self._rings.tx_ssrc[slot]
        self.flush(np.array([slot]))

    def flush(self, slots: Ints) -> None:
        """Drops what main wants dropped, and says where playing stopped."""
        rings = self._rings
        cut = slots[rings.tx_flush[slots] > rings.tx_tail[slots]]
        rings.tx_cut[cut] = rings.tx_tail[cut]
        rings.tx_tail[cut] = rings.tx_flush[cut]

    def prepare(self, slots: Ints, sending: Ints, now_ns: int) -> None:
        """Makes the next packet of the slots that are sending; time passes for all of them."""
        rings = self._rings
        tails = rings.tx_tail[sending]
        talking = rings.tx_head[sending] > tails
        mode, before = rings.tx_mode[sending], self.mode[sending]
        soft = mode | before != TxMode.FULL
        talking &= mode & before != TxMode.HELD
        self._talk(sending, talking)
        self.left[slots] = -1
        if soft.any():
            own = soft & talking
            self._load_ducked(sending[own], tails[own], mode[own], now_ns)
            self.mode[sending] = mode
            talking &= ~soft
        if talking.any():
            if talking.all():
                self._load(sending, tails, now_ns)
            else:
                self._load(sending[talking], tails[talking], now_ns)
        self._number(slots, sending)

    def prepare_mixed(
        self, slots: Ints, sending: Ints, heard: NDArray[np.int16], voiced: NDArray[np.bool_], now_ns: int
    ) -> NDArray[np.int16]:
        """As `prepare`, with what is queued added to what is `heard` (one row for each that is sending).

        `voiced`: there is audio in it. Returns what leaves.
        """
        rings = self._rings
        tails = rings.tx_tail[sending]
        mode, before = rings.tx_mode[sending], self.mode[sending]
        queued = (rings.tx_head[sending] > tails) & ~self.waiting[sending] & (mode & before != TxMode.HELD)
        self._talk(sending, voiced | queued)
        self.left[slots] = -1
        if queued.any():
            own, tails = sending[queued], tails[queued]
            said = rings.tx_pcm[own, tails & _MASK]
            if (mode | before).any():
                said = ducked(said, before[queued], mode[queued])
            heard[queued] = saturated(heard[queued].astype(np.int32) + said)
            taken = mode[queued] != TxMode.HELD
            self._taken(own[taken], tails[taken], now_ns)
        self.mode[sending] = mode
        self.packets[sending, HEADER:] = self._encoded(sending, heard)
        self._number(slots, sending)
        return heard

    def _talk(self, sending: Ints, talking: NDArray[np.bool_]) -> None:
        changed = talking != self.talking[sending]
        if changed.any():
            self._change(sending[changed], talking[changed])

    def _number(self, slots: Ints, sending: Ints) -> None:
        rings = self._rings
        self._sequence[sending] = rings.tx_sequence[sending]
        self._timestamp[sending] = rings.tx_timestamp[sending]
        rings.tx_sequence[sending] += np.uint16(1)
        rings.tx_timestamp[slots] += np.uint32(FRAME)
        rings.counters[sending, Counter.PACKETS_OUT] += 1

    def take(self, slot: int, samples: int, now_ns: int) -> NDArray[np.int16] | None:
        """The next queued frame of a line whose frames have so many samples; None when there is none to play."""
        rings = self._rings
        tail, mode, before = int(rings.tx_tail[slot]), int(rings.tx_mode[slot]), int(self.mode[slot])
        self.left[slot], self.mode[slot] = -1, mode
        if int(rings.tx_head[slot]) <= tail or self.waiting[slot] or mode & before == TxMode.HELD:
            return None
        wide = samples != FRAME
        place = tail & (_MASK >> 1 if wide else _MASK)
        pcm: NDArray[np.int16] = (rings.tx_wide if wide else rings.tx_pcm)[slot, place].copy()
        self.left[slot] = tail
        if mode or before:
            pcm = ducked(pcm, before, mode)
            self.note(slot, pcm)
        if mode != TxMode.HELD:
            rings.tx_sent[slot, place] = now_ns
            rings.tx_tail[slot] = tail + 1
        return pcm

    def note(self, slots: Ints | int, pcm: NDArray[np.int16]) -> None:
        """What leaves on these lines in this tick, where that is not simply a frame of the queue."""
        rings, wide = self._rings, pcm.shape[-1] != FRAME
        places = rings.rx_head[slots] % (RX_FRAMES >> wide)
        (rings.mix_wide if wide else rings.mix_pcm)[slots, places] = pcm
        self.left[slots] = MIXED

    def begins(self, slot: int, talking: bool) -> bool:
        """Whether the next packet of a stream that is made packet by packet gets the marker; says so once."""
        marker = bool(self.marked[slot]) or (talking and not self.talking[slot])
        self.talking[slot], self.marked[slot] = talking, False
        self.packets[slot, 1] &= ~_MARKER & 0xFF
        return marker

    def packet(self, slot: int, payload_type: int, payload: bytes, marker: bool, timestamp: int | None = None) -> bytes:
        """Another packet of the stream, at its present timestamp unless another is given."""
        rings = self._rings
        sequence = int(rings.tx_sequence[slot])
        rings.tx_sequence[slot] = (sequence + 1) & 0xFFFF
        rings.counters[slot, Counter.PACKETS_OUT] += 1
        return bytes(
            RtpPacket(
                payload_type=payload_type,
                sequence=sequence,
                timestamp=int(rings.tx_timestamp[slot]) if timestamp is None else timestamp,
                ssrc=int(rings.tx_ssrc[slot]),
                payload=payload,
                marker=marker,
            )
        )

    def advance(self, slot: int) -> None:
        """A frame's time has passed for a stream that is made packet by packet."""
        timestamps = self._rings.tx_timestamp
        timestamps[slot] = int(timestamps[slot]) + FRAME & 0xFFFFFFFF  # numpy warns of a single number that wraps

    def sent(self, slots: Ints) -> None:
        """These packets have left: their markers are not repeated."""
        if self.some_marked:
            done = slots[self.marked[slots]]
            self.packets[done, 1] &= ~_MARKER & 0xFF
            self.marked[done] = False
            self.some_marked = bool(self.marked.any())

    def _change(self, slots: Ints, talking: NDArray[np.bool_]) -> None:
        """Talkspurts that begin, which are marked, and that end."""
        self.talking[slots] = talking
        begin = slots[talking]
        self.packets[begin, 1] |= _MARKER
        self.marked[begin] = True
        self.some_marked = True
        self._silence(slots[~talking])

    def silence(self, slot: int) -> None:
        """Somebody else makes this slot's packets for a while: what lies ready is no longer what comes next."""
        self.talking[slot] = False
        self._silence(np.array([slot]))

    def _silence(self, slots: Ints) -> None:
        self.packets[slots, HEADER:] = np.where(self.alaw[slots], ALAW_SILENCE, ULAW_SILENCE)[:, None]

    def _load(self, slots: Ints, tails: Ints, now_ns: int) -> None:
        """Takes one queued frame of each of these slots."""
        self.packets[slots, HEADER:] = self._encoded(slots, self._rings.tx_pcm[slots, tails & _MASK])
        self._taken(slots, tails, now_ns)
        self.left[slots] = tails

    def _load_ducked(self, slots: Ints, tails: Ints, mode: NDArray[np.uint8], now_ns: int) -> None:
        """The same where the frame is not played in full; one in which the audio fades out stays in the queue."""
        pcm = ducked(self._rings.tx_pcm[slots, tails & _MASK], self.mode[slots], mode)
        self.packets[slots, HEADER:] = self._encoded(slots, pcm)
        self.note(slots, pcm)
        taken = mode != TxMode.HELD
        self._taken(slots[taken], tails[taken], now_ns)

    def _taken(self, slots: Ints, tails: Ints, now_ns: int) -> None:
        """These frames have left the queue."""
        self._rings.tx_sent[slots, tails & _MASK] = now_ns
        self._rings.tx_tail[slots] = tails + 1

    def _encoded(self, slots: Ints, pcm: NDArray[np.int16]) -> NDArray[np.uint8]:
        samples = pcm.view(np.uint16)
        codes = np.take(LINEAR_TO_ULAW, samples)
        alaw = self.alaw[slots]
        if alaw.any():
            codes[alaw] = np.take(LINEAR_TO_ALAW, samples[alaw])
        return codes
