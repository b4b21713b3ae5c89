"""An agent that needs no language model: what the caller means is found among example phrases by sentence vectors,
missing details are asked for, and the answer comes from the dialplan."""

import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sipagent.conversation.agents.dialogue import Dialogue, Intent, State, as_plain, from_plain
from sipagent.conversation.interfaces import Asked, EndCall, Expecting, Piece, Text, plan_of
from sipagent.conversation.knowledge.index import Knowledge
from sipagent.conversation.languages import language
from sipagent.core.errors import ProviderError

# Cosine to the nearest example below which nothing is understood; by `python -m bench.intents` (docs/performance.md).
UNDERSTOOD = 0.45


class Embedder(Protocol):
    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim), unit length. Raises ProviderError."""
        ...


class IntentMatcher:
    """The examples of one agent as vectors; made once and shared by its calls."""

    def __init__(self, embedder: Embedder, intents: Mapping[str, Intent]) -> None:
        self._embedder = embedder
        self._phrases = [(phrase, name) for name, intent in intents.items() for phrase in intent.examples]
        self._vectors: NDArray[np.float32] | None = None

    async def prepare(self) -> None:
        self._vectors = await self._embedder.embed([phrase for phrase, _ in self._phrases])

    async def match(self, text: str) -> tuple[str, float]:
        """The nearest intent and its cosine."""
        if self._vectors is None:
            await self.prepare()
        assert self._vectors is not None
        scores = self._vectors @ (await self._embedder.embed([text.lower().strip(" .!?,")]))[0]
        best = int(np.argmax(scores))
        return self._phrases[best][1], float(scores[best])


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentManners:
    """What an agent of intents says where none of its intents has an answer."""

    unknown: Sequence[str]  # the n-th for the n-th time
    unknown_limit: int  # so many in a row, then `give_up`
    give_up: str
    language: str = "en"
    start: str = ""  # the intent that the greeting has begun


class IntentAgent:
    """The agent of one call. `fulfilled` is told each intent that was brought to its answer, and what was learnt."""

    def __init__(
        self,
        matcher: IntentMatcher,
        intents: Mapping[str, Intent],
        manners: IntentManners,
        fulfilled: Callable[[str, dict[str, str]], None],
        today: Callable[[], dt.date] = dt.date.today,
        knowledge: Knowledge | None = None,
    ) -> None:
        self._matcher = matcher
        self._intents = intents
        self._manners = manners
        self._fulfilled = fulfilled
        self._today = today
        self._knowledge = knowledge
        self._dialogue = Dialogue(intents, language(manners.language))
        self._state = State()
        if manners.start:
            first = next(iter(intents[manners.start].slots))
            self._state = State(intent=manners.start, asking=first, said=intents[manners.start].slots[first].ask)
        self.intent = manners.start
        self._told: tuple[str, dict[str, str]] | None = None  # what was fulfilled last
        self._retracted: tuple[str, dict[str, str]] | None = None  # the same, when the turn it was for is retracted

    @property
    def expecting(self) -> Expecting:
        return self._dialogue.expecting(self._state)

    @property
    def most_digits(self) -> int:
        return self._dialogue.most_digits(self._state)

    def checkpoint(self) -> object:
        return as_plain(self._state)

    def rollback(self, state: object) -> None:
        before = from_plain(state)
        self._dialogue.check(before)
        self._state = before
        self._retracted, self._told = self._told or self._retracted, None

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        state, today = self._state, self._today()
        self._told = None
        move = self._dialogue.reply(state, asked.text, today)
        if move is None:
            name, score = await self._matcher.match(asked.text)
            if score < UNDERSTOOD:
                known = await self._from_documents(asked)
                for piece in self._say_known(state, known) if known else self._not_understood(state):
                    yield piece
                return
            if state.asking and self._is_aside(name):
                # A question in between is answered, and the one that was open asked again.
                self.intent = name
                again = self._dialogue.question(state)
                self._state = replace(state, misses=0, said=again)
                yield Text(f"{self._intents[name].answer} ", self._intents[name].whole)
                yield Text(again)
                return
            move = self._dialogue.begin(name, asked.text, today)
        self.intent = move.state.intent
        if not move.done:
            self._state = replace(move.state, said=move.say)
            yield Text(move.say)
            return
        intent, learnt = self._intents[move.state.intent], move.state
        answer = intent.answer.format(**learnt.spoken)
        self._state = State(said=answer)
        if answer:
            yield Text(answer, intent.whole)
        await asked.certain()
        self._tell(learnt.intent, learnt.values)
        if intent.transfer:
            told = "" if isinstance(intent.transfer, str) else intent.transfer.whisper.format(**learnt.spoken)
            yield plan_of(intent.transfer, told)
        elif intent.hangup:
            yield EndCall()

    def _tell(self, intent: str, values: dict[str, str]) -> None:
        """Not once more when the caller only went on speaking before the answer was heard."""
        self._told = (intent, values)
        if self._told != self._retracted:
            self._fulfilled(intent, values)
        self._retracted = None

    def _is_aside(self, name: str) -> bool:
        intent = self._intents[name]
        return bool(intent.answer) and not (intent.slots or intent.transfer or intent.hangup)

    async def _from_documents(self, asked: Asked) -> str:
        """The sentences of the documents that answer the caller best, "" when none does."""
        try:
            found = await self._knowledge.find(asked.text) if self._knowledge is not None else []
        except ProviderError as error:  # what no intent answers may still be asked again
            asked.details["sources"] = str(error)
            return ""
        if found:
            asked.details["sources"] = [found[0].source]
        return found[0].answer if found else ""

    def _say_known(self, state: State, answer: str) -> list[Piece]:
        """An open question is asked again after it."""
        if not state.asking:
            self.intent = ""
            self._state = State(said=answer)
            return [Text(answer)]
        again = self._dialogue.question(state)
        self._state = replace(state, misses=0, said=again)
        return [Text(f"{answer} "), Text(again)]

    def _not_understood(self, state: State) -> list[Piece]:
        manners = self._manners
        missed = replace(state, misses=state.misses + 1)
        if not state.asking:
            self.intent = ""
        if missed.misses >= manners.unknown_limit:
            self._state = missed
            return [Text(manners.give_up), EndCall()]
        if state.asking:
            say = self._dialogue.miss(state)
        else:
            say = manners.unknown[min(state.misses, len(manners.unknown) - 1)]
        self._state = replace(missed, said=say)
        return [Text(say)]
