"""Answers begun on the words of a pause, before it is certain that the pause is the end of the caller's turn.

Nothing of them is written to the wire. When the turn ends with the same words the answer is adopted; when the caller
goes on it is retracted: cancelled, the agent rolled back, and only the turn's details tell of it.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sipagent.conversation.answer import Answer
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Agent, Asked

_NO_WORD = re.compile(r"[^\w]+")


def same_words(one: str, other: str) -> bool:
    """Alike but for case, punctuation and spaces."""
    return _NO_WORD.sub("", one.casefold()) == _NO_WORD.sub("", other.casefold())


@dataclass(slots=True)
class _Guess:
    words: str
    checkpoint: object
    answer: Answer
    begun_ns: int


class Speculation:
    """At most one answer ahead at a time, and `limit` in a turn of the caller. `now` is monotonic ns."""

    def __init__(self, agent: Agent, make: Callable[[Asked], Answer], limit: int, *, now: Callable[[], int]) -> None:
        self._agent = agent
        self._make = make
        self.limit = limit
        self._now = now
        self._guess: _Guess | None = None
        self._begun = 0  # in this turn
        self._retracted = 0

    @property
    def checkpoint(self) -> object:
        """The agent's memory before the turn, whatever has been begun of its answer."""
        return self._agent.checkpoint() if self._guess is None else self._guess.checkpoint

    async def begin(self, tasks: asyncio.TaskGroup, words: str, history: History) -> None:
        """Unless the limit is reached, or these words are being answered already."""
        if self._guess is not None:
            if same_words(self._guess.words, words):
                return
            await self.retract()
        if self._begun >= self.limit or not words:
            return
        self._begun += 1
        checkpoint = self._agent.checkpoint()
        answer = self._make(Asked(words, history, speculative=True))
        self._guess = _Guess(words, checkpoint, answer, self._now())
        answer.begin(tasks)

    async def adopt(self, words: str, details: dict[str, Any]) -> Answer | None:
        """The caller's turn is over: its answer, if it was begun, which is nobody else's from now on.

        Writes what was done into the turn's details.
        """
        guess = self._guess
        adopted = guess is not None and same_words(guess.words, words)
        if guess is not None and not adopted:
            await self.retract()
        if self._begun:
            details["speculation"] = {"begun": self._begun, "retracted": self._retracted, "adopted": adopted}
        self._begun = self._retracted = 0
        self._guess = None
        if guess is None or not adopted:
            return None
        details["speculation"]["ahead_ms"] = round((self._now() - guess.begun_ns) / 1e6)
        guess.answer.settle()
        return guess.answer

    async def retract(self) -> None:
        """As if it had never been begun. May be called when nothing was."""
        guess, self._guess = self._guess, None
        if guess is not None:
            self._retracted += 1
            try:
                await guess.answer.stop()
            finally:
                self._agent.rollback(guess.checkpoint)
