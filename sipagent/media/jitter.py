"""Playout with a fixed delay for every call at once, in arrays over slots.

A packet's place is its timestamp, in blocks of 80 samples (10 ms) of a ring per slot: packets of 10 to 60 ms mix, and
a timestamp that jumps without a gap in the sequence is a pause, not a loss. Each stream is *anchored* by its first
packet, which is due one playout delay after it came. What is missing when due is concealed by the last good 20 ms,
fading; after 100 ms without anything to play the stream is let go, and the next packet anchors it afresh, which also
takes back whatever the clocks drifted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Counter
from sipagent.media.rtp import FRAME, timestamp_diff

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Pcm = NDArray[np.int16]

BLOCK = 80
BLOCK_NS = 10_000_000
MAX_BLOCKS = 6  # of one packet: 60 ms
_RING = 128  # blocks: 1.28 s
_MASK = _RING - 1
_ROOM = _RING - 16  # how far ahead of playout a packet may lie
_LATE = 100  # blocks: what lies further behind is not late, its timestamps have started over
_DRY = 10  # blocks without anything to play until the stream is let go
_SLACK = 25  # blocks above the delay that may pile up after a burst before playout skips ahead
_GAIN = np.array([1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0], np.float32)  # of the nth concealed block in a row


class Played(NamedTuple):
    pcm: Pcm  # (n, 160)
    flags: NDArray[np.uint8]  # (n,)
    arrival: Ints  # (n,) ns


class JitterBuffer:
    def __init__(self, capacity: int, delay_ms: int, counters: Ints) -> None:
        self._delay = delay_ms // 10
        self._counters = counters
        self._pcm = np.zeros((capacity, _RING, BLOCK), np.int16)
        self._block = np.full((capacity, _RING), -1, np.int64)  # which block the ring's place holds
        self._kind = np.zeros((capacity, _RING), np.uint8)  # its flags
        self._arrived = np.zeros((capacity, _RING), np.int64)  # ns
        self._anchored = np.zeros(capacity, np.bool_)
        self._due = np.zeros(capacity, np.int64)  # ns, when playout of an anchored stream begins
        self._next = np.zeros(capacity, np.int64)  # block to play
        self._end = np.zeros(capacity, np.int64)  # after the newest block received
        self._base = np.zeros(capacity, np.int64)  # the block of the anchoring packet
        self._base_timestamp = np.zeros(capacity, np.int64)  # extended, like _newest
        self._newest = np.zeros(capacity, np.int64)
        self._dry = np.zeros(capacity, np.int64)  # blocks concealed in a row
        self._unsettled = np.zeros(capacity, np.int64)  # ms concealed, loss or pause: the next packet tells
        self._good = np.zeros((capacity, FRAME), np.int16)  # the last 20 ms that were really received
        self._partial: dict[int, int] = {}  # slot -> sample up to which its last block is filled

    def reset(self, slot: int) -> None:
        """Forgets the stream; what is not played yet is dropped."""
        self._anchored[slot] = False
        self._good[slot] = 0
        self._dry[slot] = self._unsettled[slot] = 0
        self._partial.pop(slot, None)

    def anchored(self, slot: int) -> bool:
        return bool(self._anchored[slot])

    def anchor(self, slot: int, timestamp: int, now_ns: int) -> None:
        """The packet with this timestamp is due one delay from now, to the nearest frame; older audio is dropped."""
        block = max(int(self._next[slot]), int(self._end[slot])) + _RING  # beyond all that the ring may hold
        self._base[slot] = self._next[slot] = self._end[slot] = block
        self._base_timestamp[slot] = self._newest[slot] = timestamp
        self._due[slot] = now_ns + (self._delay - 1) * BLOCK_NS  # half a frame earlier: frames are played every 20 ms
        self._anchored[slot] = True
        self._dry[slot] = 0
        self._partial.pop(slot, None)

    def insert(self, slots: Ints, timestamps: Ints, pcm: Pcm, contiguous: Bools, now_ns: int) -> None:
        """One packet of each of these unique slots; `pcm` is (n, 80·k) with k from 1 to 6."""
        blocks = pcm.shape[1] // BLOCK
        fits, first = self._locate(slots, timestamps, blocks, contiguous, now_ns)
        if not fits.all():
            slots, pcm, first = slots[fits], pcm[fits], first[fits]
        number = first[:, None] + np.arange(blocks)
        row, place = slots[:, None], number & _MASK
        self._pcm[row, place] = pcm.reshape(len(slots), blocks, BLOCK)
        self._block[row, place] = number
        self._kind[row, place] = 0
        self._arrived[row, place] = now_ns
        self._end[slots] = np.maximum(self._end[slots], first + blocks)

    def insert_odd(self, slot: int, timestamp: int, pcm: Pcm, contiguous: bool, now_ns: int) -> None:
        """A packet whose length is no multiple of 80 samples, placed by the sample; `pcm` is (n,), n up to 480."""
        one = np.array([slot])
        size = -(-len(pcm) // BLOCK)
        fits, _ = self._locate(one, np.array([timestamp]), size, np.array([contiguous]), now_ns)
        if not fits[0]:
            return
        start = int(self._base[slot]) * BLOCK + timestamp_diff(timestamp, int(self._base_timestamp[slot]) & 0xFFFFFFFF)
        stop = start + len(pcm)
        self._pcm[slot].reshape(-1)[np.arange(start, stop) % (_RING * BLOCK)] = pcm
        filled = start if self._partial.get(slot) != start else start - start % BLOCK
        done = range(-(-filled // BLOCK), stop // BLOCK)
        self._put(slot, done, 0, now_ns)
        self._partial[slot] = stop
        self._end[slot] = max(int(self._end[slot]), stop // BLOCK)

    def mark(self, slot: int, timestamp: int, samples: int, flag: int, now_ns: int) -> None:
        """No audio will come for this stretch, because a key is pressed or the sender pauses."""
        first = self._block_of(slot, timestamp)
        last = min(first + -(-samples // BLOCK), int(self._next[slot]) + _ROOM)
        free = [b for b in range(max(first, int(self._next[slot])), last) if self._block[slot, b & _MASK] != b]
        self._pcm[slot, [b & _MASK for b in free]] = 0
        self._put(slot, free, flag, now_ns if flag == FLAG_DIGIT else 0)
        self._end[slot] = max(int(self._end[slot]), last)

    def play(self, slots: Ints, now_ns: int) -> Played:
        """The next 20 ms of these slots."""
        at = self._next[slots]
        one, two = at & _MASK, (at + 1) & _MASK
        running = self._anchored[slots] & (self._due[slots] <= now_ns)
        have_one = (self._block[slots, one] == at) & running
        have_two = (self._block[slots, two] == at + 1) & running
        pcm = np.empty((len(slots), FRAME), np.int16)
        pcm[:, :BLOCK] = self._pcm[slots, one]
        pcm[:, BLOCK:] = self._pcm[slots, two]
        kind_one, kind_two = self._kind[slots, one], self._kind[slots, two]
        arrival_one, arrival_two = self._arrived[slots, one], self._arrived[slots, two]
        self._next[slots] = at + 2 * running
        if (have_one & have_two).all() and not kind_one.any() and not kind_two.any():
            self._good[slots] = pcm
            self._dry[slots] = 0
            self._catch_up(slots)
            return Played(pcm, np.zeros(len(slots), np.uint8), np.maximum(arrival_one, arrival_two))

        kind_one *= have_one
        kind_two *= have_two
        flags = (kind_one & kind_two) & FLAG_SILENCE | (kind_one | kind_two) & FLAG_DIGIT
        flags[~running] = FLAG_SILENCE
        pcm[~running] = 0
        concealed = running & ~(have_one & have_two)
        flags[concealed] |= FLAG_CONCEALED
        self._conceal(slots, pcm, have_one, have_two, running)
        arrival = np.maximum(np.where(have_one, arrival_one, 0), np.where(have_two, arrival_two, 0))
        self._catch_up(slots[running])
        return Played(pcm, flags, arrival)

    def _locate(self, slots: Ints, timestamps: Ints, blocks: int, contiguous: Bools, now_ns: int) -> tuple[Bools, Ints]:
        """Which packets have a place, and their first blocks. Anchors, finds pauses, counts late ones."""
        extended, first = self._positions(slots, timestamps)
        ahead = first - self._next[slots]
        lost_track = (ahead + blocks > _ROOM) | (ahead < -_LATE)
        astray = lost_track | ~self._anchored[slots]
        for row in np.flatnonzero(astray):
            slot = int(slots[row])
            self._settle(slot, pause=bool(contiguous[row]))
            if self._anchored[slot]:
                self._counters[slot, Counter.RESYNCS] += 1
            self.anchor(slot, int(timestamps[row]), now_ns)
        if astray.any():
            extended, first = self._positions(slots, timestamps)
            ahead = first - self._next[slots]
        jumped = contiguous & (first > self._end[slots])
        unsettled = self._unsettled[slots] > 0
        if jumped.any() or unsettled.any():
            for row in np.flatnonzero(jumped | unsettled):
                slot = int(slots[row])
                self._settle(slot, pause=bool(jumped[row]))
                if jumped[row]:
                    self._pause(slot, int(self._end[slot]), int(first[row]))
        fits = ahead + blocks > 0
        if not fits.all():
            self._counters[slots[~fits], Counter.LATE] += 1
        self._newest[slots] = np.maximum(self._newest[slots], extended)
        return fits, first

    def _positions(self, slots: Ints, timestamps: Ints) -> tuple[Ints, Ints]:
        newest = self._newest[slots]
        extended = newest + ((timestamps - newest + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        # To the nearest block: after a pause some senders go on in the middle of one.
        return extended, self._base[slots] + (extended - self._base_timestamp[slots] + BLOCK // 2) // BLOCK

    def _block_of(self, slot: int, timestamp: int) -> int:
        return int(self._positions(np.array([slot]), np.array([timestamp]))[1][0])

    def _pause(self, slot: int, start: int, stop: int) -> None:
        free = range(max(start, int(self._next[slot])), stop)
        self._pcm[slot, [b & _MASK for b in free]] = 0
        self._put(slot, free, FLAG_SILENCE, 0)

    def _put(self, slot: int, blocks: "range | list[int]", flag: int, arrival_ns: int) -> None:
        for block in blocks:
            self._block[slot, block & _MASK] = block
            self._kind[slot, block & _MASK] = flag
            self._arrived[slot, block & _MASK] = arrival_ns

    def _settle(self, slot: int, *, pause: bool) -> None:
        """What was concealed since the last packet is known to have been lost, or to have been a pause."""
        if not pause:
            self._counters[slot, Counter.CONCEALED_MS] += self._unsettled[slot]
        self._unsettled[slot] = 0

    def _conceal(self, slots: Ints, pcm: Pcm, have_one: Bools, have_two: Bools, running: Bools) -> None:
        """Fills the missing halves of the frames in place, and keeps the last good 20 ms."""
        for half, have in ((slice(0, BLOCK), have_one), (slice(BLOCK, FRAME), have_two)):
            missing = running & ~have
            lost = slots[missing]
            dry = self._dry[lost]
            # Blocks repeat with a period of 20 ms: the older half of what was good, then the newer.
            good = self._good[lost].reshape(-1, 2, BLOCK)[np.arange(len(lost)), dry & 1]
            gain = _GAIN[np.minimum(dry, len(_GAIN) - 1)]
            pcm[missing, half] = (good * gain[:, None]).astype(np.int16)
            self._dry[lost] = dry + 1
            self._unsettled[lost] += 10
            fine = slots[have]
            self._good[fine, :BLOCK] = self._good[fine, BLOCK:]
            self._good[fine, BLOCK:] = pcm[have, half]
            self._dry[fine] = 0
        empty = running & (self._dry[slots] >= _DRY) & (self._end[slots] <= self._next[slots])
        self._anchored[slots[empty]] = False

    def _catch_up(self, slots: Ints) -> None:
        """After a burst the oldest audio is skipped, so that delay does not stay."""
        for slot in slots[self._end[slots] - self._next[slots] > self._delay + _SLACK]:
            self._next[slot] = self._end[slot] - self._delay
            self._counters[slot, Counter.RESYNCS] += 1
