"""Several providers of the same thing: the first to answer is taken, whoever fails is replaced at once.

    first  ──────────────────x late by hedge_ms ──────────► cancelled when another answers first
    second                   └────────► first item ► the answer
    third                         only when both have failed, or are late

Each provider asked has a task of its own that reads its answer into a short queue, so that whatever it does, hang or
drip, costs no more than the limits here.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from sipagent.conversation.providers.health import Health, Standing
from sipagent.conversation.providers.ledger import Ledger
from sipagent.core import clock
from sipagent.core.errors import ProviderError, where

AHEAD = 16  # items of an answer that may wait for whoever uses them; the provider waits beyond that
GRACE_S = 1.0  # from the first item on, before a rate means anything

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    first_ms: int = 2500
    stall_ms: int = 1500
    hedge_ms: int = 0  # 0 waits for first_ms
    least_per_s: float = 0.0  # of what `Candidate.size` counts, from the first item on; below it drips


@dataclass(frozen=True, slots=True)
class Candidate(Generic[T]):
    health: Health
    limits: Limits
    start: Callable[[], AsyncIterator[T]]
    size: Callable[[T], float] = lambda _item: 0.0


class Answer(Generic[T]):
    """One provider's answer under way."""

    def __init__(self, candidate: Candidate[T], role: str, ledger: Ledger) -> None:
        self.candidate = candidate
        self._role = role
        self._ledger = ledger
        self._items: asyncio.Queue[T | ProviderError | None] = asyncio.Queue(AHEAD)
        self._began = clock.mono_ns()
        self._first_at = 0
        self._got = 0.0
        self.on_trial = False
        candidate.health.asked()
        self._task = asyncio.create_task(self._read(), name=f"provider/{candidate.health.name}")

    @property
    def ms(self) -> float:
        return (clock.mono_ns() - self._began) / 1e6

    async def first(self) -> T:
        """Raises ProviderError, which has been noted then."""
        try:
            item = await self._next(self.candidate.limits.first_ms - self.ms)
            if item is None:
                raise ProviderError("an empty answer", retryable=True)
        except ProviderError as error:
            self.failed(error)
            raise
        self._first_at = clock.mono_ns()
        self.candidate.health.answered(self.ms)
        self._ledger.answered(self._role, self.candidate.health.name, self.ms)
        self._got = self.candidate.size(item)
        return item

    async def rest(self) -> AsyncGenerator[T, None]:
        """What follows the first. Raises ProviderError when it breaks off, noted as well."""
        while True:
            drips = self._items.empty() and self._too_slow()
            try:
                if drips:
                    raise ProviderError("too slow in the middle of its answer", retryable=True)
                item = await self._next(self.candidate.limits.stall_ms)
            except ProviderError as error:
                self.failed(error)
                raise
            if item is None:
                return
            self._got += self.candidate.size(item)
            yield item

    def _too_slow(self) -> bool:
        seconds = (clock.mono_ns() - self._first_at) / 1e9
        return seconds > GRACE_S and self._got < self.candidate.limits.least_per_s * seconds

    def failed(self, error: ProviderError) -> None:
        """Notes it, and asks no more of this one."""
        self.candidate.health.failed(clock.mono_ns(), str(error), for_good=not error.retryable)
        self._ledger.failed(self._role, self.candidate.health.name, error, self.ms)
        self.cancel()

    def lost(self) -> None:
        """Another one was first."""
        self.candidate.health.figures.late += 1
        self._ledger.late(self._role, self.candidate.health.name, self.ms)

    def see_through(self, first: "asyncio.Task[T]") -> None:
        """Lets it go on to its first item, at most for its limit, for its health's sake alone."""
        self._ledger = Ledger()
        trials = self.candidate.health.trials
        trials.add(first)

        def over(task: "asyncio.Task[T]") -> None:
            trials.discard(task)
            self.cancel()
            if not task.cancelled():
                task.exception()

        first.add_done_callback(over)

    def cancel(self) -> None:
        self._task.cancel()

    async def _next(self, limit_ms: float) -> T | None:
        try:
            # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the item.
            async with asyncio.timeout(max(limit_ms, 1) / 1000):
                item = await self._items.get()
        except TimeoutError:
            raise ProviderError(f"nothing for {max(limit_ms, 0):.0f} ms", retryable=True) from None
        if isinstance(item, ProviderError):
            raise item
        return item

    async def _read(self) -> None:
        try:
            items = self.candidate.start()
            if isinstance(items, AsyncGenerator):
                async with aclosing(items):
                    await self._pass_on(items)
            else:
                await self._pass_on(items)
            await self._items.put(None)
        except ProviderError as error:
            await self._items.put(error)
        except Exception as error:  # whatever a vendor sent that we did not think of
            await self._items.put(ProviderError(f"cannot be understood ({where(error)})", retryable=True))

    async def _pass_on(self, items: AsyncIterator[T]) -> None:
        async for item in items:
            await self._items.put(item)


