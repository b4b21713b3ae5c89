"""The dialplan's steps, carried out on a call."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, assert_never

from sipagent.calls import flows, holding
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
    GotoStep,
    HangupStep,
    HoldStep,
    IfStep,
    Instead,
    PlayStep,
    PressStep,
    RecordStep,
    RejectStep,
    RingStep,
    SayStep,
    SetStep,
    Step,
    StreamStep,
    TransferStep,
    WaitStep,
    WebhookStep,
)
from sipagent.dialplan.variables import LONGEST, filled, kept

if TYPE_CHECKING:
    from sipagent.calls.call import Call

MAX_TURNOFFS = 100  # to other steps in one call: steps that name each other go round in circles


async def run(call: "Call") -> None:
    """All steps in order; returns when they are through or one of them has ended the call."""
    turnoffs = 0
    while call.todo and not call.ended.done():
        call.progressed()
        step = call.todo[0]
        instead = await _step(call, step)
        if instead is None:
            del call.todo[:1]
        elif isinstance(step, WebhookStep):  # which has a limit of its own: `[web] flow_steps`
            call.todo = list(instead)
        elif turnoffs < MAX_TURNOFFS:
            turnoffs += 1
            call.todo = list(instead)
        else:
            if turnoffs == MAX_TURNOFFS:
                turnoffs += 1
                what = f"steps led to other steps {MAX_TURNOFFS} times in this call, and lead to none any more"
                call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="steps", what=what))
            del call.todo[:1]


async def carry_out(call: "Call", todo: Sequence[Step]) -> None:
    """Steps beside those of the call, which wait meanwhile."""
    for step in todo:
        if not call.ended.done():
            await _step(call, step)


async def _step(call: "Call", step: Step) -> Sequence[Step] | None:
    """The steps to take instead of those that are left, None to go on."""
    match step:
        case AnswerStep():
            await answer(call)
        case RingStep(seconds=seconds):
            await _ring(call, seconds)
        case RejectStep() if call.leg.is_answered:  # by an order, meanwhile
            pass
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
            await say(call, filled(text, call.known))
        case PlayStep(file=file, early=early, times=times):
            await _speaking(call, early)
            await play(call, file, times)
        case AgentStep(agent=name):
            await answer(call)
            await talk(call, name)
        case DialStep():
            return _steps_of(call, await dial(call, step))
        case PressStep(digits=digits):
            await answer(call)
            await _press(call, digits)
        case HoldStep(seconds=seconds, music=music):
            await answer(call)
            await holding.hold_for(call, seconds, music)
        case RecordStep(action=action):
            await answer(call)
            _record(call, action)
        case TransferStep():
            await answer(call)
            await transfer(call, step)
        case StreamStep(on_failure=instead):
            await answer(call)
            outcome = await stream(call, step)
            return _steps_of(call, instead) if outcome.failed else None
        case HangupStep():
            call.hangup(EndedBy.AGENT)
        case WebhookStep():
            answered = await flows.ask(call, step)
            return [*answered, *call.todo[1:]] if answered is not None else None
        case SetStep(values=values):
            known = call.known
            call.variables = kept(
                call.variables, {name: filled(text, known)[:LONGEST] for name, text in values.items()}
            )
        case IfStep():
            return _steps_of(call, _chosen(step, filled(step.value, call.known)))
        case GotoStep(steps=named):
            return _steps_of(call, named)
        case WaitStep(seconds=seconds):
            await asyncio.sleep(seconds)
        case _:
            assert_never(step)
    return None


def _chosen(step: IfStep, value: str) -> str:
    patterns = (step.equals,) if isinstance(step.equals, str) else step.equals
    return step.then if any(fnmatchcase(value, pattern) for pattern in patterns) else step.otherwise


def _steps_of(call: "Call", instead: str | Instead) -> Sequence[Step] | None:
    """Those that are named; None for none. A dialplan that was changed since may have them no more."""
    if isinstance(instead, Instead):
        return instead.steps()
    return call.match.dialplan.steps.get(instead) if instead else None


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
        with suppress(TimeoutError):
            await asyncio.wait_for(call.leg.answered.wait(), seconds)


def _record(call: "Call", action: str) -> None:
    if action == "start":
        call.start_recording()
    elif call.recording is not None and not call.recording.ended:
        call.stop_recording()


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
