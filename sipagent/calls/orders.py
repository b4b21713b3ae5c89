"""What an operator wants of a call that is up. The call leaves what it is at, obeys, and goes on where it was."""

import asyncio
from typing import TYPE_CHECKING, Any

from sipagent.calls import bridging, holding, steps
from sipagent.calls.bridging import Part
from sipagent.calls.holding import Held
from sipagent.calls.leg import Leg
from sipagent.calls.outbound import PlaceRequest, let_go_if_left
from sipagent.calls.transfer import transfer
from sipagent.core import clock
from sipagent.core.errors import NotNow, SipagentError
from sipagent.core.events import Problem
from sipagent.core.ids import TransferId, new_transfer_id
from sipagent.core.termination import Cause, EndedBy
from sipagent.dialplan.model import Instead, TransferSpec

if TYPE_CHECKING:
    from sipagent.calls.call import Call, Order


def hand_over(call: "Call", plan: TransferSpec, on_failure: Instead | None = None) -> TransferId:
    """Starts a transfer; where it fails the caller is back, with an agent who knows why, after what `on_failure` asks
    for. Raises NotNow."""
    transfer_id = new_transfer_id()

    async def work() -> None:
        handed = await transfer(call, plan, transfer_id=transfer_id)
        if handed.failed and on_failure is not None:
            await steps.carry_out(call, on_failure.steps())
        if handed.failed and call.talk is not None:
            call.talk.back(handed.reason)

    call.obey(work)
    return transfer_id


def hold(call: "Call", music: str) -> None:
    """Until `resume`. An agent waits meanwhile; so does, in silence, who is joined with the caller. Raises NotNow."""
    if call.held is not None:
        raise NotNow("the call is on hold already")
    held = Held(music)
    if call.room.joined:
        call.check_up()
        call.beside(holding.hold(call, held), "hold")
    else:
        call.obey(lambda: holding.hold(call, held))


def resume(call: "Call") -> None:
    """Raises NotNow."""
    if call.held is None:
        raise NotNow("the call is not on hold")
    call.held.over.set()


def bridge(one: "Call", other: "Call") -> None:
    """The two callers talk with each other until one of them hangs up; that ends both calls. Raises NotNow."""
    if one is other:
        raise NotNow("a call cannot be joined with itself")
    for call in (one, other):
        call.check_free()
    for call, work in zip((one, other), meeting(one, other), strict=True):
        call.obey(work)


def meeting(one: "Call", other: "Call") -> tuple["Order", "Order"]:
    """What each of two calls does whose callers talk with each other. Where they cannot, both go on as they were."""
    met: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def lead() -> None:
        try:
            async with bridging.open_between(one, other):
                met.set_result(True)
                await _together(one, other)
        except (SipagentError, ValueError) as error:
            for call in (one, other):
                call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="join", what=str(error)))
        finally:
            if not met.done():
                met.set_result(False)

    async def follow() -> None:
        either: set[asyncio.Future[Any]] = {met, one.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if one.ended.done() or met.result():
            await _together(other, one)

    return lead, follow


async def _together(call: "Call", far: "Call") -> None:
    """Until the other call ends, and then neither goes on."""
    call.met = far
    call.progressed()
    try:
        await asyncio.wait([far.ended])
    finally:
        call.met = None
        if call.held is not None:
            call.held.over.set()
    call.hangup(EndedBy.SYSTEM, Cause.NORMAL, "the call it was joined with has ended")


def bring_in(call: "Call", request: PlaceRequest, part: Part) -> None:
    """Rings somebody who listens in, whispers or joins; the call goes on meanwhile. Raises NotNow."""
    call.check_up()

    async def work() -> None:
        try:
            leg = await call.outbound.place(call, request)
            if not leg.is_answered:
                raise NotNow("nobody answered who could be brought into the call")
            with let_go_if_left(call, leg):
                call.room.admit(leg, part)
        except (SipagentError, ValueError) as error:
            call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="bring in", what=str(error)))
            return
        await stays(call, leg)

    call.beside(work(), "bring-in")


async def stays(call: "Call", leg: Leg) -> None:
    """A guest, until it hangs up."""
    call.progressed()
    try:
        await asyncio.wait([leg.ended])
    finally:
        call.room.leave(leg)
        call.progressed()
