"""Sequence numbers and arrival times of every incoming stream, in arrays over slots (RFC 3550 appendix A).

Every method takes unique slots: the caller hands over one packet a slot at a time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rings import Counter
from sipagent.media.rtp import RATE

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_DROPOUT = 3000  # RFC 3550 A.1: a jump beyond is another stream
MAX_MISORDER = 100
_SEEN = 128  # sequence numbers remembered to tell duplicates; more than MAX_MISORDER
_NS_PER_UNIT = 1_000_000_000 // RATE


class Accepted(NamedTuple):
    fresh: Bools  # neither duplicate nor waiting for a second packet after a jump
    contiguous: Bools  # follows the newest one without a gap
    restarted: Bools  # first packet of a new numbering: the playout position means nothing any more


class Reception:
    def __init__(self, capacity: int, counters: Ints) -> None:
        self.ssrc = np.full(capacity, -1, np.int64)  # -1: no stream
        self._counters = counters
        self._highest = np.zeros(capacity, np.int64)  # extended by the number of wraps
        self._first = np.zeros(capacity, np.int64)
        self._received = np.zeros(capacity, np.int64)
        self._lost_before = np.zeros(capacity, np.int64)  # by earlier streams of the same call
        self._confirms = np.full(capacity, -1, np.int64)  # A.1 bad_seq: the sequence that would confirm a jump
        self._seen = np.full((capacity, _SEEN), -1, np.int64)
        self._transit = np.zeros(capacity, np.int32)  # A.8, timestamp units modulo 2**32
        self._timed = np.zeros(capacity, np.bool_)
        self._jitter = np.zeros(capacity, np.float64)  # timestamp units

    def reset(self, slot: int) -> None:
        self.ssrc[slot] = -1
        self._lost_before[slot] = self._received[slot] = self._highest[slot] = 0
        self._first[slot] = 1  # nothing expected, nothing lost
        self._jitter[slot] = 0.0

    def resume(self, slot: int) -> None:
        """After `reset`: the figures go on from those another engine published."""
        self._lost_before[slot] = self._counters[slot, Counter.LOST]
        self._jitter[slot] = self._counters[slot, Counter.JITTER_US] * (RATE / 1e6)

    def stop(self, slot: int) -> None:
        """Incoming packets are not looked at from now on, so the numbers in between are not lost."""
        if self.ssrc[slot] >= 0:
            self._settle(slot)
            self.ssrc[slot] = -1

    def start(self, slot: int, ssrc: int, sequence: int) -> None:
        """A stream begins with this packet, which `accept` has yet to take."""
        if self.ssrc[slot] >= 0:
            self._settle(slot)
        self.ssrc[slot] = ssrc
        self._restart(slot, sequence)

    def accept(self, slots: Ints, sequences: Ints) -> Accepted | None:
        """Sorts one packet of each slot's running stream into new, repeated and jumping ones, and counts.

        None when each simply follows the one before, as nearly always.
        """
        following = self._highest[slots] + 1
        if not ((following ^ sequences) & 0xFFFF).any():
            self._seen[slots, following & (_SEEN - 1)] = following
            self._highest[slots] = following
            self._received[slots] += 1
            return None
        return self._sort(slots, sequences)

    def _sort(self, slots: Ints, sequences: Ints) -> Accepted:
        highest = self._highest[slots]
        delta = (sequences - highest) & 0xFFFF
        contiguous = delta == 1
        restarted = np.zeros(len(slots), np.bool_)
        for row in np.flatnonzero((delta >= MAX_DROPOUT) & (delta < 0x10000 - MAX_MISORDER)):
            slot, sequence = int(slots[row]), int(sequences[row])
            if self._confirms[slot] == sequence:
                self._settle(slot)
                self._restart(slot, sequence)
                self._counters[slot, Counter.RESYNCS] += 1
                restarted[row] = contiguous[row] = True
                highest[row], delta[row] = self._highest[slot], 1
            else:
                self._confirms[slot] = (sequence + 1) & 0xFFFF
        behind = delta >= 0x10000 - MAX_MISORDER
        jump = (delta >= MAX_DROPOUT) & ~behind
        extended = highest + np.where(behind, delta - 0x10000, delta)
        repeated = (self._seen[slots, extended & (_SEEN - 1)] == extended) & ~jump
        fresh = ~repeated & ~jump
        self._count(slots, Counter.DUPLICATE, repeated)
        self._count(slots, Counter.REORDERED, behind & fresh)
        taken, extended = slots[fresh], extended[fresh]
        self._seen[taken, extended & (_SEEN - 1)] = extended
        self._highest[taken] = np.maximum(self._highest[taken], extended)
        self._first[taken] = np.minimum(self._first[taken], extended)
        self._received[taken] += 1
        return Accepted(fresh, contiguous, restarted)

    def time(self, slots: Ints, timestamps: Ints, arrival_ns: int) -> None:
        """Interarrival jitter (A.8) from audio packets; telephone-events repeat a timestamp and are left out."""
        transit = (arrival_ns // _NS_PER_UNIT - timestamps).astype(np.int32)  # wraps as timestamps do
        change = np.abs(transit - self._transit[slots])
        self._transit[slots] = transit
        jitter = self._jitter[slots]
        self._jitter[slots] = jitter + (change - jitter) * (1 / 16)

    def time_first(self, slot: int, timestamp: int, arrival_ns: int) -> None:
        """The first audio packet of a numbering, to which the next one will be compared."""
        self._transit[slot] = np.int64(arrival_ns // _NS_PER_UNIT - timestamp).astype(np.int32)
        self._timed[slot] = True

    def timed(self, slot: int) -> bool:
        return bool(self._timed[slot])

    def publish(self, slots: Ints) -> None:
        """Writes the derived figures of these slots into the counters."""
        running = self.ssrc[slots] >= 0
        expected = self._highest[slots] - self._first[slots] + 1
        lost = np.where(running, np.maximum(expected - self._received[slots], 0), 0)
        self._counters[slots, Counter.LOST] = self._lost_before[slots] + lost
        self._counters[slots, Counter.JITTER_US] = (self._jitter[slots] * (1e6 / RATE)).astype(np.int64)

    def _restart(self, slot: int, sequence: int) -> None:
        self._highest[slot] = sequence - 1 + 0x10000  # room below for stragglers
        self._first[slot] = sequence + 0x10000
        self._received[slot] = 0
        self._confirms[slot] = -1
        self._seen[slot] = -1
        self._timed[slot] = False

    def _settle(self, slot: int) -> None:
        expected = self._highest[slot] - self._first[slot] + 1
        self._lost_before[slot] += max(int(expected - self._received[slot]), 0)

    def _count(self, slots: Ints, counter: Counter, rows: Bools) -> None:
        if rows.any():
            self._counters[slots[rows], counter] += 1
