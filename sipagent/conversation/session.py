"""One conversation: whose turn it is, and one turn at a time.

    on_frames (every tick) ──► Listener ──► happenings ──► run(): one loop, one running turn
                          └──► Speaker.tick (wakes turns that wait for the wire)

A turn is a task (TurnWork): words, agent, clauses, synthesis, wire. It ends by itself or the caller takes the floor:
then what was heard goes into the history, or, when nothing was heard yet, the turn is retracted without trace and its
words are answered together with what follows. At a pause of the caller the answer may be begun before it is a turn
(Speculation).
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from sipagent.conversation import turn as turns
from sipagent.conversation import turn_strategies
from sipagent.conversation.bridge import Bridge, GiveUp, Say, dead_air
from sipagent.conversation.budget import LatencyBudget
from sipagent.conversation.dead_air import DeadAir
from sipagent.conversation.floor import Floor, Limits, Policy, Verdict
from sipagent.conversation.happenings import (
    Aside,
    BargeIn,
    Ending,
    FloorFree,
    Happening,
    Keyed,
    Outcome,
    Paused,
    Resumed,
    last_resort,
)
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import (
    FRAME_MS,
    Agent,
    AudioFrames,
    AudioOut,
    MakeDetector,
    Recogniser,
    Tts,
    Words,
    most_digits,
)
from sipagent.conversation.interruptions import Interruptions
from sipagent.conversation.keyed import KeyedAnswer
from sipagent.conversation.languages import language
from sipagent.conversation.listener import Heard, Listener
from sipagent.conversation.prosody import TurnJudge
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.reply import Manners, Reply
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.silence import SilenceAct, SilenceWatch
from sipagent.conversation.speaker import Speaker
from sipagent.conversation.speculation import Speculation
from sipagent.conversation.turn import Turn
from sipagent.conversation.turn_end import Scaled
from sipagent.conversation.turn_work import TurnWork
from sipagent.core import clock
from sipagent.core.errors import ProviderError
from sipagent.core.events import AgentInterrupted, AgentSpeaking, CallerSaid, EventSink, PartialTranscript, Problem
from sipagent.core.ids import CallId, new_turn_id

HAPPENINGS = 64  # bound of what may wait for the loop; far more than one call can cause within a turn
MORE_GUESSES = 2  # begun at pauses where turns take long
CARRIED = 12  # utterances that wait for the floor: each keeps its audio
IDLE = (Verdict.BACKCHANNEL, Verdict.NOISE)  # what nobody answers
ASIDE_S = 5.0  # for recognising what the caller said while the agent spoke
STOP_S = 1.0
LAST_WORDS_S = 2.0  # for recognising what the caller said just before the call ended; nobody waits for it by then


class Session:
    def __init__(
        self,
        call_id: CallId,
        *,
        agent: Agent,
        manners: Manners,
        out: AudioOut,
        make_vad: MakeDetector,
        recogniser: Recogniser,
        tts: Tts,
        events: EventSink,
        settings: ConversationSettings,
        first_turn: int = 0,
        history: History | None = None,
        opening: str | None = None,
        judge: TurnJudge | None = None,
        ledger: Ledger | None = None,
        urgent: Tts | None = None,
        silence: DeadAir | None = None,
        now: Callable[[], int] = clock.mono_ns,
    ) -> None:
        """``history`` of a conversation that goes on after a pause, with ``opening`` in place of the greeting;
        ``judge`` hears from the melody of speech whether the caller has finished; ``ledger`` is what the providers
        write to; ``urgent`` speaks at once what is known beforehand; ``silence`` is the call's watch over dead air."""
        self._now = now
        ledger = ledger if ledger is not None else Ledger()
        ledger.problem = self.problem
        self._call_id = call_id
        self._agent = agent
        self._manners = manners
        self._replies = Reply(
            call_id,
            agent,
            manners,
            tts,
            settings.reply_limit_s,
            problem=self.problem,
            failed=lambda: self._happen(Outcome(Ending.FAILED, why="nothing can be said: the voice fails")),
            now=now,
        )
        self._out = out
        self._events = events
        self._settings = settings
        self._history = history if history is not None else History()
        self._opening = manners.greeting if opening is None else opening
        self._speaker = Speaker(out, settings.ahead_ms)
        self._listener = Listener(
            settings,
            make_vad,
            recogniser,
            self,
            Scaled(
                turn_strategies.make(manners.turn_end, settings, manners.language),
                lambda: self._budget.endpointing_scale,
            ),
            lambda: (self._agent.expecting, most_digits(self._agent)),
            judge,
        )
        floor = Floor(
            Policy.of(manners.barge_in), language(manners.language).backchannels, Limits(hold_ms=settings.barge_in_ms)
        )
        self._interruptions = Interruptions(out, floor)
        self._silence = SilenceWatch(manners.silence_s, manners.silence_prompts)
        self._speculation = Speculation(
            agent, lambda asked: self._replies.begin(asked, lambda: out.rate), settings.speculations, now=now
        )
        self._budget = LatencyBudget(settings.latency_budget_ms)
        silence = silence if silence is not None else dead_air(manners, settings.dead_air_ms)
        self._bridge = Bridge(manners, silence, urgent if urgent is not None else tts, ledger, self._budget, now)
        self._work = TurnWork(
            self._replies,
            self._speculation,
            self._bridge,
            self._speaker,
            self._history,
            self,
            tail_ms=settings.tail_ms,
            now=now,
        )
        self._happenings: asyncio.Queue[Happening] = asyncio.Queue(HAPPENINGS)
        self._turn: Turn | None = None
        self._carried: list[Heard] = []  # utterances of a retracted turn, or said during one
        self._asides: list[tuple[Heard, asyncio.Task[None]]] = []  # said during one, and not yet known what
        self._turns = first_turn
        self._keyed = KeyedAnswer()
        self.held = False  # by the caller: what comes is music or nothing, and nobody keeps silent

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
        if self.held:
            self._silence.busy()
            self._interruptions.release()
            return
        self._listener.push(frames, self._out.sent_beside(frames.position, len(frames.pcm)), now)
        turn = self._turn
        if turn is not None and not turn.announced and turn.utterance.audible:
            turn.announced = True
            self._events.emit(
                AgentSpeaking(
                    at=clock.now(),
                    call_id=self._call_id,
                    text=turn.utterance.text,
                    latency=turns.latency(turn),
                )
            )
            self._bridge.heard(turns.latency(turn))
        if self._keyed.waiting and (turn is None or self._interruptions.may_yield(turn)):
            keys = self._keyed.due(self._agent.expecting, now)
            if keys is not None:
                self._happen(Keyed(keys))
        caller_speaks = self._listener.hearing
        for todo in self._bridge.tick(now, turn, caller_speaks=caller_speaks, audible=self._out.queued > 0):
            self._happen(todo)
        if turn is not None and (turn.caller_text or not turn.heard):
            self._silence.busy()
        else:
            # Runs on while something is heard: only words stop it, or a television would keep the line open for ever.
            self._silence.quiet(now)
            act = None if self._listener.hearing or turn is not None else self._silence.due(now)
            if act is not None:
                self._happen(act)

    def pressed(self, key: str) -> None:
        """The caller has pressed a key. It interrupts the agent, and is a part of the answer where one by keys fits."""
        fits = self._keyed.press(key, self._agent.expecting, self._now(), most_digits(self._agent))
        if fits and self._turn is not None and self._interruptions.may_yield(self._turn):
            self._interrupt()

    # --- what the listener tells (ListenerEvents) ---

    def frame(self, voiced: bool, heard: Heard | None) -> None:
        if voiced and heard is not None:
            heard.aside = None
        if self._interruptions.frame(voiced, heard.voiced_ms if heard is not None else 0, self._turn):
            self._interrupt()

    def speech_started(self, heard: Heard) -> None:
        self._interruptions.begin()

    def speech_ended(self, heard: Heard) -> None:
        self._happen(heard)

    def speech_paused(self, heard: Heard) -> None:
        pass

    def speech_resumed(self, heard: Heard) -> None:
        self._happen(Resumed())

    def words(self, heard: Heard, words: Words) -> None:
        if words.paused:
            self._happen(Paused(heard, words.text))
        elif words.text:
            self._events.emit(PartialTranscript(at=clock.now(), call_id=self._call_id, text=words.text))
        if self._turn is None or self._turn.over:
            return
        heard.aside = self._interruptions.hear(
            heard, words.text, self._turn, final=words.paused, confidence=words.confidence
        )
        if heard.aside is Verdict.INTERRUPTION:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._turn is not None:
            self._happen(BargeIn(self._turn))

    def _happen(self, happening: Happening) -> None:
        with suppress(asyncio.QueueFull):  # cannot fill while run() lives; when it does not, nobody reads
            self._happenings.put_nowait(happening)

    # --- the loop ---

    async def run(self) -> Outcome:
        """Greets, converses, and returns what the call should do next. Cancel it when the call ends otherwise."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._opening:
                    for _ in range(self._settings.lead_ms // FRAME_MS):
                        await self._speaker.next_tick()
                    self._begin(tasks, [], [self._opening], protected=self._manners.whole_greeting)
                outcome = await self._converse(tasks)
                await self._speculation.retract()
                if self._turn is not None and self._turn.task is not None:
                    self._turn.task.cancel()
                for _, task in self._asides:
                    task.cancel()
            return outcome
        finally:
            await self._conclude()

    async def _conclude(self) -> None:
        """Writes down what was going on: the turn that was cut off, and words that the caller said last."""
        await self._speculation.retract()
        self._interruptions.release()
        unread = [*self._carried, *(heard for heard, _ in self._asides)]
        turn = self._turn
        if turn is not None and turn.heard and not turn.caller_text:
            unread = [*turn.heard, *unread]
            turn.over = True
        elif turn is not None:
            self._end_turn(turn, interrupted=not turn.utterance.done)
        while not self._happenings.empty():
            happening = self._happenings.get_nowait()
            if isinstance(happening, Heard) and happening.aside not in IDLE:
                unread = [*unread, happening]
        open_ = self._listener.take()
        if open_ is not None and open_.aside not in IDLE and open_.voiced_ms >= self._settings.barge_in_ms:
            unread = [*unread, open_]
        elif open_ is not None:
            open_.recognition.cancel()
        if unread:
            last = self._new_turn(unread, ending=True)
            try:
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._work.recognise(last)
                if last.caller_text:
                    self._end_turn(last, interrupted=False)
            except TimeoutError:
                self.problem(
                    "stt", ProviderError("the caller's last words were not recognised in time", retryable=False)
                )
            except ProviderError as error:
                self.problem("stt", error)

    async def _converse(self, tasks: asyncio.TaskGroup) -> Outcome:
        while True:
            happening = await self._happenings.get()
            match happening:
                case Outcome():
                    return happening
                case BargeIn(turn):
                    await self._give_floor(turn)
                case Aside(heard, text):
                    await self._settle(tasks, heard, text)
                case Paused(heard, words):
                    if self._turn is None and not heard.ended_ns:
                        await self._speculation.begin(tasks, self._with_carried(words), self._history)
                case Resumed():
                    if self._turn is None:
                        await self._speculation.retract()
                case FloorFree():
                    self._begin_carried(tasks)
                case Keyed(keys):
                    if self._turn is not None and self._interruptions.may_yield(self._turn):
                        await self._give_floor(self._turn)
                    if self._turn is None:
                        self._begin_keyed(tasks, keys)
                case Heard(aside=Verdict.BACKCHANNEL | Verdict.NOISE):
                    happening.recognition.cancel()
                    self._begin_carried(tasks)
                case Heard():
                    if self._turn is None:
                        self._begin(tasks, [*self._take_carried(), happening], [])
                    elif happening.aside is Verdict.LATER:
                        self._carry(happening)
                    else:
                        task = tasks.create_task(self._listen_to(happening), name=f"{self._call_id}/aside")
                        self._asides.append((happening, task))
                case Say() as todo:
                    tasks.create_task(self._say(todo), name=f"{self._call_id}/filler")
                case GiveUp(turn=turn) as todo:
                    if turn is self._turn and not turn.over:
                        await self._stop(turn)
                        self._end_turn(turn, interrupted=False)
                        self._begin(tasks, [], todo.texts, last_resort(todo))
                case SilenceAct.PROMPT:
                    if self._turn is None and self._manners.silence_prompt:
                        self._begin(tasks, [], [self._manners.silence_prompt])
                case SilenceAct.GOODBYE:
                    if self._turn is None:
                        self._begin(tasks, [], [self._manners.goodbye], Outcome(Ending.CALLER_SILENT))

    def _with_carried(self, words: str) -> str:
        """All that the caller has said in this turn, "" when that is not known yet."""
        before = [heard.transcript for heard in self._carried]
        known = [transcript.text for transcript in before if transcript is not None]
        return "" if len(known) < len(before) else " ".join([*filter(None, known), words])

    def _take_carried(self) -> list[Heard]:
        carried, self._carried = self._carried, []
        return carried

    async def _listen_to(self, heard: Heard) -> None:
        """What the caller said beside the agent's turn, where nothing has settled it yet."""
        text: str | None = None
        try:
            async with asyncio.timeout(ASIDE_S):
                heard.transcript = await heard.recognition.finish()
            text = heard.transcript.text
        except ProviderError as error:
            self.problem("stt", error)
        except TimeoutError:
            self.problem("stt", ProviderError("what the caller said was not recognised in time", retryable=True))
        self._happen(Aside(heard, text))

    async def _settle(self, tasks: asyncio.TaskGroup, heard: Heard, text: str | None) -> None:
        turn = self._turn
        self._asides = [(other, task) for other, task in self._asides if other is not heard]
        if text is None:
            verdict = Verdict.LATER if heard.voiced_ms >= self._settings.barge_in_ms else Verdict.NOISE
        else:
            confidence = heard.transcript.confidence if heard.transcript is not None else 0.0
            verdict = self._interruptions.hear(heard, text, turn, final=True, confidence=confidence) or Verdict.NOISE
        match verdict:
            case Verdict.INTERRUPTION if turn is not None:
                await self._give_floor(turn)
            case Verdict.BACKCHANNEL | Verdict.NOISE:
                self._begin_carried(tasks)
                return
            case _:
                pass
        self._carry(heard)
        if self._turn is None:
            self._begin(tasks, self._take_carried(), [])

    def _carry(self, heard: Heard) -> None:
        """It is answered when the floor is free; of too many the oldest are let go."""
        self._carried.append(heard)
        for old in self._carried[:-CARRIED]:
            old.recognition.cancel()
        del self._carried[:-CARRIED]

    def _begin_carried(self, tasks: asyncio.TaskGroup) -> None:
        """Answers what waits for the floor, unless the caller is speaking again."""
        if self._turn is None and self._carried and not self._listener.hearing:
            self._begin(tasks, self._take_carried(), [])

    async def _give_floor(self, turn: Turn) -> None:
        if turn is not self._turn or turn.over or turn.ending:
            return
        if not turn.utterance.audible and turn.heard:
            self._carried = [*turn.heard, *self._carried]
            self._budget.cut_off()
            turn.over = True
            await self._stop(turn)
            self._agent.rollback(turn.checkpoint)
            self._turn = None
            return
        await self._stop(turn)
        heard_text = turn.utterance.heard_text
        self._events.emit(AgentInterrupted(at=clock.now(), call_id=self._call_id, heard_text=heard_text))
        self._end_turn(turn, interrupted=True)

    async def _stop(self, turn: Turn) -> None:
        """First the task, which else would take the silence for the end of its speech; then the audio."""
        assert turn.task is not None
        turn.task.cancel()
        await asyncio.wait([turn.task], timeout=STOP_S)  # whatever holds it up, the caller has the floor
        await self._speculation.retract()  # where the turn had not come to adopt it
        await turn.utterance.interrupt()
        self._interruptions.release()

    # --- a turn ---

    def _begin(
        self,
        tasks: asyncio.TaskGroup,
        heard: list[Heard],
        texts: Iterable[str],
        then: Outcome | None = None,
        *,
        protected: bool = False,
    ) -> None:
        turn = self._turn = self._new_turn(heard, ending=then is not None)
        if heard:
            work = self._work.answer(tasks, turn)
        else:
            work = self._work.announce(turn, texts, then, protected=protected)
        turn.task = tasks.create_task(work, name=f"{self._call_id}/turn")

    def _begin_keyed(self, tasks: asyncio.TaskGroup, keys: str) -> None:
        self._silence.caller_spoke()
        turn = self._turn = self._new_turn([], ending=False)
        turn.task = tasks.create_task(self._work.answer_keys(tasks, turn, keys), name=f"{self._call_id}/turn")

    def _new_turn(self, heard: list[Heard], *, ending: bool) -> Turn:
        self._speculation.limit = self._settings.speculations + MORE_GUESSES * self._budget.speculates_more
        return Turn(
            id=new_turn_id(),
            heard=heard,
            checkpoint=self._speculation.checkpoint,
            utterance=self._speaker.utterance(),
            begun_ns=self._now(),
            ending=ending,
            details={"end": heard[-1].end} if heard and heard[-1].end else {},
        )

    async def _say(self, todo: Say) -> None:
        try:
            await self._bridge.say(todo)
        except ProviderError as error:
            self.problem("tts", error)

    # --- what a turn tells (TurnEvents) ---

    def said(self, turn: Turn) -> None:
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

    def nothing_said(self, turn: Turn) -> None:
        self._turn = None

    def finished(self, turn: Turn) -> None:
        self._end_turn(turn, interrupted=False)

    def outcome(self, outcome: Outcome) -> None:
        self._happen(outcome)

    def problem(self, where: str, error: ProviderError) -> None:
        self._events.emit(Problem(at=clock.now(), call_id=self._call_id, where=where, what=str(error)))

    def _end_turn(self, turn: Turn, *, interrupted: bool) -> None:
        """Writes the turn down, once."""
        if self._turn is turn:
            self._turn = None
        if turn.over:
            return
        turn.over = True
        self._bridge.record(turn)
        event = turns.ended(turn, self._call_id, self._turns, clock.now(), interrupted=interrupted)
        self._events.emit(event)
        if turn.caller_text:
            self._history.caller(turn.caller_text)
        self._history.agent(event.heard_text)
        self._turns += 1
        if self._carried:
            self._happen(FloorFree())
