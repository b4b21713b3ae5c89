"""The dial step: rings somebody and joins them with the caller."""

import asyncio
from typing import TYPE_CHECKING

from sipagent.calls import bridging
from sipagent.calls.leg import Leg
from sipagent.calls.music import SILENCE, while_waiting
from sipagent.calls.outbound import PlaceRequest, let_go_if_left
from sipagent.calls.speaking import tell
from sipagent.core import clock
from sipagent.core.errors import SipagentError
from sipagent.core.events import Problem
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.model import DialStep

if TYPE_CHECKING:
    from sipagent.calls.call import Call


async def dial(call: "Call", step: DialStep) -> str:
    """The name of the steps to take instead of the next one; "" for the next one, after the talk."""
    waits_unanswered = not call.leg.is_answered and call.leg.identity.direction is Direction.INBOUND
    if waits_unanswered:
        call.leg.ring()
    async with while_waiting(call, SILENCE if waits_unanswered else step.music):
        other, failed = await _reach(call, step)
        if other is not None and step.whisper:
            with let_go_if_left(call, other):
                await tell(call, other, step.whisper)
    if other is None or other.ended.done():
        return _instead(step, failed)
    if waits_unanswered:
        call.leg.answer()
        await call.leg.answered.wait()
        call.answered_at = call.answered_at or clock.now()
    await bridging.joined(call, other)
    return ""


async def _reach(call: "Call", step: DialStep) -> tuple[Leg | None, Disposition]:
    """The leg of whoever answered; or how it went with the last one."""
    requests = [
        PlaceRequest(
            target=target,
            trunk=step.trunk,
            from_number=call.shown(step.show),
            ring_timeout_s=step.timeout_s,
            beside=call.leg.port,
        )
        for target in step.targets
    ]
    failed = Disposition.FAILED
    if step.at_once:
        return await _all_at_once(call, requests)
    for request in requests:
        leg = await _one(call, request)
        if leg is not None and leg.is_answered:
            return leg, failed
        if leg is not None:
            failed = leg.ended.result().disposition
    return None, failed


async def _one(call: "Call", request: PlaceRequest) -> Leg | None:
    """None when there is not even a leg."""
    try:
        return await call.outbound.place(call, request)
    except SipagentError as error:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="dial", what=str(error)))
        return None


async def _all_at_once(call: "Call", requests: list[PlaceRequest]) -> tuple[Leg | None, Disposition]:
    """The first to answer gets the call; the others stop ringing."""
    failed = Disposition.FAILED
    winner: Leg | None = None
    ringing = {asyncio.create_task(_one(call, request), name=f"{call.id}/dial") for request in requests}
    try:
        while ringing and winner is None:
            done, ringing = await asyncio.wait(ringing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                leg = task.result()
                if leg is None:
                    continue
                if not leg.is_answered:
                    failed = leg.ended.result().disposition
                elif winner is None:
                    winner = leg
    finally:
        for task in ringing:
            task.cancel()
        if ringing:
            await asyncio.wait(ringing)
        for leg in call.legs:
            if leg is not call.leg and leg is not winner:
                leg.hangup(_elsewhere(leg))
    return winner, failed


def _elsewhere(leg: Leg) -> Termination:
    """Somebody else has answered first."""
    disposition = Disposition.ANSWERED if leg.is_answered else Disposition.CANCELLED
    return Termination(disposition=disposition, cause=Cause.CANCELLED, by=EndedBy.SYSTEM, sip_status=487)


def _instead(step: DialStep, failed: Disposition) -> str:
    match failed:
        case Disposition.BUSY:
            return step.on_busy or step.on_failure
        case Disposition.NO_ANSWER:
            return step.on_no_answer or step.on_failure
    return step.on_failure
