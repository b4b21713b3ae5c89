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
_SEEN = 256  # sequence numbers remembered to tell duplicates; more than MAX_MISORDER
_UNITS_PER_NS = RATE / 1e9


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
        self._expected_next = np.full(capacity, -1, np.int64)  # A.1 bad_seq: what would confirm a jump
        self._seen = np.full((capacity, _SEEN), -1, np.int64)
        self._timed = np.zeros(capacity, np.bool_)
        self._timestamp = np.zeros(capacity, np.int64)
        self._arrival = np.zeros(capacity, np.int64)
        self._jitter = np.zeros(capacity, np.float64)  # timestamp units

    def reset(self, slot: int) -> None:
        self.ssrc[slot] = -1
        self._lost_before[slot] = self._received[slot] = self._highest[slot] = 0
        self._first[slot] = 1  # nothing expected, nothing lost
        self._jitter[slot] = 0.0
        self._timed[slot] = False

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

    def accept(self, slots: Ints, sequences: Ints) -> Accepted:
        """Sorts one packet of each slot's running stream into new, repeated and jumping ones, and counts."""
        highest = self._highest[slots]
        delta = (sequences - highest) & 0xFFFF
        contiguous = delta == 1
        restarted = np.zeros(len(slots), np.bool_)
        if contiguous.all():
            extended = highest + 1
            self._seen[slots, extended % _SEEN] = extended
            self._highest[slots] = extended
            self._received[slots] += 1
            return Accepted(contiguous, contiguous, restarted)

        for row in np.flatnonzero((delta >= MAX_DROPOUT) & (delta < 0x10000 - MAX_MISORDER)):
            slot, sequence = int(slots[row]), int(sequences[row])
            if self._expected_next[slot] == sequence:
                self._settle(slot)
                self._restart(slot, sequence)
                self._counters[slot, Counter.RESYNCS] += 1
                restarted[row] = contiguous[row] = True
                highest[row], delta[row] = self._highest[slot], 1
            else:
                self._expected_next[slot] = (sequence + 1) & 0xFFFF
        behind = delta >= 0x10000 - MAX_MISORDER
        jump = (delta >= MAX_DROPOUT) & ~behind
        extended = highest + np.where(behind, delta - 0x10000, delta)
        repeated = (self._seen[slots, extended % _SEEN] == extended) & ~jump
        fresh = ~repeated & ~jump
        self._count(slots, Counter.DUPLICATE, repeated)
        self._count(slots, Counter.REORDERED, behind & fresh)
        taken, extended = slots[fresh], extended[fresh]
        self._seen[taken, extended % _SEEN] = extended
        self._highest[taken] = np.maximum(self._highest[taken], extended)
        self._first[taken] = np.minimum(self._first[taken], extended)
        self._received[taken] += 1
        return Accepted(fresh, contiguous, restarted)

    def time(self, slots: Ints, timestamps: Ints, arrival_ns: int) -> None:
        """Interarrival jitter (A.8) from audio packets; telephone-events repeat a timestamp and are left out."""
        elapsed = (arrival_ns - self._arrival[slots]) * _UNITS_PER_NS
        played = ((timestamps - self._timestamp[slots] + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        timed = self._timed[slots]
        jitter = self._jitter[slots]
        self._jitter[slots] = np.where(timed, jitter + (np.abs(elapsed - played) - jitter) / 16, jitter)
        self._timestamp[slots] = timestamps
        self._arrival[slots] = arrival_ns
        self._timed[slots] = True

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
        self._expected_next[slot] = -1
        self._seen[slot] = -1
        self._timed[slot] = False

    def _settle(self, slot: int) -> None:
        expected = self._highest[slot] - self._first[slot] + 1
        self._lost_before[slot] += max(int(expected - self._received[slot]), 0)

    def _count(self, slots: Ints, counter: Counter, rows: Bools) -> None:
        if rows.any():
            self._counters[slots[rows], counter] += 1
