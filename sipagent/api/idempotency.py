"""Same `Idempotency-Key`, same answer, done once. In memory: a restart forgets (issue 6 moves the table into SQL)."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sipagent.api.errors import ApiError, field_error

HEADER = "Idempotency-Key"
LONGEST_KEY = 255
KEEP_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    asked: bytes  # SHA-256 of the request's body
    task: asyncio.Task[Answer]
    made_at: int


class IdempotencyTable:
    """Entries: `bound`, forget the oldest; each for 24 hours."""

    def __init__(self, bound: int = 10_000) -> None:
        self._bound = bound
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._running: set[asyncio.Task[Answer]] = set()

    async def once(
        self, scope: str, key: str | None, asked: bytes, now: int, work: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """The answer of `work`, or the earlier one for the same key in the same scope (who asks, and where).

        Work once begun is finished even when whoever asked has gone. A failure is not kept: nothing was done, so the
        same key may try again. Raises 409 when the key was used with another request, 422 for an unusable key.
        """
        if key is not None and not 1 <= len(key) <= LONGEST_KEY:
            raise field_error(HEADER, f"must have 1 to {LONGEST_KEY} characters")
        self._forget(now)
        digest = hashlib.sha256(asked).digest()
        entry = self._entries.get((scope, key)) if key is not None else None
        if entry is not None:
            if entry.asked != digest:
                raise ApiError(409, f"this {HEADER} was used before with another request")
            return await asyncio.shield(entry.task)
        task = asyncio.create_task(work(), name="api/once")
        self._running.add(task)
        task.add_done_callback(self._done)
        if key is not None:
            place = (scope, key)
            self._entries[place] = _Entry(digest, task, now)
            task.add_done_callback(lambda done: self._drop_failed(place, done))
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Answer]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even when nobody waits for it any more

    def _drop_failed(self, place: tuple[str, str], done: asyncio.Task[Answer]) -> None:
        entry = self._entries.get(place)
        if (done.cancelled() or done.exception() is not None) and entry is not None and entry.task is done:
            del self._entries[place]

    def _forget(self, now: int) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if now - oldest.made_at < KEEP_NS and len(self._entries) < self._bound:
                return
            self._entries.popitem(last=False)
