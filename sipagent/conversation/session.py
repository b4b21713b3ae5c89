"""One conversation: whose turn it is, and one turn at a time from the caller's words to the agent's last sample.

    on_frames (every tick) ──► Listener ──► happenings ──► run(): one loop, one running turn
                          └──► Speaker.tick (wakes turns that wait for the wire)

A turn is a task: words → agent → clauses → synthesis → wire. It ends by itself or the caller takes the floor: then what
was heard goes into the history, or, when nothing was heard yet, the turn is retracted without trace and its words are
answered together with what follows.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sipagent.conversation import chunking
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import (
    FRAME_MS,
    Agent,
    AudioFrames,
    AudioOut,
    EndCall,
    Piece,
    Recogniser,
    Text,
    Transcript,
    TransferCall,
    Tts,
    VoiceDetector,
)
from sipagent.conversation.listener import Heard, Listener
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.silence import SilenceAct, SilenceWatch
from sipagent.conversation.speaker import Speaker, Utterance
from sipagent.core import clock
from sipagent.core.errors import ProviderError
from sipagent.core.events import (
    AgentInterrupted,
    AgentSpeaking,
    CallerSaid,
    EventSink,
    PartialTranscript,
    Problem,
    TurnEnded,
    TurnLatency,
)
from sipagent.core.ids import CallId, TurnId, new_turn_id

HAPPENINGS = 64  # bound of what may wait for the loop; far more than one call can cause within a turn
LAST_WORDS_S = 2.0  # for recognising what the caller said just before the call ended; nobody waits for it by then
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


class Ending(StrEnum):
    HANGUP = "hangup"  # the agent said goodbye
    TRANSFER = "transfer"
    CALLER_SILENT = "caller_silent"
    FAILED = "failed"  # nothing can be said any more


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the conversation asks the call to do next."""

    ending: Ending
    target: str = ""


class _BargeIn:
    """The caller has spoken long enough to take the floor."""


class _FloorFree:
    """The agent's turn is over, and the caller said something during it that waits for an answer."""


@dataclass(slots=True, eq=False)
class _Turn:
    id: TurnId
    heard: list[Heard]  # empty when the agent speaks first
    checkpoint: object
    started_ns: int
    utterance: Utterance
    task: asyncio.Task[None] | None = None
    caller_text: str = ""
    confidence: float = 0.0
    words_ns: int = 0
    clause_ns: int = 0
    intent: str = ""
    ending: bool = False  # the call ends after it: it may not be interrupted
    apologising: bool = False
    announced: bool = False
    over: bool = False


@dataclass(slots=True)
class _Answer:
    """Clauses on their way from the agent to synthesis; None is the end."""

    clauses: "asyncio.Queue[str | None]" = field(default_factory=lambda: asyncio.Queue(CLAUSES_AHEAD))
    action: Piece | None = None
    error: ProviderError | None = None


