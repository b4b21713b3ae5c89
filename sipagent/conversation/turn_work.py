"""The work of one turn: from the caller's words to the agent's last sample. Whose turn it is, the session decides."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from sipagent.conversation.answer import Answer
from sipagent.conversation.bridge import Bridge
from sipagent.conversation.happenings import Ending, Outcome, last_resort
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import FRAME_MS, Asked, EndCall, TransferCall
from sipagent.conversation.reply import Reply
from sipagent.conversation.speaker import Speaker
from sipagent.conversation.speculation import Speculation
from sipagent.conversation.turn import Turn
from sipagent.core.errors import ProviderError


class TurnEvents(Protocol):
    """What a turn tells the session it belongs to."""

    def said(self, turn: Turn) -> None:
        """The caller's words are known."""
        ...

    def nothing_said(self, turn: Turn) -> None:
        """It was no speech: there is no turn."""
        ...

    def finished(self, turn: Turn) -> None:
        """All of it has been heard."""
        ...

    def outcome(self, outcome: Outcome) -> None:
        """The conversation is over."""
        ...

    def problem(self, where: str, error: ProviderError) -> None: ...


class TurnWork:
    """Of one conversation. Each method is the body of a turn's task; `tail_ms` is kept behind the last words of all."""

    def __init__(
        self,
        replies: Reply,
        speculation: Speculation,
        bridge: Bridge,
        speaker: Speaker,
        history: History,
        events: TurnEvents,
        *,
        tail_ms: int,
        now: Callable[[], int],
    ) -> None:
        self._replies = replies
        self._speculation = speculation
        self._bridge = bridge
        self._speaker = speaker
        self._history = history
        self._events = events
        self._tail = tail_ms // FRAME_MS
        self._now = now

    async def announce(self, turn: Turn, texts: Iterable[str], then: Outcome | None, *, protected: bool) -> None:
        """Speaks texts of the agent's own accord."""
        for text in texts:
            await self._replies.speak(turn, text, protected=protected)
        await self._finish(turn, then)

    async def answer(self, tasks: asyncio.TaskGroup, turn: Turn) -> None:
        """Words, then the agent's answer."""
        then = await self._reply(tasks, turn)
        if turn.words_ns and not turn.caller_text and not turn.utterance.text:
            self._events.nothing_said(turn)
        else:
            await self._finish(turn, then)

    async def answer_keys(self, tasks: asyncio.TaskGroup, turn: Turn, keys: str) -> None:
        await self._speculation.retract()
        turn.caller_text, turn.confidence, turn.words_ns = keys, 1.0, self._now()
        turn.details["keys"] = True
        await self._finish(turn, await self._respond(tasks, turn, None))

    async def recognise(self, turn: Turn) -> None:
        """Fills in the caller's words, if there were any. Raises ProviderError."""
        transcripts = []
        for heard in turn.heard:
            heard.transcript = heard.transcript or await heard.recognition.finish()
            transcripts.append(heard.transcript)
        turn.words_ns = self._now()
        spoken = [t for t in transcripts if t.text]
        if spoken:
            turn.caller_text = " ".join(t.text for t in spoken)
            turn.confidence = min(t.confidence for t in spoken)
            self._events.said(turn)

    async def _reply(self, tasks: asyncio.TaskGroup, turn: Turn) -> Outcome | None:
        try:
            await self.recognise(turn)
        except ProviderError as error:
            self._events.problem("stt", error)
            await self._speculation.adopt("", turn.details)
            await self._replies.apologise(turn)
            return None
        answer = await self._speculation.adopt(turn.caller_text, turn.details)
        return await self._respond(tasks, turn, answer) if turn.caller_text else None

    async def _respond(self, tasks: asyncio.TaskGroup, turn: Turn, answer: Answer | None) -> Outcome | None:
        """Says the agent's answer, which may have begun already."""
        if answer is None:
            answer = self._replies.begin(Asked(turn.caller_text, self._history), lambda: turn.utterance.rate)
            answer.begin(tasks)
        match await self._replies.speak_answer(turn, answer):
            case EndCall():
                return Outcome(Ending.HANGUP)
            case TransferCall() as transfer:
                return Outcome(Ending.TRANSFER, transfer)
            case _:
                return None

    async def _finish(self, turn: Turn, then: Outcome | None) -> None:
        if turn.failed and then is None and (todo := self._bridge.failed(turn)) is not None:
            then = last_resort(todo)
            for text in todo.texts:
                await self._replies.speak(turn, text)
        turn.ending = then is not None
        turn.utterance.complete()
        await turn.utterance.played()
        self._events.finished(turn)
        if then is not None:
            for _ in range(self._tail):
                await self._speaker.next_tick()
            self._events.outcome(then)
