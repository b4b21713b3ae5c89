"""When a caller who has fallen silent has finished: what may be known about it, and who decides.

A strategy is asked at every silent frame how much silence it wants to see, as things are known by then. It is pure: the
same knowledge gets the same answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sipagent.conversation.interfaces import Expecting, Words

USUAL_PAUSE_MS = 450.0  # a pause within a turn, of callers in general (geometric mean); see docs/turn-ends.md

PATIENCE_MS = 500  # of silence more for one more of patience
MOST_MS = 1400  # that patience lengthens a wait to; by then a caller wonders whether anybody is there


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a caller who says nothing just now, in the midst of an utterance or behind it."""

    silence_ms: int  # since the caller was last heard
    speech_ms: int  # voiced so far in this utterance
    words: Words | None = None  # of the whole utterance up to this pause; None until they are there
    prosody: float | None = None  # 0..1, how much the melody of the speech sounds finished; None when nobody can tell
    expecting: Expecting = Expecting.ANYTHING
    digits: int = 0  # that the answer has at most, where digits are expected; 0 where nobody knows
    own_pause_ms: float = USUAL_PAUSE_MS  # what this caller's pauses within turns are like


@dataclass(frozen=True, slots=True)
class Wait:
    """Silence after which the turn is over, and why it is that much; `why` is a word or two for the record."""

    ms: int
    why: str


class TurnEnd(Protocol):
    @property
    def name(self) -> str:
        """As in the dialplan."""
        ...

    def wait(self, known: Known) -> Wait: ...


class FixedSilence:
    """The same silence, whatever was said."""

    name = "silence"

    def __init__(self, wait_ms: int) -> None:
        self._wait = Wait(wait_ms, "silence")

    def wait(self, known: Known) -> Wait:
        return self._wait


class Provider:
    """The recogniser's own end of turn, where it tells one; without it a long silence."""

    name = "provider"

    def __init__(self, *, told_ms: int, longest_ms: int) -> None:
        self._told = Wait(told_ms, "provider")
        self._longest = Wait(longest_ms, "silence")

    def wait(self, known: Known) -> Wait:
        return self._told if known.words is not None and known.words.end_of_turn else self._longest


class Patient:
    """Another strategy, more patient or less: for callers who need time, and for answers that take some.

    Less is a factor, as 0.8. More is added, since short waits are the ones that cut off: 1.5 is half of a half second.
    """

    def __init__(self, strategy: TurnEnd, factor: float, answers: Mapping[Expecting, float]) -> None:
        """`factor` is for every wait; `answers` has another one for what is expected just then."""
        self._strategy = strategy
        self._factor = factor
        self._answers = answers

    @property
    def name(self) -> str:
        return self._strategy.name

    def wait(self, known: Known) -> Wait:
        wait = self._strategy.wait(known)
        factor = self._factor * self._answers.get(known.expecting, 1.0)
        if factor <= 1.0:
            return Wait(round(wait.ms * factor), wait.why)
        return Wait(max(wait.ms, min(round(wait.ms + (factor - 1.0) * PATIENCE_MS), MOST_MS)), wait.why)


class Scaled:
    """Another strategy, hurried for the time being: `scale` is asked each time."""

    def __init__(self, strategy: TurnEnd, scale: Callable[[], float]) -> None:
        self._strategy = strategy
        self._scale = scale

    @property
    def name(self) -> str:
        return self._strategy.name

    def wait(self, known: Known) -> Wait:
        wait = self._strategy.wait(known)
        return Wait(round(wait.ms * self._scale()), wait.why)
