"""The busy path: packets that simply continue their stream, and frames that simply leave, for all slots in arrays.

Only G.711 in plain RTP comes here. What is not as expected is left to `lines` (packets) and to the jitter buffer
(frames). `native` is this module's twin in C; the tests hold them against each other.
"""

import sys

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sipagent.media.batch import Batch
from sipagent.media.g711 import decode_rows
from sipagent.media.jitter import JitterBuffer
from sipagent.media.levels import lately, level
from sipagent.media.mixing import Join, Mixing
from sipagent.media.outgoing import Outgoing
from sipagent.media.reception import SEEN, Reception
from sipagent.media.rings import RX_FRAMES, Counter, Rings
from sipagent.media.rtp import FRAME, HEADER, PCMA, PCMU
from sipagent.media.sockets import CallSockets

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_RX_MASK = RX_FRAMES - 1
_NOT_MARKER = np.uint16(int.from_bytes(b"\xff\x7f", sys.byteorder))
_NO_HEADER = np.uint16(int.from_bytes(b"\x00\x80", sys.byteorder))  # equals none whose marker bit is left out
_SIZES = (80, 160, 240, 320, 400, 480)  # samples: packets of 10 to 60 ms


class Expected:
    """The packet that each slot's stream would simply go on with."""

    def __init__(self, capacity: int) -> None:
        self.header = np.full(capacity, _NO_HEADER, np.uint16)  # its first two bytes, as read
        self.ssrc = np.zeros(capacity, np.uint32)  # as read
        self.timestamp = np.zeros(capacity, np.int64)
        # its sequence number is the one after Reception.highest

    def nothing(self, slot: int) -> None:
        self.header[slot] = _NO_HEADER

    def packet(self, slot: int, payload_type: int, ssrc: int, timestamp: int) -> None:
        self.header[slot] = int.from_bytes(bytes((0x80, payload_type)), sys.byteorder)
        self.ssrc[slot] = int.from_bytes(ssrc.to_bytes(4, "big"), sys.byteorder)
        self.timestamp[slot] = timestamp


