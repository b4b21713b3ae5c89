"""A question to the caller that is asked over the API, and the answer: keys or speech, whichever comes first."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from sipagent.calls.gathering import Gathering
from sipagent.calls.speaking import speak
from sipagent.conversation.interfaces import AudioFrames, DigitsWanted, Words
from sipagent.conversation.listener import Heard, Listener
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.speaker import Speaker
from sipagent.conversation.turn_end import FixedSilence
from sipagent.core import clock
from sipagent.core.errors import ProviderError
from sipagent.core.events import Gathered, Problem
from sipagent.core.ids import GatherId, new_gather_id
from sipagent.dialplan.model import AgentSpec

if TYPE_CHECKING:
    from sipagent.calls.call import Call

LOOK_S = 0.05
SPEECH_END_MS = 800  # of silence: what somebody answers to a form has pauses, and nobody waits to speak next


class Question(msgspec.Struct, kw_only=True, frozen=True):
    text: str = ""  # said first; what is said is broken off by the answer
    digits: DigitsWanted | None = None  # keys are taken
    speech: bool = False  # words are taken
    language: str = "en"
    first_s: float = 8.0  # for the answer to begin
    limit_s: float = 60.0  # of all of it


def gather(call: "Call", question: Question) -> "tuple[GatherId, asyncio.Future[Gathered]]":
    """The call leaves what it is at and asks. The answer is an event too. Raises NotNow."""
    gather_id = new_gather_id()
    answer: asyncio.Future[Gathered] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        found = ("nothing", "", "", "ended")
        call.asking.append(gather_id)
        call.progressed()
        try:
            found = await _ask(call, question)
        finally:
            by, digits, text, reason = found
            told = Gathered(
                at=clock.now(),
                call_id=call.id,
                gather_id=gather_id,
                by=by,
                digits=digits,
                text=text,
                reason=reason,
            )
            call.asking.remove(gather_id)
            call.services.events.emit(told)
            if not answer.done():
                answer.set_result(told)

    call.obey(work)
    return gather_id, answer


async def _ask(call: "Call", question: Question) -> tuple[str, str, str, str]:
    """By what, keys, words, and why it is over."""
    leg = call.leg
    wanted = question.digits or DigitsWanted(most=1)
    gathering = Gathering(
        DigitsWanted(
            least=wanted.least,
            most=wanted.most,
            end=wanted.end,
            first_s=question.first_s,
            between_s=wanted.between_s,
            limit_s=question.limit_s,
        ),
        clock.mono_ns(),
    )
    ears = _Ears(call, question.language) if question.speech else None
    speaker = Speaker(leg.port, call.services.conversation.ahead_ms)

    def pressed(digit: str) -> None:
        if question.digits is not None:
            gathering.pressed(digit, clock.mono_ns())

    def on_frames(frames: AudioFrames) -> None:
        speaker.tick()
        if ears is not None:
            ears.on_frames(frames)

    leg.on_digit.append(pressed)
    leg.port.on_frames = on_frames
    utterance = speaker.utterance()
    saying = asyncio.create_task(speak(call, utterance, question.text), name=f"{call.id}/question")
    try:
        while not gathering.over(clock.mono_ns()) and not (ears is not None and ears.text):
            if gathering.digits:
                await utterance.interrupt()
            elif not saying.done() or (ears is not None and ears.hearing):
                gathering.asking(clock.mono_ns())
            await asyncio.sleep(LOOK_S)
        await utterance.interrupt()
    finally:
        leg.on_digit.remove(pressed)
        leg.port.on_frames = None
        saying.cancel()
        await asyncio.wait([saying])
        if ears is not None:
            ears.close()
        if question.text:
            call.spoke(utterance)
    if gathering.digits:
        return "digits", gathering.digits, "", "complete" if len(gathering.digits) >= wanted.least else "silence"
    if ears is not None and ears.text:
        return "speech", "", ears.text, "complete"
    return "nothing", "", "", "silence"


class _Ears:
    """Hears the caller for one answer. It is the listener's `ListenerEvents`."""

    def __init__(self, call: "Call", language: str) -> None:
        self.text = ""  # once something was understood
        self._call = call
        services = call.services
        _, recogniser = services.speech_for(AgentSpec(greeting="", language=language), Ledger())
        self._listener = Listener(
            services.conversation, services.make_vad, recogniser, self, FixedSilence(SPEECH_END_MS)
        )
        self._recognising: set[asyncio.Task[None]] = set()

    @property
    def hearing(self) -> bool:
        return self._listener.hearing or bool(self._recognising)

    def on_frames(self, frames: AudioFrames) -> None:
        sent = self._call.leg.port.sent_beside(frames.position, len(frames.pcm))
        self._listener.push(frames, sent, clock.mono_ns())

    def close(self) -> None:
        heard = self._listener.take()
        if heard is not None:
            heard.recognition.cancel()
        for task in self._recognising:
            task.cancel()

    def speech_started(self, heard: Heard) -> None:
        pass

    def frame(self, voiced: bool, heard: Heard | None) -> None:
        pass

    def speech_paused(self, heard: Heard) -> None:
        pass

    def speech_resumed(self, heard: Heard) -> None:
        pass

    def words(self, heard: Heard, words: Words) -> None:
        pass

    def speech_ended(self, heard: Heard) -> None:
        task = asyncio.create_task(self._recognise(heard), name=f"{self._call.id}/answer")
        self._recognising.add(task)
        task.add_done_callback(self._recognising.discard)

    async def _recognise(self, heard: Heard) -> None:
        try:
            self.text = (await heard.recognition.finish()).text or self.text
        except ProviderError as error:
            self._call.services.events.emit(
                Problem(at=clock.now(), call_id=self._call.id, where="stt", what=str(error))
            )
