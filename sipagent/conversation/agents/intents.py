"""An agent that needs no language model: what the caller means is found among example phrases by sentence vectors,
missing details are asked for, and the answer comes from the dialplan."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sipagent.conversation.agents import slots
from sipagent.conversation.interfaces import Asked, EndCall, Expecting, Piece, Text, TransferPlan, plan_of

# Cosine to the nearest example below which nothing is understood; by `python -m bench.intents` (docs/performance.md).
UNDERSTOOD = 0.45

# The answer that a question for a slot of this kind gets.
_EXPECTED = {
    "day": Expecting.DATE,
    "time": Expecting.DATE,
    "number": Expecting.NUMBER,
    "choice": Expecting.CHOICE,
    "text": Expecting.TEXT,
}


class Slot(Protocol):
    @property
    def ask(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def choices(self) -> Sequence[str]: ...


class Intent(Protocol):
    """As in the dialplan."""

    @property
    def examples(self) -> Sequence[str]: ...
    @property
    def answer(self) -> str: ...
    @property
    def slots(self) -> Mapping[str, Slot]: ...
    @property
    def transfer(self) -> str | TransferPlan: ...
    @property
    def hangup(self) -> bool: ...


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


@dataclass(frozen=True, slots=True)
class _State:
    intent: str = ""
    asking: str = ""  # the slot whose question is open
    known: tuple[tuple[str, str], ...] = ()
    not_understood: int = 0


class IntentAgent:
    """The agent of one call."""

    def __init__(
        self,
        matcher: IntentMatcher,
        intents: Mapping[str, Intent],
        *,
        unknown: Sequence[str],
        unknown_limit: int,
        give_up: str,
    ) -> None:
        self._matcher = matcher
        self._intents = intents
        self._unknown = unknown
        self._unknown_limit = unknown_limit
        self._give_up = give_up
        self._state = _State()
        self.intent = ""

    @property
    def expecting(self) -> Expecting:
        if not self._state.asking:
            return Expecting.ANYTHING
        return _EXPECTED[self._intents[self._state.intent].slots[self._state.asking].kind]

    def checkpoint(self) -> object:
        return self._state

    def rollback(self, state: object) -> None:
        assert isinstance(state, _State)
        self._state = state

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        state, heard = self._state, asked.text
        if state.asking:
            filled = self._fill(state, heard)
            if filled != state:
                for piece in self._go_on(filled):
                    yield piece
                return
        name, score = await self._matcher.match(heard)
        if score < UNDERSTOOD:
            self.intent = ""
            if state.asking:  # the question stays open: ask again rather than start over
                self._state = replace(state, not_understood=state.not_understood + 1)
            else:
                self._state = _State(not_understood=state.not_understood + 1)
            if self._state.not_understood >= self._unknown_limit:
                yield Text(self._give_up)
                yield EndCall()
            elif state.asking:
                yield Text("Sorry. " + self._intents[state.intent].slots[state.asking].ask)
            else:
                yield Text(self._unknown[min(state.not_understood, len(self._unknown) - 1)])
            return
        for piece in self._go_on(self._fill(_State(intent=name), heard)):
            yield piece

    def _fill(self, state: _State, heard: str) -> _State:
        """The state with every slot that the words answer; free text only answers its own question."""
        known = dict(state.known)
        for name, slot in self._intents[state.intent].slots.items():
            if name in known or (slot.kind == "text" and name != state.asking):
                continue
            value = slots.find(slot.kind, heard, slot.choices)
            if value is not None:
                known[name] = value.spoken
        return replace(state, known=tuple(known.items()))

    def _go_on(self, state: _State) -> list[Piece]:
        self.intent = state.intent
        intent = self._intents[state.intent]
        known = dict(state.known)
        for name, slot in intent.slots.items():
            if name not in known:
                self._state = _State(intent=state.intent, asking=name, known=state.known)
                return [Text(slot.ask)]
        self._state = _State()
        pieces: list[Piece] = [Text(intent.answer.format(**known))] if intent.answer else []
        if intent.transfer:
            told = "" if isinstance(intent.transfer, str) else intent.transfer.whisper.format(**known)
            pieces.append(plan_of(intent.transfer, told))
        elif intent.hangup:
            pieces.append(EndCall())
        return pieces
