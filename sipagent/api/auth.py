"""Who may come in: API keys, and patience with those who guess."""

import base64
import contextlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from sipagent.api.access.backend import AccessBackend
from sipagent.api.errors import ApiError
from sipagent.api.keys import hash_key, matching_hash
from sipagent.core import clock
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


SCOPES = ("read", "control", "admin")  # each has what the ones before it have
MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """Whose request it is: a key of the configuration has its hash's beginning for an id."""

    key_id: str
    scopes: Sequence[str]
    rate_per_s: float  # 0 is no limit

    def allows(self, scope: str) -> bool:
        return any(SCOPES.index(scope) <= SCOPES.index(own) for own in self.scopes if own in SCOPES)


class Rates:
    """Requests a second by key, with room for those of one second at once. Times in ns."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()  # requests left, as of when

    def wait_s(self, key_id: str, per_second: float, now: int) -> float:
        """0 when one more request may be made: it counts as made then; else seconds until it may."""
        room = max(1.0, per_second)
        left, at = self._buckets.pop(key_id, (room, now))
        left = min(room, left + (now - at) / 1e9 * per_second)
        wait = 0.0 if left >= 1.0 - 1e-9 else (1.0 - left) / per_second
        self._buckets[key_id] = (left if wait else left - 1.0, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait


def key_of(request: web.Request, basic: bool) -> str:
    """The header, or where `basic` the password of Basic authentication; "" for none."""
    given, (kind, _, encoded) = request.headers.get(HEADER, ""), request.headers.get("Authorization", "").partition(" ")
    if basic and not given and kind == "Basic":
        with contextlib.suppress(ValueError):
            given = base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    return given


class Gate:
    """Checks the key of a request: those of the configuration, which may do everything, and those that were made."""

    def __init__(self, key_hashes: list[str], access: AccessBackend, rate_per_s: float = 0.0) -> None:
        self._hashes = tuple(key_hashes)
        self._access = access
        self._rate_per_s = rate_per_s
        self._failures = Failures()
        self._rates = Rates()

    def check(self, request: web.Request, scope: str = "read", *, basic: bool = False) -> Grant:
        """Raises 401, 403 for a key that may not do this, or 429 for one that asks too often or an address that failed
        too often.

        A right key passes however often its address failed before: behind a proxy everybody has one address, and one
        bad client must not lock out the others. 256-bit keys cannot be guessed meanwhile.
        """
        given = key_of(request, basic)
        grant = self._grant(given) if given else None
        now = mono_ns()
        if grant is None:
            self._failed(request.remote or "", now)
            raise ApiError(401, f"the {HEADER} header is missing or not a valid key")
        if grant.rate_per_s and (wait_s := self._rates.wait_s(grant.key_id, grant.rate_per_s, now)):
            raise ApiError(429, "too many requests with this key", retry_after_s=wait_s)
        if not grant.allows(scope):
            raise ApiError(403, f"this key may not do that: it lacks the scope {scope}")
        return grant

    def holds(self, request: web.Request) -> bool:
        """Whether the key in the header of a request that was let in would be let in still."""
        return self._grant(key_of(request, basic=False)) is not None

    def _failed(self, address: str, now: int) -> None:
        wait_s = self._failures.wait_s(address, now)
        if wait_s:
            raise ApiError(429, "too many requests without a valid key", retry_after_s=wait_s)
        self._failures.add(address, now)

    def _grant(self, given: str) -> Grant | None:
        configured = matching_hash(given, self._hashes)
        if configured is not None:
            return Grant(f"configured {configured[:8]}", ("admin",), self._rate_per_s)
        # found by a hash of 256 random bits: how long that takes tells nothing of any key
        key = self._access.find_key(hash_key(given))
        at = clock.now().wall
        if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= at):
            return None
        self._access.note_use(key.id, at)
        return Grant(key.id, key.scopes, self._rate_per_s if key.rate_per_s is None else key.rate_per_s)
