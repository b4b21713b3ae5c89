"""What a conversation needs from others, as protocols: nothing here knows which vendor or process is behind it.

Audio is mono int16 at 8 or 16 kHz, as the line has it; a frame is 20 ms, so its length tells the rate. A re-INVITE may
change the rate in the middle of a call.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sipagent.core.events import EventSink
from sipagent.core.ids import TurnId

Pcm = NDArray[np.int16]

FRAME_MS = 20


class AudioFrames(Protocol):
    """New audio from the caller since the last tick."""

    @property
    def pcm(self) -> Pcm: ...  # (n, 160) at 8 kHz, (n, 320) at 16 kHz
    @property
    def arrival(self) -> NDArray[np.int64]: ...  # (n,) monotonic ns, 0 where no packet contributed
    @property
    def position(self) -> int: ...  # of the first frame since the port opened
    @property
    def keyed(self) -> bool: ...  # a key is held in some of them
    @property
    def pressed(self) -> NDArray[np.bool_]: ...  # (n,) a key is held: a tone, no speech


class AudioOut(Protocol):
    """The way to the wire. Positions count frames since the port opened."""

    @property
    def rate(self) -> int: ...  # of what is written now, 8000 or 16000
    def write(self, pcm: Pcm) -> int: ...  # whole frames; returns the samples taken
    @property
    def queued(self) -> int: ...
    @property
    def written(self) -> int: ...
    @property
    def played(self) -> int: ...
    def sent_at(self, position: int) -> int: ...  # monotonic ns, 0 if not sent
    def sent_beside(self, position: int, count: int) -> Pcm | None:
        """What left in the same ticks as the received frames from `position` on; None when nothing did."""
        ...

    def duck(self, on: bool) -> None:
        """What is queued leaves at a lower level, or in full again."""
        ...

    def hold(self, on: bool) -> None:
        """Silence leaves and what is queued stays, or goes on where it stopped."""
        ...

    async def flush(self) -> int: ...  # drops what is queued; the position where playing stopped


class VoiceDetector(Protocol):
    """Voice activity of one call, at the rate it was made for."""

    def push(self, frames: Pcm) -> NDArray[Any]: ...  # (n, samples) -> n decisions or probabilities


MakeDetector = Callable[[int], VoiceDetector]  # for audio of this rate


@dataclass(frozen=True, slots=True)
class Transcript:
    text: str  # "" when it was no speech
    confidence: float  # 0..1


@dataclass(frozen=True, slots=True)
class Words:
    """What the caller has said so far in an utterance, as far as the recogniser can tell."""

    text: str  # "" when it was no speech
    confidence: float  # 0..1
    paused: bool = False  # everything up to a pause of the caller, who has said nothing since
    end_of_turn: bool = False  # the provider itself takes it for the end of the caller's turn


OnWords = Callable[[Words], None]


class Expecting(StrEnum):
    """What the agent has asked for. Some answers are given in pieces with pauses between them, others in one."""

    ANYTHING = "anything"
    YES_NO = "yes_no"
    CHOICE = "choice"
    NUMBER = "number"  # how many: one number
    DIGITS = "digits"  # a telephone or customer number, in groups
    SPELLING = "spelling"  # letters, an e-mail address
    DATE = "date"  # a day or a time
    NAME = "name"
    TEXT = "text"  # an account of something, in the caller's own words


class Recognition(Protocol):
    """One utterance of the caller on its way to words."""

    def push(self, frame: Pcm) -> None:
        """20 ms; the rate need not be that of the frame before."""
        ...

    def pause(self) -> None:
        """The caller has paused; words so far may be worked out ahead."""
        ...

    def resume(self) -> None:
        """The caller goes on after a pause."""
        ...

    async def finish(self) -> Transcript:
        """The utterance is over. Raises ProviderError when no words can be had."""
        ...

    def cancel(self) -> None: ...


class Recogniser(Protocol):
    """Makes one Recognition per utterance.

    `on_words` gets the words so far, on the event loop: as they come while the caller speaks, and at every pause all up
    to it.
    """

    def begin(self, on_words: OnWords) -> Recognition: ...


@dataclass(frozen=True, slots=True)
class Timed:
    """Audio of a synthesis that knows where its words are.

    Each of `words` is (index in the text after the word, sample at which the word ends), both counted from the start of
    what was asked for.
    """

    pcm: Pcm
    words: tuple[tuple[int, int], ...]


Speech = Pcm | Timed


class Tts(Protocol):
    def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
        """One clause as audio of this rate, in pieces of any length as they come, the first as early as possible.

        Raises ProviderError, also in the middle; closing the iterator cancels what is not made yet.
        """
        ...


# --- what an agent answers with -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """Words to speak; may be any part of a sentence."""

    text: str
    whole: bool = False  # they must be heard whole: nobody interrupts them


@dataclass(frozen=True, slots=True)
class EndCall:
    """Hang up once everything said before has been heard."""


@dataclass(frozen=True, slots=True)
class TransferCall:
    """Hand the caller to `target` (SIP URI or number) once everything said before has been heard."""

    target: str
    whisper: str = ""  # what to tell the target before; "" leaves it to the plan
    plan: object = None  # what the dialplan says about it besides; only handed on
    # Told how it ended: "" when the caller is with the target, or gone, else why they are back.
    outcome: Callable[[str], None] | None = field(default=None, compare=False)


class TransferPlan(Protocol):
    """More about a transfer than its target, as in the dialplan."""

    @property
    def target(self) -> str: ...
    @property
    def whisper(self) -> str: ...


def plan_of(
    transfer: str | TransferPlan, whisper: str = "", outcome: Callable[[str], None] | None = None
) -> TransferCall:
    """What an agent asks for that was told no more than a target, or more."""
    if isinstance(transfer, str):
        return TransferCall(transfer, whisper, outcome=outcome)
    return TransferCall(transfer.target, whisper, transfer, outcome)


@dataclass(frozen=True, slots=True)
class Working:
    """What came before is to be spoken now, and the next piece takes a while, at most so long; 0: no longer.

    Meanwhile the agent itself sees to it that the caller is not left in silence, or waits for the caller's keys.
    """

    limit_s: float


Piece = Text | Working | EndCall | TransferCall


class Asked:
    """What the caller said, put to the agent; perhaps before it is certain that the caller has finished.

    An answer to words that were not the last is retracted: `respond` is cancelled, the agent rolled back, and nothing
    of it may remain. So what has an effect outside of the agent's checkpoint (a tool, a request that changes something)
    waits for `certain` first.
    """

    def __init__(self, text: str, history: "HistoryView", *, speculative: bool = False) -> None:
        self.text = text
        self.history = history
        self.turn_id: TurnId | None = None  # of the turn that its answer has become
        self.details: dict[str, Any] = {}  # for the turn's details
        self.working = False  # the agent has said so
        self.worked_ns = 0  # until when it did, monotonic
        self._certain = asyncio.Event()
        if not speculative:
            self._certain.set()

    @property
    def speculative(self) -> bool:
        """The caller may still go on."""
        return not self._certain.is_set()

    async def certain(self) -> None:
        """Returns once the caller's turn is over; does not when the caller goes on, for then `respond` is cancelled."""
        await self._certain.wait()

    def settle(self) -> None:
        """By the session: the turn is over, and these were its words."""
        self._certain.set()


