"""From the words of a caller to the wire: the answer by clauses, and what is said when something is slow or fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from sipagent.conversation import chunking
from sipagent.conversation.answer import Answer, Clause
from sipagent.conversation.bridge import BridgeManners
from sipagent.conversation.floor import BargeInPlan
from sipagent.conversation.interfaces import Agent, Asked, Piece, Speech, Tts
from sipagent.conversation.turn import Turn
from sipagent.conversation.turn_strategies import TurnEndPlan
from sipagent.core.errors import ProviderError
from sipagent.core.ids import CallId


class Manners(BridgeManners, Protocol):
    """How an agent behaves, whatever its brain; texts may be empty to say nothing."""

    @property
    def language(self) -> str:
        """ISO 639-1, of the agent's words and the caller's."""
        ...

    @property
    def greeting(self) -> str: ...
    @property
    def whole_greeting(self) -> bool: ...
    @property
    def silence_prompt(self) -> str: ...
    @property
    def silence_s(self) -> float: ...
    @property
    def silence_prompts(self) -> int: ...
    @property
    def barge_in(self) -> str | BargeInPlan:
        """Which speech of the caller's interrupts: "always", "words", "never", or only after a while."""
        ...

    @property
    def turn_end(self) -> str | TurnEndPlan:
        """Who decides that the caller has finished: a strategy's name, or more about it."""
        ...


class Reply:
    """How one agent answers in one call.

    `problem` is told what failed and was survived, `failed` that nothing can be said any more; `now` is monotonic ns.
    """

    def __init__(
        self,
        call_id: CallId,
        agent: Agent,
        manners: Manners,
        tts: Tts,
        limit_s: float,
        *,
        problem: Callable[[str, ProviderError], None],
        failed: Callable[[], None],
        now: Callable[[], int],
    ) -> None:
        self._call_id = call_id
        self._agent = agent
        self._manners = manners
        self._tts = tts
        self._limit_s = limit_s
        self._problem = problem
        self._failed = failed
        self._now = now

    def begin(self, asked: Asked, rate: Callable[[], int]) -> Answer:
        """An answer for the wire's `rate`, not under way yet."""
        return Answer(self._agent, asked, self._tts, rate=rate, now=self._now, name=self._call_id)

    async def speak_answer(self, turn: Turn, answer: Answer) -> Piece | None:
        """Says the agent's answer; returns what the agent wants done after it, if anything."""
        turn.asked, answer.asked.turn_id = answer.asked, turn.id
        try:
            while (clause := await self._next(answer)) is not None:
                turn.answer_ns = turn.answer_ns or answer.answer_ns
                turn.clause_ns = turn.clause_ns or answer.clause_ns
                await self._say(turn, clause.text, clause, clause.rate, protected=clause.protected)
                turn.answered = True
            if answer.error is not None:
                raise answer.error
        except ProviderError as error:
            self._problem("agent", error)
            await answer.stop()
            await self.apologise(turn)
        finally:
            await answer.stop()
            turn.intent = answer.intent
            turn.details |= answer.asked.details
        return answer.action

    async def _next(self, answer: Answer) -> Clause | None:
        while True:
            try:
                async with asyncio.timeout(self._limit_s):
                    return await answer.next()
            except TimeoutError as error:
                if self._now() >= answer.busy_until_ns:
                    raise ProviderError("no answer within the limit", retryable=True) from error

    async def apologise(self, turn: Turn) -> None:
        """In place of an answer."""
        turn.failed = True
        await self.speak(turn, self._manners.apology)

    async def speak(self, turn: Turn, text: str, *, protected: bool = False) -> None:
        """A whole text of the manners; by clauses, as it was prepared. A `protected` one must be heard whole."""
        for clause in chunking.split(text):
            turn.clause_ns = turn.clause_ns or self._now()
            rate = turn.utterance.rate
            await self._say(turn, clause, self._tts.speak(clause, rate), rate, protected=protected)

    async def _say(self, turn: Turn, clause: str, pieces: AsyncIterator[Speech], rate: int, *, protected: bool) -> None:
        try:
            await turn.utterance.say(clause, pieces, rate, self._now, protected=protected)
        except ProviderError as error:
            self._problem("tts", error)
            if turn.apologising:
                self._failed()
                return
            turn.apologising = True
            await self.apologise(turn)
