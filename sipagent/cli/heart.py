"""Whether a main process hangs: it is alive, and its event loop does not turn.

Main counts beats in memory that it shares with the supervisor. The supervisor looks every second, and counts seconds
without a beat only where main had the chance to beat: not while it was stopped (SIGSTOP, a debugger, a paused machine
stops the supervisor as well), not while it waited for a disk, and not while it wanted a processor and got none.
"""

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 1.0  # between two looks
STARTING_S = 60.0  # without a beat, while a node starts
HUNG_S = 10.0  # and once it is up
_LONGEST_S = 2.0  # that one look may count: who looks was held up itself
_BUSY = 0.5  # of the time on a processor: it did run, and did not beat
_MEMORY = struct.Struct("=qd")  # beats, and the limit


class Heart:
    """Shared by the processes that are forked after it is made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MEMORY.size)

    def reset(self) -> None:
        """For another main: it is not watched before its first beat."""
        _MEMORY.pack_into(self._memory, 0, 0, 0.0)

    def beat(self, limit_s: float) -> None:
        """By main, every second or more often; without one for the limit it hangs."""
        beats, _ = self.state
        _MEMORY.pack_into(self._memory, 0, beats + 1, limit_s)

    @property
    def state(self) -> tuple[int, float]:
        """Beats so far, and the limit in seconds."""
        beats, limit_s = _MEMORY.unpack_from(self._memory)
        return beats, limit_s


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of main at one moment."""

    at: float  # s, monotonic
    beats: int
    limit_s: float
    state: str  # of the process, as in /proc: R, S, D, T ...
    cpu_s: float  # used so far


class Pulse:
    """Judges by looks that follow each other.

    >>> pulse = Pulse()
    >>> [pulse.hangs(Look(float(t), 7, 10.0, "S", 3.0)) for t in (0, 1, 5, 6, 7, 8, 9, 10, 11, 12)].index(True)
    9
    """

    def __init__(self) -> None:
        self._last: Look | None = None
        self.silent_s = 0.0  # that count

    def hangs(self, look: Look) -> bool:
        last, self._last = self._last, look
        if last is None or not look.beats or look.beats != last.beats:
            self.silent_s = 0.0
            return False
        passed = max(look.at - last.at, 0.0)
        ran = look.cpu_s - last.cpu_s >= _BUSY * passed
        if look.state == "S" or (look.state == "R" and ran):
            self.silent_s += min(passed, _LONGEST_S)
        return self.silent_s >= look.limit_s


def seen(pid: int, heart: Heart, at: float) -> Look | None:
    """None when the process is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return Look(at, *heart.state, fields[0], cpu_s)
    return None
