"""A call of ours is answered: by whom, and what is done where it is no person."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import numpy as np

from sipagent.calls.speaking import say
from sipagent.conversation.audio import rate_of
from sipagent.conversation.beep import ToneWatch
from sipagent.conversation.callee import Callee, CalleeWatch, Verdict
from sipagent.conversation.happenings import Outcome
from sipagent.conversation.interfaces import AudioFrames, Pcm, VoiceDetector
from sipagent.conversation.languages import language
from sipagent.core import clock
from sipagent.core.errors import SipagentError
from sipagent.core.events import CalleeDetected, CallerSaid, Event, PartialTranscript, Problem
from sipagent.core.states import Direction
from sipagent.core.termination import EndedBy
from sipagent.dialplan.model import AgentSpec, CalleeSpec

if TYPE_CHECKING:
    from sipagent.calls.call import Call

LOOK_S = 0.05
VOICED = 0.5
MENU_PAUSE_MS = 700  # nothing said for so long: keys are taken now
ASKED_MS = 1200  # nothing said for so long: who asks for our name waits for it
PUT_THROUGH_S = 30.0  # until somebody speaks behind a menu or a screening


class CalleeCheck:
    """Listens beside the conversation; an event sink in front of the node's, for the callee's words."""

    def __init__(self, call: "Call", spec: CalleeSpec, code: str) -> None:
        self._call = call
        self._spec = spec
        self._phrases = language(code).callee
        self._vad: VoiceDetector | None = None
        self._rate = 0
        self._begin()

    def _begin(self) -> None:
        """Somebody else may be on the line from now on."""
        self._watch = CalleeWatch(self._phrases)
        self._tones = ToneWatch()
        self.machine: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def on_frames(self, frames: AudioFrames) -> None:
        rate = rate_of(frames.pcm)
        if self._vad is None or rate != self._rate:
            self._vad, self._rate = self._call.services.make_vad(rate), rate
        for frame, voice in zip(frames.pcm, self._vad.push(frames.pcm), strict=True):
            voiced = bool(voice >= VOICED)
            self._tell(self._watch.frame(voiced, _dbfs(frame), self._tones.push(frame)))
        self._decide()

    def emit(self, event: Event) -> None:
        self._call.services.events.emit(event)
        if isinstance(event, PartialTranscript | CallerSaid):
            self._tell(self._watch.words(event.text, final=isinstance(event, CallerSaid)))
            self._decide()

    def _decide(self) -> None:
        """The conversation is broken off only for sure: without it nobody understands what is said any more."""
        verdict = self._watch.verdict
        if verdict is not None and self._watch.sure and self._acts_on(verdict.callee) and not self.machine.done():
            self.machine.set_result(verdict)

    def _tell(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        call = self._call
        call.services.events.emit(
            CalleeDetected(
                at=clock.now(),
                call_id=call.id,
                leg_id=call.leg.id,
                callee=verdict.callee.value,
                reason=verdict.reason,
                after_ms=verdict.after_ms,
            )
        )

    def _acts_on(self, callee: Callee) -> bool:
        match callee:
            case Callee.VOICEMAIL | Callee.FAX:
                return True
            case Callee.MENU:
                return self._spec.keys != ""
            case Callee.SCREENING:
                return self._spec.name != ""
            case _:
                return False

    async def quiet(self) -> None:
        """Nothing more of what was being said."""
        await self._call.leg.port.flush()

    async def act(self) -> bool:
        """Does what is to be done about the machine; False when the call has ended by it."""
        call, verdict = self._call, self.machine.result()
        call.leg.port.on_frames = self.on_frames
        try:
            match verdict.callee:
                case Callee.FAX:
                    call.hangup(EndedBy.AGENT, detail="a fax answered")
                    return False
                case Callee.MENU:
                    await self._until(lambda: self._watch.silence_ms >= MENU_PAUSE_MS, self._spec.limit_s)
                    await self._press(self._spec.keys)
                    await self._person()
                    return True
                case Callee.SCREENING:
                    await self._until(
                        lambda: self._watch.beeped or self._watch.silence_ms >= ASKED_MS, self._spec.limit_s
                    )
                    await say(call, self._spec.name)
                    call.leg.port.on_frames = self.on_frames
                    await self._person()
                    return True
                case _:
                    await self._leave_message()
                    return False
        finally:
            call.leg.port.on_frames = None

    async def _leave_message(self) -> None:
        call, spec = self._call, self._spec
        if not spec.message:
            call.hangup(EndedBy.AGENT, detail="a voicemail answered")
            return
        came = await self._until(lambda: self._watch.message_due, spec.limit_s)
        if not came:
            call.hangup(EndedBy.AGENT, detail=f"a voicemail answered, and spoke for {spec.limit_s:g} s")
            return
        await say(call, spec.message)
        call.hangup(EndedBy.AGENT, detail="a message was left on a voicemail")

    async def _press(self, keys: str) -> None:
        try:
            await self._call.leg.press(keys)
        except SipagentError as error:
            self._call.services.events.emit(
                Problem(at=clock.now(), call_id=self._call.id, where="callee", what=f"keys were not pressed: {error}")
            )

    async def _person(self) -> None:
        self._begin()
        await self._until(lambda: self._watch.spoken, PUT_THROUGH_S)

    async def _until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Whether it came true in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while not condition():
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(LOOK_S)
        return True


def check_for(call: "Call", spec: AgentSpec) -> CalleeCheck | None:
    """None where nobody wants to know, or it was not we who called."""
    if spec.callee is None or call.leg.identity.direction is not Direction.OUTBOUND:
        return None
    return CalleeCheck(call, spec.callee, spec.language)


def both(*listeners: Callable[[AudioFrames], None]) -> Callable[[AudioFrames], None]:
    """One listener that is several."""

    def on_frames(frames: AudioFrames) -> None:
        for listener in listeners:
            listener(frames)

    return on_frames


async def unless_machine(conversation: Coroutine[Any, Any, Outcome], check: CalleeCheck) -> Outcome | None:
    """What comes of the conversation; None when it is broken off because a machine has answered."""
    task = asyncio.ensure_future(conversation)
    try:
        either: set[asyncio.Future[Any]] = {task, check.machine}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            await check.quiet()
    return None if task.cancelled() else task.result()


def _dbfs(frame: Pcm) -> float:
    samples = frame.astype(np.float32)
    return float(10.0 * np.log10(max(float(np.dot(samples, samples)) / len(frame), 0.25)) - 90.3)
