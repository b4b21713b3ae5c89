"""Playout with a fixed delay for every call at once, in arrays over slots.

A packet's place is its timestamp, in blocks of 80 samples (10 ms) of a ring per slot: packets of 10 to 60 ms mix, and
a timestamp that jumps without a gap in the sequence is a pause, not a loss. Each stream is *anchored* by its first
packet, which is due one playout delay after it came. What is missing when due is concealed by the last good 20 ms,
fading; after 100 ms without anything to play the stream is let go, and the next packet anchors it afresh, which also
takes back whatever the clocks drifted.

The usual packet follows the one before; `insert` and `play` have a short way for a tick in which that holds for all.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media.reception import Accepted
from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Counter
from sipagent.media.rtp import FRAME, timestamp_diff

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Pcm = NDArray[np.int16]

BLOCK = 80
BLOCK_NS = 10_000_000
MAX_BLOCKS = 6  # of one packet: 60 ms
_LATE = 100  # blocks: what lies further behind is not late, its timestamps have started over
_DRY = 10  # blocks without anything to play until the stream is let go
_GUARD = 16  # blocks of the ring kept behind playout, so that a late packet overwrites nothing
_SLACK = 25  # blocks above the delay that may pile up after a burst before playout skips ahead
_NEVER = np.iinfo(np.int64).max
_KIND_BITS = 3
_HALVES = np.array([0, 1 << _KIND_BITS])
_GAIN = np.array([1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0], np.float32)  # of the nth concealed block in a row


class Played(NamedTuple):
    pcm: Pcm  # (n, 160)
    flags: NDArray[np.uint8]  # (n,)
    arrival: Ints  # (n,) ns


class JitterBuffer:
    """Two views of one ring: by frames of two blocks for the short ways, by blocks for all else."""

    def __init__(self, capacity: int, delay_ms: int, counters: Ints) -> None:
        self._delay = delay_ms // 10
        # As small as the delay allows, for all of it passes through the cache all the time: 64 blocks for 40 ms.
        self._ring = 1 << (self._delay + _SLACK + _GUARD + _SLACK // 2).bit_length()
        self._mask = self._ring - 1
        self._room = self._ring - _GUARD  # how far ahead of playout a packet may lie
        self._plenty = np.uint64(self._delay + _SLACK)
        self._counters = counters
        self._pcm_frames = np.zeros((capacity, self._ring // 2, FRAME), np.int16)
        self._tag_frames = np.full((capacity, self._ring // 2, 2), -1, np.int64)
        self._arrived_frames = np.zeros((capacity, self._ring // 2, 2), np.int64)
        self._pcm = self._pcm_frames.reshape(capacity, self._ring, BLOCK)
        self._tag = self._tag_frames.reshape(capacity, self._ring)  # block number << 3 | its flags
        self._arrived = self._arrived_frames.reshape(capacity, self._ring)  # ns
        self._due = np.full(capacity, _NEVER, np.int64)  # ns, when playout begins; _NEVER when not anchored
        self._next = np.zeros(capacity, np.int64)  # block to play, always even
        self._end = np.zeros(capacity, np.int64)  # after the newest block received
        self._expected = np.full(capacity, -1, np.int64)  # timestamp that allows the short way, -1 for none
        self._base = np.zeros(capacity, np.int64)  # the block of the anchoring packet
        self._base_timestamp = np.zeros(capacity, np.int64)
        self._newest = np.zeros(capacity, np.int64)  # extended timestamp
        self._dry = np.zeros(capacity, np.int64)  # blocks concealed in a row
        self._unsettled = np.zeros(capacity, np.int64)  # ms concealed, loss or pause: the next packet tells
        self._some_unsettled = False
        self._good = np.zeros((capacity, FRAME), np.int16)  # the last 20 ms that were really received
        self._no_flags = np.zeros(capacity, np.uint8)
        self._partial: dict[int, int] = {}  # slot -> sample up to which its last block is filled

    def reset(self, slot: int) -> None:
        """Forgets the stream; what is not played yet is dropped."""
        self._due[slot] = _NEVER
        self._expected[slot] = -1
        self._good[slot] = 0
        self._dry[slot] = self._unsettled[slot] = 0
        self._partial.pop(slot, None)

    def anchored(self, slot: int) -> bool:
        return bool(self._due[slot] != _NEVER)

    def insert(self, slots: Ints, timestamps: Ints, pcm: Pcm, accepted: Accepted | None, now_ns: int) -> None:
        """One packet of each of these unique slots; `pcm` is (n, 80·k) with k from 1 to 6.

        `accepted` is what `Reception.accept` said of them: None or, all being fresh, which are contiguous.
        """
        blocks = pcm.shape[1] // BLOCK
        first = self._end[slots]
        if (
            accepted is None
            and blocks == 2
            and (self._expected[slots] == timestamps).all()
            and ((first - self._next[slots]).view(np.uint64) < self._plenty).all()
            and not (first & 1).any()
        ):
            place = first >> 1 & self._mask >> 1
            self._pcm_frames[slots, place] = pcm
            self._tag_frames[slots, place] = (first << _KIND_BITS)[:, None] + _HALVES
            self._arrived_frames[slots, place] = now_ns
            self._end[slots] = first + 2
            self._expected[slots] = (timestamps + FRAME) & 0xFFFFFFFF
            return
        contiguous = np.ones(len(slots), np.bool_) if accepted is None else accepted.contiguous
        fits, first = self._locate(slots, timestamps, blocks, contiguous, now_ns)
        if not fits.all():
            slots, timestamps, pcm, first = slots[fits], timestamps[fits], pcm[fits], first[fits]
        number = first[:, None] + np.arange(blocks)
        row, at = slots[:, None], number & self._mask
        self._pcm[row, at] = pcm.reshape(len(slots), blocks, BLOCK)
        self._tag[row, at] = number << _KIND_BITS
        self._arrived[row, at] = now_ns
        newest = first + blocks >= self._end[slots]
        self._end[slots[newest]] = first[newest] + blocks
        self._expected[slots[newest]] = (timestamps[newest] + pcm.shape[1]) & 0xFFFFFFFF

    def insert_odd(self, slot: int, timestamp: int, pcm: Pcm, contiguous: bool, now_ns: int) -> None:
        """A packet whose length is no multiple of 80 samples, placed by the sample; `pcm` is (n,), n up to 480."""
        size = -(-len(pcm) // BLOCK)
        fits, _ = self._locate(np.array([slot]), np.array([timestamp]), size, np.array([contiguous]), now_ns)
        self._expected[slot] = -1
        if not fits[0]:
            return
        start = int(self._base[slot]) * BLOCK + timestamp_diff(timestamp, int(self._base_timestamp[slot]))
        stop = start + len(pcm)
        self._pcm[slot].reshape(-1)[np.arange(start, stop) % (self._ring * BLOCK)] = pcm
        filled = start if self._partial.get(slot) != start else start - start % BLOCK
        self._put(slot, range(-(-filled // BLOCK), stop // BLOCK), 0, now_ns)
        self._partial[slot] = stop
        self._end[slot] = max(int(self._end[slot]), -(-stop // BLOCK))

    def mark(self, slot: int, timestamp: int, samples: int, flag: int, now_ns: int) -> None:
        """No audio will come for this stretch, because a key is pressed."""
        first = int(self._positions(np.array([slot]), np.array([timestamp]))[1][0])
        last = min(first + -(-samples // BLOCK), int(self._next[slot]) + self._room)
        due = range(max(first, int(self._next[slot])), last)
        free = [block for block in due if self._tag[slot, block & self._mask] >> _KIND_BITS != block]
        self._pcm[slot, [block & self._mask for block in free]] = 0
        self._put(slot, free, flag, now_ns)
        self._end[slot] = max(int(self._end[slot]), last)
        self._expected[slot] = -1

    def play(self, slots: Ints, now_ns: int) -> Played:
        """The next 20 ms of these slots."""
        at = self._next[slots]
        place = at >> 1 & self._mask >> 1
        running = self._due[slots] <= now_ns
        pcm = self._pcm_frames[slots, place]
        tags = self._tag_frames[slots, place]
        arrived = self._arrived_frames[slots, place]
        if running.all() and (tags == (at << _KIND_BITS)[:, None] + _HALVES).all():
            self._next[slots] = at + 2
            self._good[slots] = pcm
            self._dry[slots] = 0
            if self._some_unsettled:
                self._settle_played(slots)
            return Played(pcm, self._no_flags[: len(slots)], np.maximum(arrived[:, 0], arrived[:, 1]))

        have = (tags >> _KIND_BITS == at[:, None] + np.arange(2)) & running[:, None]
        kinds = (tags & FLAG_SILENCE + FLAG_DIGIT).astype(np.uint8) * have
        flags = kinds[:, 0] & kinds[:, 1] & FLAG_SILENCE | (kinds[:, 0] | kinds[:, 1]) & FLAG_DIGIT
        flags[~running] = FLAG_SILENCE
        flags[running & ~have.all(axis=1)] |= FLAG_CONCEALED
        pcm[~running] = 0
        self._next[slots] = at + 2 * running
        self._conceal(slots, pcm, have, running)
        return Played(pcm, flags, (arrived * have).max(axis=1))

    def _anchor(self, slot: int, timestamp: int, now_ns: int) -> None:
        """The packet with this timestamp is due one delay from now, to the nearest frame; older audio is dropped."""
        block = (
            max(int(self._next[slot]), int(self._end[slot])) + self._ring
        ) & ~1  # beyond all that the ring may hold
        self._base[slot] = self._next[slot] = self._end[slot] = block
        self._base_timestamp[slot] = self._newest[slot] = timestamp
        self._due[slot] = now_ns + (self._delay - 1) * BLOCK_NS  # half a frame earlier: frames are played every 20 ms
        self._dry[slot] = 0
        self._partial.pop(slot, None)

    def _locate(self, slots: Ints, timestamps: Ints, blocks: int, contiguous: Bools, now_ns: int) -> tuple[Bools, Ints]:
        """Which packets have a place, and their first blocks. Anchors, finds pauses, catches up, counts late ones."""
        extended, first = self._positions(slots, timestamps)
        ahead = first - self._next[slots]
        anchored = self._due[slots] != _NEVER
        astray = (ahead + blocks > self._room) | (ahead < -_LATE) | ~anchored
        for row in np.flatnonzero(astray):
            slot = int(slots[row])
            self._settle(slot, pause=bool(contiguous[row]))
            if anchored[row]:
                self._counters[slot, Counter.RESYNCS] += 1
            self._anchor(slot, int(timestamps[row]), now_ns)
        if astray.any():
            extended, first = self._positions(slots, timestamps)
        jumped = contiguous & (first > self._end[slots])
        for row in np.flatnonzero(jumped | (self._unsettled[slots] > 0)):
            slot = int(slots[row])
            self._settle(slot, pause=bool(jumped[row]))
            if jumped[row]:
                self._pause(slot, int(self._end[slot]), int(first[row]))
        for row in np.flatnonzero(first - self._next[slots] > self._delay + _SLACK):
            # A burst: its oldest audio is skipped, so that the delay it brings does not stay.
            slot = int(slots[row])
            self._next[slot] = (int(first[row]) + blocks - self._delay) & ~1
            self._counters[slot, Counter.RESYNCS] += 1
        fits = first + blocks > self._next[slots]
        if not fits.all():
            self._counters[slots[~fits], Counter.LATE] += 1
        self._newest[slots] = np.maximum(self._newest[slots], extended)
        return fits, first

    def _positions(self, slots: Ints, timestamps: Ints) -> tuple[Ints, Ints]:
        newest = self._newest[slots]
        extended = newest + ((timestamps - newest + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        # To the nearest block: after a pause some senders go on in the middle of one.
        return extended, self._base[slots] + (extended - self._base_timestamp[slots] + BLOCK // 2) // BLOCK

    def _pause(self, slot: int, start: int, stop: int) -> None:
        silent = range(max(start, int(self._next[slot])), stop)
        self._pcm[slot, [block & self._mask for block in silent]] = 0
        self._put(slot, silent, FLAG_SILENCE, 0)

    def _put(self, slot: int, blocks: "range | list[int]", flag: int, arrival_ns: int) -> None:
        for block in blocks:
            self._tag[slot, block & self._mask] = block << _KIND_BITS | flag
            self._arrived[slot, block & self._mask] = arrival_ns

    def _settle(self, slot: int, *, pause: bool) -> None:
        """What was concealed since the last packet is known to have been lost, or to have been a pause."""
        if not pause:
            self._counters[slot, Counter.CONCEALED_MS] += self._unsettled[slot]
        self._unsettled[slot] = 0

    def _settle_played(self, slots: Ints) -> None:
        """Audio follows what was concealed, and no pause was found between: it was loss."""
        certain = slots[self._unsettled[slots] > 0]
        self._counters[certain, Counter.CONCEALED_MS] += self._unsettled[certain]
        self._unsettled[certain] = 0
        self._some_unsettled = bool(self._unsettled.any())

    def _conceal(self, slots: Ints, pcm: Pcm, have: Bools, running: Bools) -> None:
        """Fills the missing halves of the frames in place, keeps the last good 20 ms, lets dry streams go."""
        for half in range(2):
            part = slice(half * BLOCK, (half + 1) * BLOCK)
            missing = running & ~have[:, half]
            lost = slots[missing]
            dry = self._dry[lost]
            # Blocks repeat with a period of 20 ms: the older half of what was good, then the newer.
            good = self._good[lost].reshape(-1, 2, BLOCK)[np.arange(len(lost)), dry & 1]
            gain = _GAIN[np.minimum(dry, len(_GAIN) - 1)]
            pcm[missing, part] = (good * gain[:, None]).astype(np.int16)
            self._dry[lost] = dry + 1
            self._unsettled[lost] += 10
            self._some_unsettled = True
            self._expected[lost] = -1
            fine = slots[have[:, half]]
            self._good[fine, :BLOCK] = self._good[fine, BLOCK:]
            self._good[fine, BLOCK:] = pcm[have[:, half], part]
            self._dry[fine] = 0
            self._settle_played(fine)
        empty = running & (self._dry[slots] >= _DRY) & (self._end[slots] <= self._next[slots])
        self._due[slots[empty]] = _NEVER
