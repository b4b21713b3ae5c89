"""When a caller who has fallen silent has finished: what may be known about it, and who decides.

A strategy is asked at every silent frame how much silence it wants to see, as things are known by then. It is pure: the
same knowledge gets the same answer.
"""

from dataclasses import dataclass
from typing import Protocol

from sipagent.conversation.interfaces import Expecting, Words
from sipagent.conversation.settings import ConversationSettings


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a caller who says nothing just now, in the midst of an utterance or behind it."""

    silence_ms: int  # since the last voiced frame
    speech_ms: int  # voiced so far in this utterance
    words: Words | None = None  # of the whole utterance up to this pause; None until they are there
    expecting: Expecting = Expecting.ANYTHING


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


def make(settings: ConversationSettings) -> TurnEnd:
    """The strategy for one caller."""
    return FixedSilence(settings.endpointing_ms)
