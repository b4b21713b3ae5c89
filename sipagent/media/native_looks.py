"""The looks at lines of 8 kHz in C: `native_looks.h`, called on the arrays of `looks`."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from sipagent.media import jitter, lateness, reception, watch
from sipagent.media.looks import EVERY_NS, Looks
from sipagent.media.rings import Header

Ints = NDArray[np.int64]

_ARRAYS = (
    *("stream", "first", "lost_before", "measured", "transit", "came_last", "jitter"),
    *("known", "live", "due", "wanted", "stretch", "patience", "next_try", "barren"),
    *("histogram", "entered", "floor", "lowest", "window_to", "learned_to", "phase", "lag", "target"),
    *("receiving", "pausing", "told_silent"),
    *("active", "right", "wrong", "sounded", "unheard", "packets", "came", "hears"),
    *("state", "rest"),
)
_SHARES = ("keeps", "quantile")
_LIMITS = (
    *("capacity", "bins", "silent_level", "urgent"),
    *(
        "bin",
        "least",
        "most",
        "window",
        "slack",
        "ease",
        "tick",
        "patience_ns",
        "most_patience",
        "largest_change",
        "far",
    ),
    *("after", "heard_after", "ends", "hears_for", "pause", "quiet_for", "every"),
)


class Structure(ctypes.Structure):
    """struct Looks of native_looks.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        *((name, ctypes.c_double) for name in _SHARES),
        *((name, ctypes.c_int64) for name in _LIMITS),
        ("slots", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "parts", "cpu", "rest_count")),
    ]


class NativeLooks:
    def __init__(self, library: ctypes.CDLL, hot: int, looks: Looks) -> None:
        """`hot`: the address of the structure that the hot path works on."""
        self._library = library
        self._hot = hot
        self._ticked = looks.rings.ticked_ns
        self._rest = np.zeros(looks.rings.capacity, np.int64)
        self._arrays = looks.looked_at() | {"rest": self._rest}  # they must live as long as the pointers to them
        self._state = state = Structure()
        self.at = ctypes.addressof(state)
        for name in _ARRAYS:
            setattr(state, name, self._arrays[name].ctypes.data)
        for name, value in _limits(looks).items():
            setattr(state, name, value)
        state.cpu = Header.CPU_NS
        self.settle(np.zeros(0, np.int64))

    def settle(self, slots: Ints) -> None:
        """All slots that `NativePath.run` looks at."""
        self._slots = np.ascontiguousarray(slots)
        self._state.slots, self._state.count = self._slots.ctypes.data, len(slots)
        self._state.parts = Looks.parts(len(slots))
        self._state.rest_count = 0

    @property
    def rest(self) -> Ints:
        """Slots of which something follows from the last look."""
        return self._rest[: self._state.rest_count].copy()

    def learn(self, slots: Ints, now_ns: int) -> Ints:
        """A look at these slots; returns those of which something follows."""
        slots = np.ascontiguousarray(slots)
        self._library.hot_look(
            *(self._hot, self.at, self._ticked.ctypes.data, slots.ctypes.data, len(slots), 1, now_ns)
        )
        return self.rest


def _limits(looks: Looks) -> dict[str, float]:
    late = looks.narrow.lateness
    return {
        **{"keeps": lateness.KEPT, "quantile": lateness.QUANTILE},
        **{"capacity": looks.rings.capacity, "bins": late.bins, "silent_level": watch.SILENT_LEVEL},
        **{"bin": lateness.BIN_NS, "least": late.least, "most": late.most, "far": lateness.FAR_NS},
        "window": lateness.FLOOR_NS * looks.narrow.rate // 1_000_000_000,
        **{"slack": lateness.SLACK_NS, "ease": lateness.EASE_NS, "tick": lateness.TICK_NS},
        **{"urgent": jitter.URGENT * looks.narrow.frame, "most_patience": jitter.MOST_PATIENCE_NS},
        **{"patience_ns": jitter.PATIENCE_NS, "largest_change": reception.MAX_CHANGE_NS},
        **{"after": watch.AFTER_NS, "heard_after": watch.HEARD_AFTER_NS, "ends": watch.ENDS_NS},
        **{"hears_for": watch.HEARS_NS, "pause": watch.PAUSE_NS, "quiet_for": looks.quiet_ns, "every": EVERY_NS},
    }
