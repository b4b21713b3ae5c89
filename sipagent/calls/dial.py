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
from sipagent.core.events import CallbackWanted, Problem
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.model import DialStep, Instead

if TYPE_CHECKING:
    from sipagent.calls.call import Call


NOT_EVEN_A_LEG = Termination(
    disposition=Disposition.FAILED,
    cause=Cause.ERROR,
    by=EndedBy.SYSTEM,
    sip_status=503,
    detail="nobody could be dialled",
)


async def dial(call: "Call", step: DialStep) -> str | Instead:
    """What to do instead of the next step; "" for the next one, after the talk."""
    if step.status_callback_url:
        wanted = CallbackWanted(at=clock.now(), call_id=call.id, url=step.status_callback_url, later=True)
        call.services.events.emit(wanted)
    waits_unanswered = not call.leg.is_answered and call.leg.identity.direction is Direction.INBOUND
    if waits_unanswered:
        call.leg.ring()
    async with while_waiting(call, SILENCE if waits_unanswered else step.music):
        other, failed = await _reach(call, step)
        if other is not None and (step.whisper or step.confirm):
            with let_go_if_left(call, other):
                await tell(call, other, step.whisper, step.confirm)
    if other is None or other.ended.done():
        call.not_reached = failed
        return _instead(step, failed.disposition)
    if waits_unanswered:
        call.leg.answer()
        await call.leg.answered.wait()
        call.answered_at = call.answered_at or clock.now()
    if step.record:
        call.start_recording()
    await bridging.joined(call, other)
    return ""


async def _reach(call: "Call", step: DialStep) -> tuple[Leg | None, Termination]:
    """The leg of whoever answered; and how it went with the last one who did not."""
    requests = [
        PlaceRequest(
            target=target,
            trunk=step.trunk,
            from_number=call.shown(step.show),
            ring_timeout_s=step.timeout_s,
            headers=step.headers,
            beside=call.leg.port,
            role="dial",
        )
        for target in step.targets
    ]
    failed = NOT_EVEN_A_LEG
    if step.at_once:
        return await _all_at_once(call, requests)
    for request in requests:
        leg = await _one(call, request)
        if leg is not None and leg.is_answered:
            return leg, failed
        if leg is not None:
            failed = leg.ended.result()
    return None, failed


async def _one(call: "Call", request: PlaceRequest) -> Leg | None:
    """None when there is not even a leg."""
    try:
        return await call.outbound.place(call, request)
    except SipagentError as error:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="dial", what=str(error)))
        return None


async def _all_at_once(call: "Call", requests: list[PlaceRequest]) -> tuple[Leg | None, Termination]:
    """The first to answer gets the call; the others stop ringing."""
    failed = NOT_EVEN_A_LEG
    winner: Leg | None = None
    ringing = {asyncio.create_task(_one(call, request), name=f"{call.id}/dial") for request in requests}
    try:
        while ringing and winner is None:
            done, ringing = await asyncio.wait(ringing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                leg = task.result()
                if leg is not None and not leg.is_answered:
                    failed = leg.ended.result()
                elif leg is not None and winner is None:
                    winner = leg
                elif leg is not None:
                    leg.hangup(_elsewhere())
    finally:
        for task in ringing:
            task.cancel()  # which ends its leg
        if ringing:
            late, _ = await asyncio.wait(ringing)
            for leg in (task.result() for task in late if not task.cancelled() and task.exception() is None):
                if leg is not None:
                    leg.hangup(_elsewhere())
    return winner, failed


def _elsewhere() -> Termination:
    """Of one who answered a moment after somebody else."""
    return Termination(
        disposition=Disposition.ANSWERED, cause=Cause.CANCELLED, by=EndedBy.SYSTEM, detail="somebody else was first"
    )


def _instead(step: DialStep, failed: Disposition) -> str | Instead:
    match failed:
        case Disposition.BUSY:
            return step.on_busy or step.on_failure
        case Disposition.NO_ANSWER:
            return step.on_no_answer or step.on_failure
    return step.on_failure