class Race(Generic[T]):
    """Asks providers in order of preference until one has answered; what has failed is not asked again."""

    def __init__(self, role: str, candidates: Sequence[Candidate[T]], ledger: Ledger) -> None:
        self._role = role
        self._ledger = ledger
        self._left = _order(candidates, fastest_first=ledger.impatience.fastest_first(role))

    @property
    def exhausted(self) -> bool:
        return not self._left

    async def winner(self) -> tuple[Answer[T], T]:
        """The answer that came first and its first item. Raises ProviderError when all have failed."""
        if self.exhausted:
            raise ProviderError(f"no provider of {self._role} is left", retryable=True)
        asked: dict[asyncio.Task[T], Answer[T]] = {}
        won = False
        hurried = asyncio.create_task(self._ledger.hurried())
        error = ProviderError("nobody was asked", retryable=True)
        try:
            self._ask(asked)
            while asked:
                newest = list(asked.values())[-1]
                hedge = self._hedge_ms(newest) if self._left else 0
                wait_s = max(hedge - newest.ms, 0) / 1000 if hedge else None
                done, _ = await asyncio.wait({*asked, hurried}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in asked if task in done]:
                    if (failure := task.exception()) is None:
                        won = True
                        return asked.pop(task), task.result()
                    assert isinstance(failure, ProviderError)
                    error = failure
                    del asked[task]
                    self._ask(asked)
                if not done or hurried in done:  # late, or the caller has waited long enough
                    self._ask(asked)
                if hurried in done:
                    hurried = asyncio.create_task(self._ledger.hurried())
            raise error
        finally:
            hurried.cancel()
            for task, answer in asked.items():
                if won:
                    answer.lost()
                if not (won and answer.on_trial):
                    task.cancel()
                    answer.cancel()
                else:  # what it would have done tells whether it may come back
                    answer.see_through(task)

    def _ask(self, asked: "dict[asyncio.Task[T], Answer[T]]") -> None:
        """The next one, and with one on trial whoever comes after it: the caller shall not wait for a trial."""
        while self._left:
            candidate = self._left.pop(0)
            now = clock.mono_ns()
            on_trial = candidate.health.breaker.standing(now) is Standing.ON_TRIAL
            if on_trial:
                candidate.health.breaker.trial(now, candidate.limits.first_ms)
            answer = Answer(candidate, self._role, self._ledger)
            answer.on_trial = on_trial
            asked[asyncio.create_task(answer.first())] = answer
            if not on_trial:
                return

    def _hedge_ms(self, newest: Answer[T]) -> int:
        set_ms = newest.candidate.limits.hedge_ms
        hurried_ms = self._ledger.impatience.hedge_ms(self._role)
        return min(set_ms, hurried_ms) if set_ms and hurried_ms else set_ms or hurried_ms


def _order(candidates: "Sequence[Candidate[T]]", *, fastest_first: bool) -> "list[Candidate[T]]":
    """Those that are set aside come last: better asked than nobody."""
    now = clock.mono_ns()

    def rank(candidate: "Candidate[T]") -> tuple[bool, float]:
        health = candidate.health
        usual_ms = health.usual_ms if fastest_first else 0.0
        return health.breaker.standing(now) is Standing.SET_ASIDE, usual_ms

    return sorted(candidates, key=rank)
