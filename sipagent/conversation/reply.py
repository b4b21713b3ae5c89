"""From the words of a caller to the wire: the answer by clauses, and what is said when something is slow or fails."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sipagent.conversation import chunking
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Agent, Asked, Piece, Text, Tts
from sipagent.conversation.streams import all_of
from sipagent.conversation.turn import Turn
from sipagent.conversation.turn_strategies import TurnEndPlan
from sipagent.core.errors import ProviderError
from sipagent.core.ids import CallId

CLAUSES_AHEAD = 8  # clauses of an answer that may wait for synthesis; the agent waits beyond that


class Manners(Protocol):
    """How an agent behaves, whatever its brain; texts may be empty to say nothing."""

    @property
    def greeting(self) -> str: ...
    @property
    def silence_prompt(self) -> str: ...
    @property
    def silence_s(self) -> float: ...
    @property
    def silence_prompts(self) -> int: ...
    @property
    def goodbye(self) -> str: ...
    @property
    def filler(self) -> str: ...
    @property
    def filler_after_s(self) -> float: ...
    @property
    def apology(self) -> str: ...
    @property
    def interruptible(self) -> bool: ...
    @property
    def turn_end(self) -> str | TurnEndPlan:
        """Who decides that the caller has finished: a strategy's name, or more about it."""
        ...


@dataclass(slots=True)
class _Answer:
    """Clauses on their way from the agent to synthesis; None is the end."""

    clauses: "asyncio.Queue[str | None]" = field(default_factory=lambda: asyncio.Queue(CLAUSES_AHEAD))
    action: Piece | None = None
    error: ProviderError | None = None


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

    async def answer(self, turn: Turn, history: History) -> Piece | None:
        """Says the agent's answer; returns what the agent wants done after it, if anything."""
        answer = _Answer()
        async with asyncio.TaskGroup() as tasks:
            thinking = tasks.create_task(self._think(turn, answer, history), name=f"{self._call_id}/agent")
            await self._speak_answer(turn, answer)
            thinking.cancel()
        return answer.action

    async def apologise(self, turn: Turn) -> None:
        await self.speak(turn, self._manners.apology)

    async def bridge(self, turn: Turn) -> None:
        """The filler, when nothing else is on its way to the wire by then: recogniser, agent or voice may be slow."""
        await asyncio.sleep(self._manners.filler_after_s)
        clauses = chunking.split(self._manners.filler)
        rate = turn.utterance.rate
        try:
            spoken = [[piece async for piece in self._tts.speak(clause, rate)] for clause in clauses]
        except ProviderError as error:
            self._problem("tts", error)
            return
        if not turn.utterance.first_write_ns:
            turn.answer_ns = turn.answer_ns or self._now()
            turn.clause_ns = turn.clause_ns or self._now()
            for clause, pieces in zip(clauses, spoken, strict=True):
                await turn.utterance.say(clause, all_of(pieces), rate, self._now)

    async def _think(self, turn: Turn, answer: _Answer, history: History) -> None:
        """The agent's pieces as clauses into the queue."""
        chunker = chunking.Chunker()
        try:
            async for piece in self._agent.respond(Asked(turn.caller_text, history)):
                turn.answer_ns = turn.answer_ns or self._now()
                if isinstance(piece, Text):
                    for clause in chunker.push(piece.text):
                        await answer.clauses.put(clause)
                else:
                    answer.action = piece
        except ProviderError as error:
            answer.error = error
        turn.intent = self._agent.intent
        for clause in chunker.flush():
            await answer.clauses.put(clause)
        await answer.clauses.put(None)

    async def _speak_answer(self, turn: Turn, answer: _Answer) -> None:
        """Clauses to the wire as they come."""
        while True:
            try:
                clause = await asyncio.wait_for(answer.clauses.get(), self._limit_s)
            except TimeoutError:
                self._problem("agent", ProviderError("no answer within the limit", retryable=True))
                await self.speak(turn, self._manners.apology)
                return
            if clause is None:
                break
            await self._say(turn, clause)
        if answer.error is not None:
            self._problem("agent", answer.error)
            await self.speak(turn, self._manners.apology)

    async def speak(self, turn: Turn, text: str) -> None:
        """A whole text of the manners; by clauses, as it was prepared."""
        for clause in chunking.split(text):
            await self._say(turn, clause)

    async def _say(self, turn: Turn, clause: str) -> None:
        turn.clause_ns = turn.clause_ns or self._now()
        rate = turn.utterance.rate
        try:
            await turn.utterance.say(clause, self._tts.speak(clause, rate), rate, self._now)
        except ProviderError as error:
            self._problem("tts", error)
            if turn.apologising:
                self._failed()
                return
            turn.apologising = True
            await self.speak(turn, self._manners.apology)
