"""The dialplan's steps, carried out on a call."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from sipagent.calls import sounds
from sipagent.calls.transfer import transfer
from sipagent.conversation import chunking
from sipagent.conversation.session import Ending, Session
from sipagent.conversation.speaker import Speaker
from sipagent.core import clock
from sipagent.core.errors import ProviderError
from sipagent.core.events import Problem
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.model import (
    AgentStep,
    AnswerStep,
    HangupStep,
    PlayStep,
    RejectStep,
    SayStep,
    Step,
    TransferStep,
)

if TYPE_CHECKING:
    from sipagent.calls.call import Call


async def run(call: "Call") -> None:
    """All steps in order; returns when they are through or one of them has ended the call."""
    for step in call.match.steps:
        await _step(call, step)
        if call.leg.ended.done():
            return


async def _step(call: "Call", step: Step) -> None:
    match step:
        case AnswerStep():
            await _answer(call)
        case RejectStep(status=status, reason=reason):
            call.leg.reject(
                status,
                reason,
                Termination(
                    disposition=Disposition.REJECTED, cause=Cause.REJECTED, by=EndedBy.AGENT, sip_status=status
                ),
            )
        case SayStep(text=text):
            await _answer(call)
            await _say(call, text)
        case PlayStep(file=file):
            await _answer(call)
            await _play(call, Path(call.match.dialplan.folder) / file)
        case AgentStep(agent=name):
            await _answer(call)
            await _agent(call, name)
        case TransferStep(target=target):
            await _answer(call)
            await transfer(call, target)
        case HangupStep():
            call.hangup(EndedBy.AGENT)
        case _:
            assert_never(step)


async def _answer(call: "Call") -> None:
    """Answers an inbound call that is not answered yet; media starts with the ACK."""
    leg = call.leg
    if not leg.is_answered:
        if leg.identity.direction is Direction.INBOUND:
            leg.answer()
        await leg.answered.wait()
    call.answered_at = call.answered_at or clock.now()


async def _say(call: "Call", text: str) -> None:
    """Speaks a text to its end, clause by clause; a voice that fails is a problem, not the end of the call."""
    with _mouth(call) as speaker:
        utterance = speaker.utterance()
        try:
            for clause in chunking.split(text):
                rate = utterance.rate
                pcm = await call.services.tts.synthesize(clause, rate)
                await utterance.add(clause, pcm, rate, clock.mono_ns())
            utterance.complete()
            await utterance.played()
        except ProviderError as error:
            call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="tts", what=str(error)))
        finally:  # also when the call ends in the middle: the record tells how far it came
            call.spoke(utterance)


async def _play(call: "Call", path: Path) -> None:
    rate = call.leg.port.rate
    pcm = await asyncio.to_thread(sounds.read_wav, path, rate)
    with _mouth(call) as speaker:
        utterance = speaker.utterance()
        await utterance.add("", pcm, rate, clock.mono_ns())
        utterance.complete()
        await utterance.played()


@contextmanager
def _mouth(call: "Call") -> Iterator[Speaker]:
    speaker = Speaker(call.leg.port, call.services.conversation.ahead_ms)
    call.leg.port.on_frames = lambda _frames: speaker.tick()
    try:
        yield speaker
    finally:
        call.leg.port.on_frames = None


async def _agent(call: "Call", name: str) -> None:
    services = call.services
    spec = call.match.dialplan.agents[name]
    session = Session(
        call.id,
        agent=await services.make_agent(f"{call.match.dialplan.name}/{name}", spec),
        manners=spec,
        out=call.leg.port,
        make_vad=services.make_vad,
        recogniser=services.recogniser,
        tts=services.tts,
        events=services.events,
        settings=services.conversation,
        first_turn=call.turns,
    )
    call.leg.port.on_frames = session.on_frames
    try:
        async with asyncio.timeout(spec.max_duration_s):
            outcome = await session.run()
    except TimeoutError:
        call.hangup(EndedBy.SYSTEM, Cause.MAX_DURATION, "the agent's max_duration_s is over")
        return
    finally:
        call.leg.port.on_frames = None
        call.turns = session.turns
    match outcome.ending:
        case Ending.HANGUP:
            call.hangup(EndedBy.AGENT)
        case Ending.CALLER_SILENT:
            call.hangup(EndedBy.SYSTEM, Cause.CALLER_SILENT)
        case Ending.FAILED:
            call.hangup(EndedBy.SYSTEM, Cause.ERROR, "nothing could be said: speech synthesis fails")
        case Ending.TRANSFER:
            if not await transfer(call, outcome.target):
                await _say(call, spec.apology)
        case _:
            assert_never(outcome.ending)
