"""The one place that reads clocks. Decisions take the time as an argument; rows carry both clocks."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Stamp:
    """One instant on both clocks: ``mono`` (ns, CLOCK_MONOTONIC) for differences, ``wall`` (UTC) for rows.

    The monotonic clock is the same in every process of the machine, so stamps made in the media process and
    in main may be subtracted from one another.
    """

    mono: int
    wall: datetime

    def ms_since(self, earlier: "Stamp") -> float:
        return (self.mono - earlier.mono) / 1e6

    def at_mono(self, mono: int) -> "Stamp":
        """The stamp of another monotonic instant (ns), its wall time reckoned from this one."""
        return Stamp(mono, self.wall + timedelta(microseconds=(mono - self.mono) / 1e3))


def now() -> Stamp:
    return Stamp(time.monotonic_ns(), datetime.now(UTC))


def mono_ns() -> int:
    return time.monotonic_ns()


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
