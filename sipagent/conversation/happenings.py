"""What may happen in a conversation, for its one loop to act on, and what a conversation ends with."""

from dataclasses import dataclass
from enum import StrEnum

from sipagent.conversation.bridge import GiveUp, Say
from sipagent.conversation.interfaces import TransferCall
from sipagent.conversation.listener import Heard
from sipagent.conversation.silence import SilenceAct
from sipagent.conversation.turn import Turn


class Ending(StrEnum):
    HANGUP = "hangup"  # the agent said goodbye
    TRANSFER = "transfer"
    CALLER_SILENT = "caller_silent"
    FAILED = "failed"  # nothing can be said any more


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the conversation asks the call to do next."""

    ending: Ending
    transfer: TransferCall | None = None  # where that is what it ends with
    why: str = ""  # of a failure: one sentence


def last_resort(todo: GiveUp) -> Outcome:
    if todo.transfer is not None:
        return Outcome(Ending.TRANSFER, todo.transfer)
    return Outcome(Ending.FAILED, why="the agent has no answer, again and again or for too long")


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller takes the floor."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Aside:
    """What the caller said during a turn of the agent's; None when it could not be recognised."""

    heard: Heard
    text: str | None


@dataclass(frozen=True, slots=True)
class Keyed:
    """The caller has answered by keys."""

    keys: str


class FloorFree:
    """The agent's turn is over, and the caller said something during it that waits for an answer."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The caller has paused after these words, and may have finished."""

    heard: Heard
    words: str


class Resumed:
    """The caller goes on after a pause."""


# Heard by itself: an utterance of the caller is over.
Happening = Heard | Keyed | Paused | Resumed | BargeIn | Aside | FloorFree | SilenceAct | Say | GiveUp | Outcome