class Session:
    def __init__(
        self,
        call_id: CallId,
        *,
        agent: Agent,
        manners: Manners,
        out: AudioOut,
        vad: VoiceDetector,
        recogniser: Recogniser,
        tts: Tts,
        events: EventSink,
        settings: ConversationSettings,
        first_turn: int = 0,
        now: Callable[[], int] = clock.mono_ns,
    ) -> None:
        self._now = now
        self._call_id = call_id
        self._agent = agent
        self._manners = manners
        self._tts = tts
        self._events = events
        self._settings = settings
        self._history = History()
        self._speaker = Speaker(out, settings.ahead_ms)
        self._listener = Listener(settings, vad, recogniser, self, self._partial)
        self._silence = SilenceWatch(manners.silence_s, manners.silence_prompts)
        self._happenings: asyncio.Queue[Heard | _BargeIn | _FloorFree | SilenceAct | Outcome] = asyncio.Queue(
            HAPPENINGS
        )
        self._turn: _Turn | None = None
        self._carried: list[Heard] = []  # utterances of a retracted turn
        self._pressed: Heard | None = None  # the utterance that has already been announced as a barge-in
        self._turns = first_turn

    @property
    def turns(self) -> int:
        """The index that the call's next turn will have."""
        return self._turns

    @property
    def history(self) -> History:
        return self._history

    # --- the clock of the conversation: called by the media client with every batch of frames ---

    def on_frames(self, frames: AudioFrames) -> None:
        now = self._now()
        self._speaker.tick()
        self._listener.push(frames, now)
        turn = self._turn
        if turn is not None and not turn.announced and turn.utterance.audible:
            turn.announced = True
            self._events.emit(
                AgentSpeaking(
                    at=clock.now(),
                    call_id=self._call_id,
                    text=turn.utterance.text,
                    latency=_latency(turn, turn.utterance.first_sent_ns) if turn.heard else None,
                )
            )
        if turn is not None and (turn.caller_text or not turn.heard):
            self._silence.busy()
        else:
            # Runs on while something is heard: only words stop it, or a television would keep the line open for ever.
            self._silence.quiet(now)
            act = None if self._listener.hearing or turn is not None else self._silence.due(now)
            if act is not None:
                self._happen(act)

    # --- what the listener tells (ListenerEvents) ---

    def speech_started(self, heard: Heard) -> None:
        pass  # a click may start it; the caller takes the floor only by going on

    def speech_goes_on(self, heard: Heard) -> None:
        if self._turn is not None and heard is not self._pressed and heard.voiced_ms >= self._settings.barge_in_ms:
            self._pressed = heard
            self._happen(_BargeIn())

    def speech_ended(self, heard: Heard) -> None:
        self._happen(heard)

    def _partial(self, text: str) -> None:
        self._events.emit(PartialTranscript(at=clock.now(), call_id=self._call_id, text=text))

    def _happen(self, happening: Heard | _BargeIn | _FloorFree | SilenceAct | Outcome) -> None:
        with suppress(asyncio.QueueFull):  # cannot fill while run() lives; when it does not, nobody reads
            self._happenings.put_nowait(happening)

    # --- the loop ---

    async def run(self) -> Outcome:
        """Greets, converses, and returns what the call should do next. Cancel it when the call ends otherwise."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._manners.greeting:
                    for _ in range(self._settings.lead_ms // FRAME_MS):
                        await self._speaker.next_tick()
                    self._begin(tasks, [], [self._manners.greeting])
                outcome = await self._converse(tasks)
                if self._turn is not None and self._turn.task is not None:
                    self._turn.task.cancel()
            return outcome
        finally:
            await self._conclude()

    async def _conclude(self) -> None:
        """Writes down what was going on: the turn that was cut off, and words that the caller said last."""
        unread = self._carried
        turn = self._turn
        if turn is not None and turn.heard and not turn.caller_text:
            unread = turn.heard
            turn.over = True
        elif turn is not None:
            self._end_turn(turn, interrupted=not turn.utterance.done)
        open_ = self._listener.take()
        if open_ is not None and open_.voiced_ms >= self._settings.barge_in_ms:
            unread = [*unread, open_]
        elif open_ is not None:
            open_.recognition.cancel()
        if unread:
            last = self._new_turn(unread, ending=True)
            try:
                async with asyncio.timeout(LAST_WORDS_S):
                    if await self._recognise(last):
                        self._end_turn(last, interrupted=False)
            except TimeoutError:
                self._problem(
                    "stt", ProviderError("the caller's last words were not recognised in time", retryable=False)
                )
            except ProviderError as error:
                self._problem("stt", error)

    async def _converse(self, tasks: asyncio.TaskGroup) -> Outcome:
        while True:
            happening = await self._happenings.get()
            match happening:
                case Outcome():
                    return happening
                case _BargeIn():
                    await self._give_floor()
                case _FloorFree():
                    if self._turn is None and self._carried and not self._listener.hearing:
                        self._begin(tasks, self._take_carried(), [])
                case Heard():
                    if self._turn is None:
                        self._begin(tasks, [*self._take_carried(), happening], [])
                    elif happening.voiced_ms >= self._settings.barge_in_ms:
                        self._carried.append(happening)  # the agent may not be interrupted: it is answered afterwards
                    else:  # too short to be meant
                        happening.recognition.cancel()
                case SilenceAct.PROMPT:
                    if self._turn is None and self._manners.silence_prompt:
                        self._begin(tasks, [], [self._manners.silence_prompt])
                case SilenceAct.GOODBYE:
                    if self._turn is None:
                        self._begin(tasks, [], [self._manners.goodbye], Outcome(Ending.CALLER_SILENT))

    def _take_carried(self) -> list[Heard]:
        carried, self._carried = self._carried, []
        return carried

    async def _give_floor(self) -> None:
        turn = self._turn
        if turn is None or turn.over or turn.ending or not self._manners.interruptible:
            return
        if not turn.utterance.audible and turn.heard:
            self._agent.rollback(turn.checkpoint)
            self._carried = turn.heard
            turn.over = True
            await self._stop(turn)
            self._turn = None
            return
        await self._stop(turn)
        heard_text = turn.utterance.heard_text
        self._events.emit(AgentInterrupted(at=clock.now(), call_id=self._call_id, heard_text=heard_text))
        self._end_turn(turn, interrupted=True)

    async def _stop(self, turn: _Turn) -> None:
        """First the task, which else would take the silence for the end of its speech; then the audio."""
        assert turn.task is not None
        turn.task.cancel()
        await asyncio.wait([turn.task])
        await turn.utterance.interrupt()

    # --- a turn ---

    def _begin(
        self, tasks: asyncio.TaskGroup, heard: list[Heard], texts: Iterable[str], then: Outcome | None = None
    ) -> None:
        turn = self._turn = self._new_turn(heard, ending=then is not None)
        work = self._answer(turn) if heard else self._announce(turn, texts, then)
        turn.task = tasks.create_task(work, name=f"{self._call_id}/turn")

    def _new_turn(self, heard: list[Heard], *, ending: bool) -> _Turn:
        return _Turn(
            id=new_turn_id(),
            heard=heard,
            checkpoint=self._agent.checkpoint(),
            started_ns=heard[0].started_ns if heard else 0,
            utterance=self._speaker.utterance(),
            ending=ending,
        )

    async def _announce(self, turn: _Turn, texts: Iterable[str], then: Outcome | None) -> None:
        """Speaks texts of the agent's own accord."""
        for text in texts:
            await self._speak(turn, text)
        await self._finish(turn, then)

    async def _answer(self, turn: _Turn) -> None:
        """Words, then the agent's answer; something is said in time, whatever takes long."""
        async with asyncio.TaskGroup() as tasks:
            bridge = tasks.create_task(self._bridge(turn), name=f"{self._call_id}/filler")
            then = await self._reply(turn)
            bridge.cancel()
        if turn.words_ns and not turn.caller_text and not turn.utterance.text:  # it was no speech
            self._turn = None
        else:
            await self._finish(turn, then)

    async def _reply(self, turn: _Turn) -> Outcome | None:
        try:
            if not await self._recognise(turn):
                return None
        except ProviderError as error:
            self._problem("stt", error)
            await self._speak(turn, self._manners.apology)
            return None
        answer = _Answer()
        async with asyncio.TaskGroup() as tasks:
            thinking = tasks.create_task(self._think(turn, answer), name=f"{self._call_id}/agent")
            await self._speak_answer(turn, answer)
            thinking.cancel()
        match answer.action:
            case EndCall():
                return Outcome(Ending.HANGUP)
            case TransferCall(target=target):
                return Outcome(Ending.TRANSFER, target)
            case _:
                return None

    async def _bridge(self, turn: _Turn) -> None:
        """The filler, when nothing else is on its way to the wire by then: recogniser, agent or voice may be slow."""
        await asyncio.sleep(self._manners.filler_after_s)
        clauses = chunking.split(self._manners.filler)
        try:
            spoken = [await self._tts.synthesize(clause) for clause in clauses]
        except ProviderError as error:
            self._problem("tts", error)
            return
        if not turn.utterance.first_write_ns:
            turn.clause_ns = turn.clause_ns or self._now()
            for clause, pcm in zip(clauses, spoken, strict=True):
                await turn.utterance.add(clause, pcm, self._now())

    async def _recognise(self, turn: _Turn) -> bool:
        """Fills in the caller's words; False when there were none. Raises ProviderError."""
        transcripts: list[Transcript] = [await heard.recognition.finish() for heard in turn.heard]
        turn.words_ns = self._now()
        spoken = [t for t in transcripts if t.text]
        if not spoken:
            return False
        turn.caller_text = " ".join(t.text for t in spoken)
        turn.confidence = min(t.confidence for t in spoken)
        self._silence.caller_spoke()
        now = clock.now()
        self._events.emit(
            CallerSaid(
                at=now,
                call_id=self._call_id,
                turn_id=turn.id,
                text=turn.caller_text,
                started_at=now.at_mono(turn.started_ns),
                ended_at=now.at_mono(turn.heard[-1].last_arrival_ns),
                confidence=turn.confidence,
            )
        )
        return True

    async def _think(self, turn: _Turn, answer: _Answer) -> None:
        """The agent's pieces as clauses into the queue."""
        chunker = chunking.Chunker()
        try:
            async for piece in self._agent.respond(turn.caller_text, self._history):
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

    async def _speak_answer(self, turn: _Turn, answer: _Answer) -> None:
        """Clauses to the wire as they come."""
        while True:
            try:
                clause = await asyncio.wait_for(answer.clauses.get(), self._settings.reply_limit_s)
            except TimeoutError:
                self._problem("agent", ProviderError("no answer within the limit", retryable=True))
                await self._speak(turn, self._manners.apology)
                return
            if clause is None:
                break
            await self._say(turn, clause)
        if answer.error is not None:
            self._problem("agent", answer.error)
            await self._speak(turn, self._manners.apology)

    async def _speak(self, turn: _Turn, text: str) -> None:
        """A whole text of the manners; by clauses, as it was prepared."""
        for clause in chunking.split(text):
            await self._say(turn, clause)

    async def _say(self, turn: _Turn, clause: str) -> None:
        turn.clause_ns = turn.clause_ns or self._now()
        try:
            pcm = await self._tts.synthesize(clause)
        except ProviderError as error:
            self._problem("tts", error)
            if turn.apologising:
                self._happen(Outcome(Ending.FAILED))
                return
            turn.apologising = True
            await self._speak(turn, self._manners.apology)
            return
        await turn.utterance.add(clause, pcm, self._now())

    async def _finish(self, turn: _Turn, then: Outcome | None) -> None:
        turn.ending = then is not None
        turn.utterance.complete()
        await turn.utterance.played()
        self._end_turn(turn, interrupted=False)
        if then is not None:
            for _ in range(self._settings.tail_ms // FRAME_MS):
                await self._speaker.next_tick()
            self._happen(then)

    def _end_turn(self, turn: _Turn, *, interrupted: bool) -> None:
        """Writes the turn down, once."""
        if self._turn is turn:
            self._turn = None
        if turn.over:
            return
        turn.over = True
        heard_text = turn.utterance.heard_text
        if turn.caller_text:
            self._history.caller(turn.caller_text)
        self._history.agent(heard_text)
        now = clock.now()
        sent_ns = turn.utterance.first_sent_ns
        started_ns = turn.started_ns or sent_ns or now.mono
        self._events.emit(
            TurnEnded(
                at=now,
                call_id=self._call_id,
                turn_id=turn.id,
                index=self._turns,
                caller_text=turn.caller_text,
                agent_text=turn.utterance.text,
                heard_text=heard_text,
                intent=turn.intent,
                confidence=turn.confidence,
                interrupted=interrupted,
                started_at=now.at_mono(started_ns),
                agent_started_at=now.at_mono(sent_ns) if sent_ns else None,
                latency=_latency(turn, sent_ns) if turn.heard and sent_ns else None,
            )
        )
        self._turns += 1
        if self._carried:
            self._happen(_FloorFree())

    def _problem(self, where: str, error: ProviderError) -> None:
        self._events.emit(Problem(at=clock.now(), call_id=self._call_id, where=where, what=str(error)))


def _latency(turn: _Turn, sent_ns: int) -> TurnLatency:
    """The contiguous parts from the caller's last speech packet to the agent's first packet."""
    heard = turn.heard[-1]
    instants = [
        heard.last_arrival_ns,
        heard.last_handed_ns,
        heard.ended_ns,
        turn.words_ns,
        turn.clause_ns,
        turn.utterance.first_write_ns,
        sent_ns,
    ]
    for i in range(1, len(instants)):  # a step that was skipped, or came after a filler, took no time
        instants[i] = min(max(instants[i], instants[i - 1]), max(sent_ns, instants[0]))
    parts = [(later - earlier) / 1e6 for earlier, later in zip(instants, instants[1:], strict=False)]
    return TurnLatency(
        jitter_buffer_ms=parts[0],
        endpointing_ms=parts[1],
        stt_ms=parts[2],
        llm_ms=parts[3],
        tts_ms=parts[4],
        playout_ms=parts[5],
        total_ms=(instants[-1] - instants[0]) / 1e6,
    )
