"""Same `Idempotency-Key`, same answer, done once: among requests under way in memory, for a day in the database."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from sipagent.api.errors import ApiError, field_error
from sipagent.store.access import UNFINISHED, KeptAnswer
from sipagent.store.records import AlreadyThere, RecordUnavailable

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
LONGEST_KEY = 255
STORE_LIMIT_S = 2.0  # that a request waits for the database on account of its key
KEEP_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    kept: bytes | None = None  # in the database in place of the body, where that holds what a caller has given


@dataclass(frozen=True, slots=True)
class _Entry:
    asked: bytes  # SHA-256 of the request's body
    task: asyncio.Task[Answer]
    made_at: int


class KeptAnswers(Protocol):
    """The database's; each method raises RecordUnavailable."""

    async def begin(self, scope: str, key: str, fingerprint: str) -> KeptAnswer | None: ...

    async def finish(self, scope: str, key: str, status: int, body: bytes) -> None: ...

    async def forget(self, scope: str, key: str) -> None: ...


class IdempotencyTable:
    """Entries: `bound`, forget the oldest; each for 24 hours."""

    def __init__(self, answers: KeptAnswers, bound: int = 10_000) -> None:
        self._answers = answers
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
                raise another_request()
            return await asyncio.shield(entry.task)
        task = asyncio.create_task(self._kept(scope, key, digest.hex(), work), name="api/once")
        self._running.add(task)
        task.add_done_callback(self._done)
        if key is not None:
            place = (scope, key)
            self._entries[place] = _Entry(digest, task, now)
            task.add_done_callback(lambda done: self._drop_failed(place, done))
        return await asyncio.shield(task)

    async def _kept(
        self, scope: str, key: str | None, fingerprint: str, work: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        if key is None:
            return await work()
        kept = True
        try:
            async with asyncio.timeout(STORE_LIMIT_S):
                found = await self._answers.begin(scope, key, fingerprint)
        except (TimeoutError, RecordUnavailable) as error:
            # calls are steered while the database is away; a restart meanwhile would forget this one
            log.warning("an idempotency key is kept in memory alone", extra={"error": type(error).__name__})
            found, kept = None, False
        except AlreadyThere:
            raise ApiError(409, f"a request with this {HEADER} is under way", retry_after_s=1) from None
        if found is not None:
            return _answer_of(found, fingerprint)
        try:
            answer = await work()
        except BaseException:
            if kept:
                await self._tell(self._answers.forget(scope, key))
            raise
        if kept:
            await self._tell(
                self._answers.finish(scope, key, answer.status, answer.body if answer.kept is None else answer.kept)
            )
        return answer

    async def _tell(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(STORE_LIMIT_S):
                await work
        except (TimeoutError, RecordUnavailable) as error:
            log.error("the answer to an idempotency key could not be kept", extra={"error": type(error).__name__})

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


def another_request() -> ApiError:
    return ApiError(409, f"this {HEADER} was used before with another request")


def _answer_of(found: KeptAnswer, fingerprint: str) -> Answer:
    if found.fingerprint != fingerprint:
        raise another_request()
    if found.status == UNFINISHED:
        raise ApiError(
            409,
            f"what was asked with this {HEADER} was begun, and how it ended is not known: look whether it was done"
            " before you ask again with another key",
        )
    return Answer(found.status, found.body.encode())