class HotPath:
    def __init__(
        self,
        rings: Rings,
        expected: Expected,
        reception: Reception,
        buffer: JitterBuffer,
        outgoing: Outgoing,
        heard_ns: Ints,
        mixing: Mixing,
    ) -> None:
        self._rings = rings
        self._expected = expected
        self._reception = reception
        self._buffer = buffer
        self._outgoing = outgoing
        self._packets = [row.data for row in outgoing.packets]
        self._windows = {size: sliding_window_view(buffer.pcm, size, axis=1, writeable=True) for size in _SIZES[:2]}
        self._owner = np.zeros(rings.capacity, np.int64)
        self._heard_ns = heard_ns
        self._mixing = mixing

    def receive(self, sockets: CallSockets) -> tuple[Batch, list[int]] | None:
        """Reads a datagram of each socket and takes what is as expected; returns the rest, None when none was there."""
        batch = sockets.receive()
        return (batch, self.ingest(batch)) if batch.count else None

    def receive_shared(self, sockets: CallSockets) -> tuple[Batch, list[int]] | None:
        """The same for all that came to the shared ports."""
        if sockets.shared is None or not sockets.shared.busy:
            return None
        batch = sockets.shared.receive()
        return (batch, self.ingest(batch)) if batch.count else None

    def ingest(self, batch: Batch) -> list[int]:
        """Takes what is as expected; returns the rows left, in order."""
        left = np.arange(batch.count)
        while len(left):
            taken = self._take(batch, left)
            left = left[~taken]
            if not batch.repeats or not taken.any():
                break
        rows: list[int] = left.tolist()
        return rows

    def _take(self, batch: Batch, rows: Ints) -> Bools:
        slots, expected, buffer = batch.slots[rows], self._expected, self._buffer
        heads = batch.rows[rows, :HEADER]
        sequences = heads[:, 2:4].view(">u2")[:, 0].astype(np.int64)
        timestamps = heads[:, 4:8].view(">u4")[:, 0].astype(np.int64)
        highest, end = self._reception.highest[slots], buffer.end[slots]
        ahead = end - buffer.position[slots]
        sizes = batch.lengths[rows] - HEADER
        fits: Bools = (
            (heads[:, :2].view(np.uint16)[:, 0] & _NOT_MARKER == expected.header[slots])
            & (heads[:, 8:12].view(np.uint32)[:, 0] == expected.ssrc[slots])
            & (timestamps == expected.timestamp[slots])
            & (((highest + 1) ^ sequences) & 0xFFFF == 0)
            & buffer.hot_in[slots]
            & (ahead >= 0)
            & (ahead <= buffer.AHEAD)
            & np.isin(sizes, _SIZES)
        )
        if batch.repeats:
            self._owner[slots[fits][::-1]] = rows[fits][::-1]  # each slot's first one
            fits &= self._owner[slots] == rows
        if not fits.all():
            rows, slots, end, highest, sizes = rows[fits], slots[fits], end[fits], highest[fits], sizes[fits]
        if not len(rows):
            return fits
        stamps = batch.stamps[rows]
        for size in _SIZES if (sizes != FRAME).any() else (FRAME,):
            same = sizes == size
            if same.any():
                self._append(slots[same], batch.rows[rows[same], HEADER : HEADER + size], end[same], stamps[same])
        following = highest + 1
        self._reception.highest[slots] = following
        self._reception.received[slots] += 1
        self._reception.seen[slots, following & (SEEN - 1)] = following
        expected.timestamp[slots] = (expected.timestamp[slots] + sizes) & 0xFFFFFFFF
        self._heard_ns[slots] = stamps
        self._rings.counters[slots, Counter.PACKETS_IN] += 1
        return fits

    def _append(self, slots: Ints, codes: NDArray[np.uint8], end: Ints, stamps: Ints) -> None:
        buffer, size = self._buffer, codes.shape[1]
        pcm = decode_rows(PCMU, codes)
        alaw = self._outgoing.alaw[slots]
        if alaw.any():
            pcm[alaw] = decode_rows(PCMA, codes[alaw])
        place = end % buffer.ring
        wraps = place + size > buffer.ring
        if size in self._windows:
            self._windows[size][slots, np.minimum(place, buffer.ring + FRAME - size)] = pcm
            special = wraps | (place < FRAME)
        else:
            special = np.ones(len(slots), np.bool_)
        for row in np.flatnonzero(special):
            line = buffer.pcm[slots[row]]
            line[(place[row] + np.arange(size)) % buffer.ring] = pcm[row]
            line[buffer.ring :] = line[:FRAME]
        first = end // buffer.block
        for offset in range(size // buffer.block):
            buffer.arrived[slots, (first + offset) % buffer.arrived.shape[1]] = stamps
        buffer.end[slots] = buffer.solid[slots] = end + size

    def play(self, slots: Ints, now_ns: int) -> None:
        """The next frame of each of these slots, to main."""
        buffer = self._buffer
        at = buffer.position[slots]
        ready = buffer.hot_out[slots] & (at + FRAME <= buffer.solid[slots])
        if ready.all():
            self._hand_over(slots, at)
            return
        if ready.any():
            self._hand_over(slots[ready], at[ready])
        rest = slots[~ready]
        self.deliver(rest, *buffer.play(rest, now_ns))

    def _hand_over(self, slots: Ints, at: Ints) -> None:
        buffer = self._buffer
        pcm = self._windows[FRAME][slots, at % buffer.ring]
        arrival = buffer.arrived[slots, (at + FRAME - 1) // buffer.block % buffer.arrived.shape[1]]
        buffer.position[slots] = at + FRAME
        self.deliver(slots, pcm, np.zeros(len(slots), np.uint8), arrival)

    def deliver(self, slots: Ints, pcm: NDArray[np.int16], flags: NDArray[np.uint8], arrival: Ints) -> None:
        """Frames of these slots to main's ring; `pcm` is (n, 160), or (n, 320) of lines at 16 kHz."""
        rings = self._rings
        heads = rings.rx_head[slots]
        if pcm.shape[1] == FRAME:
            place = heads & _RX_MASK
            rings.rx_pcm[slots, place] = pcm
        else:
            place = heads & _RX_MASK >> 1
            rings.rx_wide[slots, place] = pcm
        rings.rx_flags[slots, place] = flags
        rings.rx_level[slots, place] = level(pcm)
        rings.rx_beside[slots, place] = self._outgoing.left[slots]
        rings.rx_arrival[slots, place] = arrival
        rings.rx_head[slots] = heads + 1

    def levels(self, slot: int) -> tuple[float | None, float | None]:
        """See `levels.lately`."""
        return lately(self._rings, slot)

    def send(self, slots: Ints, sending: Ints, sockets: CallSockets, now_ns: int) -> None:
        """The next packet of those that send; time passes for all of these slots."""
        self._outgoing.prepare(slots, sending, now_ns)
        self.dispatch(sending, sockets)

    def converse(self, join: Join, sockets: CallSockets, now_ns: int) -> None:
        """One frame both ways for lines that hear one another, all of them plain.

        What came is on its way before main has it, so that it is known what was sent beside it.
        """
        played = self._buffer.play(join.narrow, now_ns)
        self._mixing.played(join.narrow, played)
        self.pass_on(join, sockets, now_ns)
        self.deliver(join.narrow, *played)

    def pass_on(self, join: Join, sockets: CallSockets, now_ns: int) -> None:
        """To plain listeners, once all those that are joined have played."""
        mixing, sending = self._mixing, join.sending
        mixing.mix(join)
        if len(join.plain):
            mix, voiced = mixing.heard(sending), mixing.voiced[sending]
            self._outgoing.note(sending, self._outgoing.prepare_mixed(join.plain, sending, mix, voiced, now_ns))
            self.dispatch(sending, sockets)

    def dispatch(self, sending: Ints, sockets: CallSockets) -> None:
        """Sends the packets that are prepared."""
        sockets.send(sending, self._packets)
        self._outgoing.sent(sending)
