"""Who may come in: API keys, and patience with those who guess."""

from collections import OrderedDict, deque

from aiohttp import web

from sipagent.api.errors import ApiError
from sipagent.api.keys import matching_hash
from sipagent.core.clock import mono_ns

HEADER = "x-api-key"


class Failures:
    """Failed attempts by address, over a sliding window. Addresses: 10,000, forget the one heard from least lately."""

    def __init__(self, *, limit: int = 10, window_s: float = 60.0, addresses: int = 10_000) -> None:
        self._limit = limit
        self._window = int(window_s * 1e9)
        self._addresses = addresses
        self._failures: OrderedDict[str, deque[int]] = OrderedDict()

    def add(self, address: str, now: int) -> None:
        times = self._failures.setdefault(address, deque(maxlen=self._limit))
        times.append(now)
        self._failures.move_to_end(address)
        if len(self._failures) > self._addresses:
            self._failures.popitem(last=False)

    def wait_s(self, address: str, now: int) -> float:
        """Seconds until the address may fail again, 0 when it may now."""
        times = self._failures.get(address)
        if times is None or len(times) < self._limit:
            return 0.0
        return max(0, times[0] + self._window - now) / 1e9


class Gate:
    """Checks the key of a request."""

    def __init__(self, key_hashes: list[str]) -> None:
        self._hashes = tuple(key_hashes)
        self._failures = Failures()

    def check(self, request: web.Request) -> str:
        """The hash of the request's key; raises 401, or 429 for an address that failed too often.

        A right key passes however often its address failed before: behind a proxy everybody has one address, and one
        bad client must not lock out the others. 256-bit keys cannot be guessed meanwhile.
        """
        given = request.headers.get(HEADER, "")
        known = matching_hash(given, self._hashes) if given else None
        if known is not None:
            return known
        now = mono_ns()
        address = request.remote or ""
        wait_s = self._failures.wait_s(address, now)
        if wait_s:
            raise ApiError(429, "too many requests without a valid key", retry_after_s=wait_s)
        self._failures.add(address, now)
        raise ApiError(401, f"the {HEADER} header is missing or not a valid key")
