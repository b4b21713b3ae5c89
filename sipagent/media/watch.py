"""Troubles of a line's audio, noticed within 5 s: nothing comes, only silence comes, the peer does not hear us.

Five times a second all lines are looked at at once. A trouble begins when nothing was right for `AFTER_NS` and ends
when nothing was wrong for `ENDS_NS`, so that a single packet or click in the midst of it neither ends nor begins one.
While the SDP lets no audio in (hold), none is missed.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rings import FLAG_CONCEALED, FLAG_SILENCE, RX_FRAMES, Counter, Rings

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

AFTER_NS = 4_500_000_000
# A telephone that suppresses noise sends digital silence while its owner listens: once it has been heard, that is long
# no trouble.
HEARD_AFTER_NS = 30_000_000_000
ENDS_NS = 500_000_000
HEARS_NS = 12_000_000_000  # how long a report of the peer's is believed; they come every 5 s, a little more at times
PAUSE_NS = 30_000_000_000  # a sender that has announced silence (RFC 3389) may send nothing for so long
# -dBov: at most this is silence. A-law has no smaller signal, and no comfort noise in use is as weak (-40 to -66).
SILENT_LEVEL = 72
ENOUGH_SENT = 50  # packets between two of the peer's reports for the second one to prove something
_FRAMES = 11  # a look, with one to spare


class Trouble(IntEnum):
    """Of one leg. The names in lower case are the kinds of the event `AudioTrouble`."""

    NO_MEDIA = 0  # no packets
    SILENT = 1  # packets of digital silence, for 5 s at the start or 30 s later; a muted telephone is no different
    NOT_HEARD = 2  # by its RTCP reports the peer gets nothing of ours
    ONE_WAY = 3  # one of NO_MEDIA and NOT_HEARD, and the other direction is known to work


class Change(NamedTuple):
    """A trouble began, or ended."""

    slot: int
    trouble: Trouble
    active: bool
    seconds: float  # it has lasted


class Watch:
    """Every slot's troubles. Monotonic ns are arguments."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        shape = (len(Trouble), rings.capacity)
        self._active = np.zeros(shape, np.bool_)
        self._right_ns = np.zeros(shape, np.int64)  # when it was last all right
        self._wrong_ns = np.zeros(shape, np.int64)  # when it last was not
        self._since_ns = np.zeros(shape, np.int64)  # when the present trouble began
        self._packets = np.zeros(rings.capacity, np.int64)
        self._came_ns = np.zeros(rings.capacity, np.int64)
        self._sounded = np.zeros(rings.capacity, np.bool_)  # something was heard since the start
        self._highest = np.full(rings.capacity, -1, np.int64)  # of our packets, as the peer says; -1 before it does
        self._sent = np.zeros(rings.capacity, np.int64)  # packets sent by then
        self._unheard = np.zeros(rings.capacity, np.bool_)
        self._hears_ns = np.full(rings.capacity, -HEARS_NS, np.int64)

    def looked_at(self) -> dict[str, NDArray[Any]]:
        """What `native_looks.h` knows, by its names."""
        return {
            **{"active": self._active, "right": self._right_ns, "wrong": self._wrong_ns, "sounded": self._sounded},
            **{"unheard": self._unheard, "packets": self._packets, "came": self._came_ns, "hears": self._hears_ns},
        }

    def start(self, slot: int, now_ns: int) -> None:
        """The slot's first connection: nothing is known of it."""
        self._active[:, slot] = False
        self._right_ns[:, slot] = now_ns
        self._wrong_ns[:, slot] = 0
        self._packets[slot] = self._rings.counters[slot, Counter.PACKETS_IN]
        self._came_ns[slot] = now_ns
        self._sounded[slot] = False
        self._highest[slot] = -1
        self._unheard[slot] = False
        self._hears_ns[slot] = now_ns - HEARS_NS

    def reported(self, slot: int, highest: int, now_ns: int) -> None:
        """The peer's report block about our stream, with the extended highest sequence number it has received."""
        sent = int(self._rings.counters[slot, Counter.PACKETS_OUT])
        advanced = highest != self._highest[slot]
        if self._highest[slot] < 0 or advanced:
            if self._highest[slot] >= 0:
                self._hears_ns[slot] = now_ns
            self._unheard[slot] = False
            self._highest[slot], self._sent[slot] = highest, sent
        elif sent - self._sent[slot] >= ENOUGH_SENT:
            self._unheard[slot] = True

    def look(
        self, slots: Ints, receiving: Bools, sending: Bools, pausing: Bools, wide: Bools, now_ns: int
    ) -> list[Change]:
        """What changed on these slots; the flags are theirs, in the same order.

        `pausing`: the last packet that came was comfort noise. `wide`: the line is one of 16 kHz.
        """
        if not len(slots):
            return []
        packets = self._rings.counters[slots, Counter.PACKETS_IN]
        came = packets != self._packets[slots]
        self._packets[slots] = packets
        self._came_ns[slots[came]] = now_ns
        pause = pausing & (now_ns - self._came_ns[slots] < PAUSE_NS)
        expecting = receiving & ~pause
        loud, quiet = self._heard(slots, wide)
        self._unheard[slots] &= sending

        changes: list[Change] = []
        missing = self._update(Trouble.NO_MEDIA, slots, expecting, came, ~came, AFTER_NS, now_ns, changes)
        self._sounded[slots] |= loud
        after = np.where(self._sounded[slots], HEARD_AFTER_NS, AFTER_NS)
        self._update(Trouble.SILENT, slots, expecting, loud | ~came, quiet & came & ~loud, after, now_ns, changes)
        unheard = self._unheard[slots]
        not_heard = self._update(Trouble.NOT_HEARD, slots, sending, ~unheard, unheard, 0, now_ns, changes)
        heard = now_ns - self._hears_ns[slots] < HEARS_NS
        hears = now_ns - self._came_ns[slots] < ENDS_NS
        one_way = (missing & sending & heard) | (not_heard & receiving & hears)
        self._update(Trouble.ONE_WAY, slots, receiving & sending, ~one_way, one_way, 0, now_ns, changes)
        return changes

    def _heard(self, slots: Ints, wide: Bools) -> tuple[Bools, Bools]:
        """Whether a new frame was more than silence, and whether one was silence; invented ones do not count."""
        rings = self._rings
        positions = rings.rx_head[slots][:, None] - np.arange(1, _FRAMES + 1)
        places = positions % np.where(wide, RX_FRAMES // 2, RX_FRAMES)[:, None]
        rows = slots[:, None]
        real = (positions >= 0) & (rings.rx_flags[rows, places] & (FLAG_CONCEALED | FLAG_SILENCE) == 0)
        silent = rings.rx_level[rows, places] >= SILENT_LEVEL
        return (real & ~silent).any(1), (real & silent).any(1)

    def _update(
        self,
        trouble: Trouble,
        slots: Ints,
        possible: Bools,
        right: Bools,
        wrong: Bools,
        after_ns: int | Ints,
        now_ns: int,
        changes: list[Change],
    ) -> Bools:
        """Takes this look's findings, adds what changed, and returns where the trouble is active."""
        active = self._active[trouble]
        self._right_ns[trouble, slots[right | ~possible]] = now_ns
        self._wrong_ns[trouble, slots[wrong & possible]] = now_ns
        was = active[slots]
        begins = ~was & possible & wrong & (now_ns - self._right_ns[trouble, slots] >= after_ns)
        over = right & (now_ns - self._wrong_ns[trouble, slots] >= ENDS_NS)
        ends = was & (over | ~possible)
        for slot in slots[begins].tolist():
            active[slot] = True
            self._since_ns[trouble, slot] = self._right_ns[trouble, slot]
        for slot in slots[ends].tolist():
            active[slot] = False
        for slot in slots[begins | ends].tolist():
            lasted = (now_ns - int(self._since_ns[trouble, slot])) / 1e9
            changes.append(Change(slot, trouble, bool(active[slot]), lasted))
        now: Bools = active[slots]
        return now
