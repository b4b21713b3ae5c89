"""The dialplan's steps, carried out on a call."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from sipagent.calls import holding
from sipagent.calls.dial import dial
from sipagent.calls.keypad import DigitsRefused
from sipagent.calls.speaking import play, say
from sipagent.calls.streams.step import stream
from sipagent.calls.talking import talk
from sipagent.calls.transfer import transfer
from sipagent.core import clock
from sipagent.core.events import Problem
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.model import (
    AgentStep,
    AnswerStep,
    DialStep,
    HangupStep,
    HoldStep,
    PlayStep,
    PressStep,
    RejectStep,
    RingStep,
    SayStep,
    Step,
    StreamStep,
    TransferStep,
)

if TYPE_CHECKING:
    from sipagent.calls.call import Call

MAX_TURNOFFS = 20  # of `dial` to other steps in one call: steps that name each other go round in circles


async def run(call: "Call") -> None:
    """All steps in order; returns when they are through or one of them has ended the call."""
    turnoffs = 0
    while call.todo and not call.ended.done():
        call.progressed()
        instead = await _step(call, call.todo[0])
        if instead and turnoffs < MAX_TURNOFFS:
            turnoffs += 1
            call.todo = list(call.match.dialplan.steps[instead])
        else:
            del call.todo[:1]


async def _step(call: "Call", step: Step) -> str:
    """The name of steps to take instead of those that are left, "" to go on."""
    match step:
        case AnswerStep():
            await answer(call)
        case RingStep(seconds=seconds):
            await _ring(call, seconds)
        case RejectStep(status=status, reason=reason):
            call.leg.reject(
                status,
                reason,
                Termination(
                    disposition=Disposition.REJECTED, cause=Cause.REJECTED, by=EndedBy.AGENT, sip_status=status
                ),
            )
        case SayStep(text=text, early=early):
            await _speaking(call, early)
            await say(call, text)
        case PlayStep(file=file, early=early):
            await _speaking(call, early)
            await play(call, Path(call.match.dialplan.folder) / file)
        case AgentStep(agent=name):
            await answer(call)
            await talk(call, name)
        case DialStep():
            return await dial(call, step)
        case PressStep(digits=digits):
            await answer(call)
            await _press(call, digits)
        case HoldStep(seconds=seconds, music=music):
            await answer(call)
            await holding.hold_for(call, seconds, music)
        case TransferStep():
            await answer(call)
            await transfer(call, step)
        case StreamStep(on_failure=instead):
            await answer(call)
            outcome = await stream(call, step)
            return instead if outcome.failed else ""
        case HangupStep():
            call.hangup(EndedBy.AGENT)
        case _:
            assert_never(step)
    return ""


async def answer(call: "Call") -> None:
    """Answers an inbound call that is not answered yet; media starts with the ACK."""
    leg = call.leg
    if not leg.is_answered:
        if leg.identity.direction is Direction.INBOUND:
            leg.answer()
        await leg.answered.wait()
    call.answered_at = call.answered_at or clock.now()


async def _ring(call: "Call", seconds: float) -> None:
    if not call.leg.is_answered:
        call.leg.ring()
        await asyncio.sleep(seconds)


async def _press(call: "Call", digits: str) -> None:
    try:
        await call.leg.press(digits)
    except DigitsRefused as error:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="press", what=str(error)))


async def _speaking(call: "Call", early: bool) -> None:
    """The caller can hear us: before the call is answered, or because it is."""
    if early and not call.leg.is_answered:
        call.leg.early()
    else:
        await answer(call)
