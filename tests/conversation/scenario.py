"""A conversation on a fake clock: a scripted caller, a wire that plays 20 ms per tick, scripted words and synthesis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from sipagent.conversation.happenings import Outcome
from sipagent.conversation.interfaces import (
    Agent,
    Asked,
    EndCall,
    Expecting,
    OnWords,
    Pcm,
    Piece,
    Speech,
    Text,
    Transcript,
    Tts,
)
from sipagent.conversation.interfaces import Words as WordsSoFar
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.session import Session
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import ProviderError
from sipagent.core.events import Event, TurnEnded
from sipagent.core.ids import CallId
from sipagent.dialplan.model import AgentSpec, TurnEndName, TurnEndSpec

TICK_NS = 20_000_000


class Batch(NamedTuple):
    pcm: Pcm
    arrival: np.ndarray
    position: int
    keyed: bool = False

    @property
    def pressed(self) -> np.ndarray:
        return np.zeros(len(self.pcm), np.bool_)


class Wire:
    """The media port as a conversation sees it; plays one frame a tick."""

    def __init__(self, clock: Callable[[], int], rate: int) -> None:
        self._clock = clock
        self.rate = rate
        self.frames: list[Pcm] = []  # as written
        self.sent: dict[int, int] = {}
        self.on_wire: list[bool] = []  # per tick: did the agent's audio leave
        self._played = 0
        self.ducked: list[bool] = []  # per tick
        self._duck = self._hold = False
        self._flush_to = 0
        self._cut = 0
        self._flushed = asyncio.Event()

    @property
    def queued(self) -> int:
        return len(self.frames) - self._played

    @property
    def written(self) -> int:
        return len(self.frames)

    @property
    def played(self) -> int:
        return self._played

    def write(self, pcm: Pcm) -> int:
        self.frames += list(pcm.reshape(-1, self.rate // 50))
        return len(pcm)

    def sent_at(self, position: int) -> int:
        return self.sent.get(position, 0)

    def sent_beside(self, position: int, count: int) -> Pcm | None:
        """The clock's ticks are the caller's frames: only the newest is ever asked for."""
        if count != 1 or not self.on_wire or not self.on_wire[-1]:
            return None
        return self.frames[self._played - 1][np.newaxis]

    def duck(self, on: bool) -> None:
        self._duck = on

    def hold(self, on: bool) -> None:
        self._hold = on

    async def flush(self) -> int:
        """Like the engine, obeys at its next tick."""
        if self._played >= len(self.frames):
            return self._played
        self._flush_to = len(self.frames)
        self._flushed = asyncio.Event()
        await self._flushed.wait()
        return self._cut

    def tick(self) -> None:
        if self._flush_to > self._played:
            self._cut, self._played = self._played, self._flush_to
        self._flushed.set()
        self.ducked.append(self._duck)
        if self._played < len(self.frames) and not self._hold:
            self.sent[self._played] = self._clock()
            self._played += 1
            self.on_wire.append(True)
        else:
            self.on_wire.append(False)


class LoudnessVad:
    def __init__(self, rate: int) -> None:
        self._rate = rate

    def push(self, frames: Pcm) -> np.ndarray:
        assert frames.shape[1] == self._rate // 50
        loud: np.ndarray = np.abs(frames).max(axis=1) > 100
        return loud


@dataclass
class Words:
    """What the n-th utterance will be recognised as; an exception is raised instead.

    Of a list, one text more is known at each pause; with `final_differs` the last only when all is over.
    """

    texts: list[str | list[str] | Exception]
    final_differs: bool = False
    begun: int = 0
    last: "Word | None" = None

    def begin(self, on_words: OnWords) -> "Word":
        self.begun += 1
        said = self.texts[self.begun - 1] if self.begun <= len(self.texts) else ""
        self.last = Word(said, on_words, self.final_differs)
        return self.last


@dataclass
class Word:
    said: str | list[str] | Exception
    on_words: OnWords = lambda words: None
    final_differs: bool = False
    pauses: int = 0
    frames: list[Pcm] = field(default_factory=list)

    def push(self, frame: Pcm) -> None:
        self.frames.append(frame)

    def pause(self) -> None:
        self.pauses += 1
        if isinstance(self.said, list):
            texts = self.said[:-1] if self.final_differs else self.said
            self.on_words(WordsSoFar(texts[min(self.pauses, len(texts)) - 1], 0.9, paused=True))

    def resume(self) -> None: ...
    def cancel(self) -> None: ...

    async def finish(self) -> Transcript:
        if isinstance(self.said, Exception):
            raise self.said
        return Transcript(self.said[-1] if isinstance(self.said, list) else self.said, 0.9)


@dataclass
class Voice:
    """Synthesis: 60 ms of tone per character, or a failure for texts in `broken`."""

    broken: set[str] = field(default_factory=set)
    made: list[str] = field(default_factory=list)

    async def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
        if text in self.broken:
            raise ProviderError("the voice is broken", retryable=False)
        self.made.append(text)
        yield np.full(len(text) * 60 * rate // 1000, 5000, np.int16)


class Echo:
    """An agent that repeats what it heard, and ends on "bye"."""

    intent = "echo"
    expecting = Expecting.ANYTHING

    def __init__(self, delay: asyncio.Event | None = None) -> None:
        self.asked: list[str] = []
        self.rolled_back = 0
        self._delay = delay

    def checkpoint(self) -> object:
        return len(self.asked)

    def rollback(self, state: object) -> None:
        self.rolled_back += 1

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        heard = asked.text
        self.asked.append(heard)
        if self._delay is not None:
            await self._delay.wait()
        yield Text(f"You said {heard}.")
        if heard == "bye":
            yield EndCall()


class Scene:
    """Drives a session tick by tick."""

    def __init__(
        self,
        agent: Agent,
        texts: Sequence[str | list[str] | Exception],
        *,
        manners: AgentSpec | None = None,
        voice: Voice | None = None,
        settings: ConversationSettings | None = None,
        rate: int = 8000,
        turn_end: TurnEndName | TurnEndSpec = "silence",
        urgent: Tts | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.time = 1_000_000_000
        self.events: list[Event] = []
        self.wire = Wire(lambda: self.time, rate)
        self.words = Words(list(texts))
        self.voice = voice or Voice()
        self.position = 0
        self.session = Session(
            CallId("call_test"),
            agent=agent,
            manners=msgspec.structs.replace(manners or AgentSpec(greeting="Hello."), turn_end=turn_end),
            out=self.wire,
            make_vad=LoudnessVad,
            recogniser=self.words,
            tts=self.voice,
            events=self,
            settings=settings or ConversationSettings(lead_ms=0),
            urgent=urgent,
            ledger=ledger,
            now=lambda: self.time,
        )
        self.task: asyncio.Task[Outcome] = asyncio.create_task(self.session.run())

    def emit(self, event: Event) -> None:
        self.events.append(event)

    async def run(self, seconds: float, *, speaking: bool = False) -> None:
        """Lets time pass, the caller speaking or silent."""
        for _ in range(round(seconds * 50)):
            await self._settle()
            self.time += TICK_NS
            self.wire.tick()
            frame = np.zeros((1, self.wire.rate // 50), np.int16)
            if speaking:  # unlike the agent's voice, or it would be its echo
                frame = np.random.default_rng(self.position).integers(-6000, 6000, frame.shape, np.int16)
            self.session.on_frames(Batch(frame, np.array([self.time - 40_000_000]), self.position))
            self.position += 1
        await self._settle()

    async def says(self, seconds: float = 1.0) -> None:
        """The caller speaks, then is silent until the turn has been taken."""
        await self.run(seconds, speaking=True)
        await self.run(0.4)

    async def until_quiet(self, limit: float = 60.0) -> None:
        """Until the agent has nothing queued."""
        for _ in range(round(limit * 50)):
            await self.run(0.02)
            if self.wire.queued == 0 and not self.wire.on_wire[-1]:
                return
        raise AssertionError("the agent does not stop speaking")

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    def turns(self) -> list[TurnEnded]:
        return [event for event in self.events if isinstance(event, TurnEnded)]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @staticmethod
    async def _settle() -> None:
        for _ in range(12):  # enough for a chain of tasks to run up to its next wait
            await asyncio.sleep(0)
