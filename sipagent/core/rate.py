"""A limit on how often something may happen. Pure; the time is an argument (monotonic ns)."""


class RateLimit:
    """A bucket of `per_second` tokens that refills at that rate."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._tokens = float(per_second)
        self._at = 0
        self._suppressed = 0

    def admit(self, now: int) -> bool:
        """Whether it may happen now; counts those that may not."""
        self._tokens = min(float(self._rate), self._tokens + (now - self._at) / 1e9 * self._rate)
        self._at = now
        if self._tokens < 1.0:
            self._suppressed += 1
            return False
        self._tokens -= 1.0
        return True

    def take_suppressed(self) -> int:
        """How many were refused since the last call of this."""
        count, self._suppressed = self._suppressed, 0
        return count
