"""How each provider has done: whether to ask it now, and its figures. Pure; the time is an argument (monotonic ns)."""

import asyncio
import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

LONGEST_PAUSE_S = 300.0
LATELY = 8  # answers that count for what is usual
REMEMBERED = 256  # first-byte times kept for the percentiles


class Standing(Enum):
    GOOD = auto()
    ON_TRIAL = auto()  # has failed, and its pause is over: one request shall tell
    SET_ASIDE = auto()


class Breaker:
    """A circuit breaker: after so many failures in a row a provider is left alone, longer each time.

    GOOD ──failures in a row──► SET_ASIDE ──pause over──► ON_TRIAL ──answer──► GOOD
                                    ▲                         │
                                    └──── failure, twice the pause
    """

    def __init__(self, failures: int, pause_s: float) -> None:
        self._limit = failures
        self._pause_s = pause_s
        self._in_a_row = 0
        self._pauses = 0
        self._until = 0
        self._trying_until = 0

    def standing(self, now: int) -> Standing:
        if not self._pauses:
            return Standing.GOOD
        return Standing.SET_ASIDE if now < max(self._until, self._trying_until) else Standing.ON_TRIAL

    def trial(self, now: int, limit_ms: int) -> None:
        """A request on trial has been made: no other until it is through, at most so long."""
        self._trying_until = now + limit_ms * 1_000_000

    def succeeded(self) -> None:
        self._in_a_row = self._pauses = self._trying_until = 0

    def failed(self, now: int, *, for_good: bool = False) -> None:
        """``for_good``: another try would fail as well, such as with a key that is refused."""
        self._in_a_row += 1
        self._trying_until = 0
        if for_good or self._pauses or self._in_a_row >= self._limit:
            self._until = now + int(min(self._pause_s * 2**self._pauses, LONGEST_PAUSE_S) * 1e9)
            self._pauses = min(self._pauses + 1, 16)


@dataclass(slots=True)
class Figures:
    """Of one provider since the node started."""

    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # by reason
    late: int = 0  # another one answered first
    first_ms: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # to the first word or audio

    def failed(self, reason: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1


class Health:
    """One provider's, shared by all calls."""

    def __init__(self, name: str, failures: int = 3, pause_s: float = 20.0) -> None:
        self.name = name
        self.breaker = Breaker(failures, pause_s)
        self.figures = Figures()
        self.trials: set[asyncio.Task[Any]] = set()  # requests whose answer only matters here

    @property
    def usual_ms(self) -> float:
        """Until its first word or audio, lately; 0 while that is not known, so that it is found out."""
        return statistics.median(list(self.figures.first_ms)[-LATELY:]) if self.figures.first_ms else 0.0

    def asked(self) -> None:
        self.figures.requests += 1

    def answered(self, first_ms: float) -> None:
        self.figures.first_ms.append(first_ms)
        self.breaker.succeeded()

    def failed(self, now: int, reason: str, *, for_good: bool) -> None:
        self.figures.failed(reason)
        self.breaker.failed(now, for_good=for_good)
