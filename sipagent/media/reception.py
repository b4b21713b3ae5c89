"""Sequence numbers and arrival times of every incoming stream (RFC 3550 appendix A), kept in arrays over slots.

A packet that simply follows the one before is accepted by `hot` in arrays; all others come here one by one.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media.jitter import JitterBuffer
from sipagent.media.rings import Counter

Ints = NDArray[np.int64]

MAX_DROPOUT = 3000  # RFC 3550 A.1: a jump beyond is another stream
MAX_MISORDER = 100
SEEN = 128  # sequence numbers remembered to tell duplicates; more than MAX_MISORDER
_BLOCK_NS = 10_000_000
_BLOCKS = 32  # looked at by `measure`: more than come between two looks
_WINDOW = np.arange(-_BLOCKS, 0)
_DECAY = (15 / 16) ** np.arange(_BLOCKS + 1)
_ROWS = np.arange(8192)  # more than there can be slots
MAX_CHANGE_NS = 1_000_000_000  # of transit; beyond, the timestamps have started over


class Accepted(NamedTuple):
    fresh: bool  # neither duplicate nor waiting for a second packet after a jump
    contiguous: bool  # follows the newest one without a gap
    restarted: bool  # first packet of a new numbering: the playout position means nothing any more
    missing: int  # numbers left out before this one, lost unless they come late


class Reception:
    def __init__(self, capacity: int, counters: Ints) -> None:
        self.ssrc = np.full(capacity, -1, np.int64)  # -1: no stream
        self.highest = np.zeros(capacity, np.int64)  # extended by the number of wraps
        self.received = np.zeros(capacity, np.int64)  # of the present numbering, duplicates left out
        self.seen = np.full((capacity, SEEN), -1, np.int64)
        self._counters = counters
        self._first = np.zeros(capacity, np.int64)
        self._lost_before = np.zeros(capacity, np.int64)  # by earlier streams of the same call
        self._confirms = np.full(capacity, -1, np.int64)  # A.1 bad_seq: the sequence that would confirm a jump
        self._measured = np.zeros(capacity, np.int64)  # block up to which arrivals are in the jitter
        self._transit = np.zeros(capacity, np.int64)  # A.8, ns
        self._arrival = np.zeros(capacity, np.int64)  # ns, of the newest packet measured; 0 for none
        self._jitter = np.zeros(capacity, np.float64)  # ns

    def looked_at(self) -> dict[str, NDArray[Any]]:
        """What `native_looks.h` knows, by its names."""
        return {
            **{"stream": self.ssrc, "first": self._first, "lost_before": self._lost_before, "jitter": self._jitter},
            **{"measured": self._measured, "transit": self._transit, "came_last": self._arrival},
        }

    def reset(self, slot: int) -> None:
        self.ssrc[slot] = -1
        self._lost_before[slot] = self.received[slot] = self.highest[slot] = 0
        self._first[slot] = 1  # nothing expected, nothing lost
        self._jitter[slot] = 0.0
        self._arrival[slot] = self._measured[slot] = 0

    def resume(self, slot: int) -> None:
        """After `reset`: the figures go on from those another engine published."""
        self._lost_before[slot] = self._counters[slot, Counter.LOST]
        self._jitter[slot] = self._counters[slot, Counter.JITTER_US] * 1000

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

    def accept(self, slot: int, sequence: int) -> Accepted:
        """Sorts a packet of the running stream into new, repeated and jumping ones, and counts."""
        highest = int(self.highest[slot])
        delta = (sequence - highest) & 0xFFFF
        restarted = False
        if MAX_DROPOUT <= delta < 0x10000 - MAX_MISORDER:
            if self._confirms[slot] != sequence:
                self._confirms[slot] = (sequence + 1) & 0xFFFF
                return Accepted(False, False, False, 0)
            self._settle(slot)
            self._restart(slot, sequence)
            self._counters[slot, Counter.RESYNCS] += 1
            highest, delta, restarted = int(self.highest[slot]), 1, True
        behind = delta >= 0x10000 - MAX_MISORDER
        extended = highest + delta - (0x10000 if behind else 0)
        if self.seen[slot, extended % SEEN] == extended:
            self._counters[slot, Counter.DUPLICATE] += 1
            return Accepted(False, False, restarted, 0)
        if behind:
            self._counters[slot, Counter.REORDERED] += 1
        self.seen[slot, extended % SEEN] = extended
        self.highest[slot] = max(highest, extended)
        self._first[slot] = min(int(self._first[slot]), extended)
        self.received[slot] += 1
        return Accepted(True, delta == 1, restarted, 0 if behind else delta - 1)

    def measure(self, slots: Ints, buffer: JitterBuffer) -> None:
        """Interarrival jitter (A.8) of what came since the last look, at least every 250 ms.

        In the order of timestamps, from when each packet's audio came; telephone-events repeat a timestamp and are left
        out.
        """
        slots = slots[self.ssrc[slots] >= 0]  # of others the buffer may hold what an earlier stream left
        stop = buffer.end[slots] // buffer.block
        number = stop[:, None] + _WINDOW
        arrived = buffer.arrived[slots[:, None], number % buffer.arrived.shape[1]]
        fresh = (number >= self._measured[slots][:, None]) & (arrived > 0)
        transit = arrived - number * _BLOCK_NS
        # The blocks of one packet came together; the first of them stands for it.
        first = fresh & (arrived != _before(arrived, fresh, self._arrival[slots]))
        change = np.abs(transit - _before(transit, first, self._transit[slots]))
        known = np.logical_or.accumulate(first, axis=1)
        known[:, 1:] = known[:, :-1]
        known[:, 0] = False
        counts = first & (known | (self._arrival[slots] > 0)[:, None]) & (change < MAX_CHANGE_NS)
        # J += (|D| - J) / 16 for each in turn, summed up.
        after = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        self._jitter[slots] *= _DECAY[after[:, 0]]
        self._jitter[slots] += (counts * change * _DECAY[np.maximum(after - 1, 0)]).sum(axis=1) / 16
        for stored, values in ((self._transit, transit), (self._arrival, arrived)):
            newest = _BLOCKS - 1 - np.argmax(first[:, ::-1], axis=1)
            stored[slots] = np.where(first.any(axis=1), values[_ROWS[: len(slots)], newest], stored[slots])
        self._measured[slots] = stop

    def publish(self, slots: Ints) -> None:
        """Writes the derived figures of these slots into the counters."""
        self._counters[slots, Counter.LOST] = self.lost(slots)
        self._counters[slots, Counter.JITTER_US] = (self._jitter[slots] / 1000).astype(np.int64)

    def lost(self, slots: Ints) -> Ints:
        """Expected minus received, over all streams of the call."""
        running = self.ssrc[slots] >= 0
        expected = self.highest[slots] - self._first[slots] + 1
        lost: Ints = self._lost_before[slots] + np.where(running, np.maximum(expected - self.received[slots], 0), 0)
        return lost

    def lost_of(self, slot: int) -> int:
        """`lost` of one slot."""
        lost = int(self._lost_before[slot])
        if self.ssrc[slot] >= 0:
            lost += max(int(self.highest[slot]) - int(self._first[slot]) + 1 - int(self.received[slot]), 0)
        return lost

    def jitter_ns(self, slot: int) -> float:
        return float(self._jitter[slot])

    def _restart(self, slot: int, sequence: int) -> None:
        self.highest[slot] = sequence - 1 + 0x10000  # room below for stragglers
        self._first[slot] = sequence + 0x10000
        self.received[slot] = 0
        self._confirms[slot] = -1
        self.seen[slot] = -1
        self._arrival[slot] = self._measured[slot] = 0

    def _settle(self, slot: int) -> None:
        expected = self.highest[slot] - self._first[slot] + 1
        self._lost_before[slot] += max(int(expected - self.received[slot]), 0)


def _before(values: Ints, where: NDArray[np.bool_], initial: Ints) -> Ints:
    """For each column the value at the last column before it where `where` holds, else `initial` of the row."""
    last = np.maximum.accumulate(np.where(where, np.arange(_BLOCKS), -1), axis=1)
    before = np.full(values.shape, -1)
    before[:, 1:] = last[:, :-1]
    found: Ints = np.where(before >= 0, np.take_along_axis(values, np.maximum(before, 0), axis=1), initial[:, None])
    return found
