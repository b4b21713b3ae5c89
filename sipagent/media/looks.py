"""Looks at the lines, some times a second: how late packets have been lately, and whether something is wrong.

Most looks find a line as it was. `native_looks.h` is the twin of what they do, in C.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipagent.media.jitter import JitterBuffer
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import LineTrouble, Notice, Silent
from sipagent.media.reception import Reception
from sipagent.media.rings import Header, Rings
from sipagent.media.watch import Watch

Ints = NDArray[np.int64]

EVERY_NS = 200_000_000  # between two looks at a slot
AT_ONCE = 200  # slots: fewer and the looks cost more, more and a tick gets long


class Looks:
    """`narrow` and `wide` are the jitter buffers; arrays over slots say how each line is used, set by `lines`."""

    def __init__(
        self,
        rings: Rings,
        reception: Reception,
        narrow: JitterBuffer,
        wide: JitterBuffer,
        outgoing: Outgoing,
        heard_ns: Ints,
        timeout_s: float,
        notify: Callable[[Notice], None],
    ) -> None:
        self.rings = rings
        self.reception = reception
        self.narrow = narrow
        self.wide = wide
        self.troubles = Watch(rings)
        self.quiet_ns = int(timeout_s * 1e9)  # without packets until main is told; 0: it is not
        self.is_wide = np.zeros(rings.capacity, np.bool_)
        self.receiving = np.zeros(rings.capacity, np.bool_)
        self.pausing = np.zeros(rings.capacity, np.bool_)  # the newest packet was comfort noise
        self.told_silent = np.zeros(rings.capacity, np.bool_)
        self.state = np.zeros(2, np.int64)  # ns when the next look is, and the part of the slots that the last was at
        self.learn: Callable[[Ints, int], Ints] = self._learn_narrow  # `native` knows a cheaper way
        self._outgoing = outgoing
        self._heard_ns = heard_ns
        self._notify = notify

    def looked_at(self) -> dict[str, NDArray[Any]]:
        """What `native_looks.h` knows, by its names."""
        mine = {"receiving": self.receiving, "pausing": self.pausing, "told_silent": self.told_silent}
        parts = (self.reception.looked_at(), self.narrow.looked_at(), self.troubles.looked_at())
        return mine | parts[0] | parts[1] | parts[2] | {"state": self.state}

    @staticmethod
    def parts(count: int) -> int:
        """In how many parts so many slots are looked at."""
        return count // AT_ONCE + 1

    @property
    def due_ns(self) -> int:
        return int(self.state[0])

    def watch(self, slots: Ints, now_ns: int) -> None:
        """Every tick: looks at the next part of the slots when it is time for one."""
        if now_ns < self.state[0]:
            return
        parts = self.parts(len(slots))
        part = (int(self.state[1]) + 1) % parts
        self.state[:] = now_ns + EVERY_NS // parts, part
        self.rings.header[Header.CPU_NS] = time.process_time_ns()
        self._look(slots[part::parts], now_ns)

    def _look(self, slots: Ints, now_ns: int) -> None:
        wide = self.is_wide[slots]
        if wide.any():
            self._learn(slots[wide], self.wide)
            self.decide(slots[wide], now_ns)
            slots = slots[~wide]
        self.decide(self.learn(slots, now_ns), now_ns)

    def _learn_narrow(self, slots: Ints, now_ns: int) -> Ints:
        """Learns how late packets were; returns the slots of which something may follow."""
        self._learn(slots, self.narrow)
        return slots

    def _learn(self, slots: Ints, buffer: JitterBuffer) -> None:
        self.reception.measure(slots, buffer)
        self.reception.publish(slots)
        buffer.learn(slots, self.rings.ticked_ns[slots])

    def decide(self, slots: Ints, now_ns: int) -> None:
        """What follows from a look at these slots."""
        if not len(slots):
            return
        wide = self.is_wide[slots]
        for buffer, some in ((self.narrow, slots[~wide]), (self.wide, slots[wide])):
            buffer.decide(some, now_ns)
        flags = (self.receiving[slots], self._outgoing.sending[slots], self.pausing[slots], wide)
        for slot, trouble, active, seconds in self.troubles.look(slots, *flags, now_ns):
            self._notify(LineTrouble(slot=slot, kind=trouble.name.lower(), active=active, seconds=seconds))
        if self.quiet_ns:
            self._tell_silent(slots, now_ns)

    def _tell_silent(self, slots: Ints, now_ns: int) -> None:
        since = now_ns - self._heard_ns[slots]
        quiet = (since > self.quiet_ns) & self.receiving[slots]
        for row in np.flatnonzero(quiet & ~self.told_silent[slots]).tolist():
            self._notify(Silent(slot=int(slots[row]), seconds=float(since[row] / 1e9)))
        self.told_silent[slots] = quiet
