"""When our own offers inside a call go out: one at a time, and again after both sides made one at once."""

import random
from collections.abc import Callable
from typing import Literal

_SECOND_NS = 1_000_000_000
_ANSWER_WITHIN_NS = 40 * _SECOND_NS  # a transaction takes 32 s to give up (RFC 3261, timers B and F)
_TRIES = 4
PENDING = 491  # Request Pending


class Offers:
    """RFC 3261 section 14.1: after a 491 the side that chose the Call-ID waits 2.1 to 4 s, the other up to 2 s."""

    def __init__(self, *, chose_call_id: bool, chance: Callable[[], float] = random.random) -> None:
        self._first_s, self._spread_s = (2.1, 1.9) if chose_call_id else (0.0, 2.0)
        self._chance = chance
        self.wanted = False
        self._tries = 0
        self._not_before = 0
        self._sent_at: int | None = None  # None: none is on its way

    @property
    def on_its_way(self) -> bool:
        return self._sent_at is not None

    def want(self) -> None:
        """Of several that wait, the last is enough: an offer is made of what is wanted when it goes out."""
        self.wanted = True
        self._tries = 0

    def due(self, now: int) -> bool:
        return self.wanted and not self.on_its_way and now >= self._not_before

    def sent(self, now: int) -> None:
        self.wanted = False
        self._tries += 1
        self._sent_at = now

    def expired(self, now: int) -> bool:
        return self._sent_at is not None and now - self._sent_at > _ANSWER_WITHIN_NS

    def answered(self, status: int, now: int) -> Literal["accepted", "again", "refused"]:
        self._sent_at = None
        if 200 <= status < 300:
            return "accepted"
        if status != PENDING or self._tries >= _TRIES:
            return "refused"
        self.wanted = True
        self._not_before = now + int((self._first_s + self._chance() * self._spread_s) * _SECOND_NS)
        return "again"