class Agent(Protocol):
    """The brain of one call. Gets what was heard, answers with pieces; its speech is the session's matter."""

    @property
    def intent(self) -> str:
        """Name of what the caller was last understood to want, "" when that is unknown or has no meaning here."""
        ...

    @property
    def expecting(self) -> Expecting:
        """What the caller's next words should answer; read when they begin to speak."""
        ...

    def respond(self, asked: Asked) -> AsyncIterator[Piece]: ...

    def checkpoint(self) -> object:
        """The agent's memory of the call, to be handed back to `rollback` when its answer was never heard.

        Plain data (None, numbers, strings, lists, dicts): it may come back as MessagePack has it, and to another agent
        of the same kind, when main has died and the call goes on.
        """
        ...

    def rollback(self, state: object) -> None:
        """Raises ValueError, KeyError or TypeError, and changes nothing, for what is no memory of such an agent: it may
        have been another dialplan's.
        """
        ...


@runtime_checkable
class CountsDigits(Protocol):
    """An agent that knows how many digits it has asked for."""

    @property
    def most_digits(self) -> int:
        """Of the answer that is expected; 0 where nobody knows."""
        ...


def most_digits(agent: Agent) -> int:
    return agent.most_digits if isinstance(agent, CountsDigits) else 0


# --- what an agent may have done to its call ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of a call from its beginning."""

    call_id: str
    caller: str  # the number
    called: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsWanted:
    """Keys that the caller is asked to press. Times are seconds; the first runs once the agent is silent."""

    least: int = 1
    most: int = 32
    end: str = "#"  # this key ends it and is none of them; "" for none
    first_s: float = 8.0
    between_s: float = 4.0
    limit_s: float = 60.0  # of all of it


class CallControl(Protocol):
    """One call, for its agent. Hanging up and handing the caller on are pieces: they come after what was said."""

    @property
    def facts(self) -> CallFacts: ...
    @property
    def events(self) -> EventSink: ...

    async def press(self, digits: str) -> None:
        """Keys for the other side. Raises ValueError for what is no key, SipagentError where they are not taken."""
        ...

    async def collect(self, wanted: DigitsWanted) -> str:
        """The keys that the caller presses from now on; fewer than the least are an answer too, and "" is none."""
        ...

    def note(self, text: str) -> None:
        """Something that happened and that the agent shall know when it answers next."""
        ...

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Work that outlives the turn it was begun in; at the call's end it is cancelled."""
        ...


class HistoryView(Protocol):
    @property
    def entries(self) -> "tuple[Entry, ...]": ...


@dataclass(frozen=True, slots=True)
class Entry:
    speaker: str  # "caller", "agent", or "note" for what neither of them said and the agent should know
    text: str  # of the agent: only what was heard
