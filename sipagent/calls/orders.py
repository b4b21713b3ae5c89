"""What an operator wants of a call that is up. The call leaves what it is at, obeys, and goes on where it was."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sipagent.calls import holding, steps
from sipagent.calls.bridging import Part
from sipagent.calls.outbound import PlaceRequest, let_go_if_left
from sipagent.calls.transfer import transfer
from sipagent.core import clock
from sipagent.core.errors import NotNow, SipagentError
from sipagent.core.events import Problem
from sipagent.core.ids import TransferId, new_transfer_id
from sipagent.core.termination import Cause, EndedBy
from sipagent.dialplan.model import Instead, TransferSpec

if TYPE_CHECKING:
    from sipagent.calls.call import Call


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
    over = asyncio.Event()

    async def work() -> None:
        call.held = over
        call.room.pause()
        try:
            await holding.hold_until(call, over, music)
        finally:
            call.held = None
            call.room.pause(False)

    if call.room.joined:
        call.check_up()
        call.beside(work(), "hold")
    else:
        call.obey(work)


def resume(call: "Call") -> None:
    """Raises NotNow."""
    if call.held is None:
        raise NotNow("the call is not on hold")
    call.held.set()


def bridge(one: "Call", other: "Call") -> None:
    """The two callers talk with each other until one of them hangs up; that ends both calls. Raises NotNow."""
    if one is other:
        raise NotNow("a call cannot be joined with itself")
    for call in (one, other):
        call.check_free()
    try:
        one.leg.port.hear(other.leg.port)
    except ValueError as error:
        raise NotNow("the two calls are in different media processes of this node") from error
    for call, far in ((one, other), (other, one)):
        call.obey(_meeting(call, far))


def _meeting(call: "Call", far: "Call") -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        call.room.enter(far.leg)
        try:
            await asyncio.wait([far.ended])
        finally:
            call.room.leave(far.leg)
        call.hangup(EndedBy.SYSTEM, Cause.NORMAL, "the call it was joined with has ended")

    return work


def bring_in(call: "Call", request: PlaceRequest, part: Part) -> None:
    """Rings somebody who listens in, whispers or joins; the call goes on meanwhile. Raises NotNow."""
    call.check_up()

    async def work() -> None:
        try:
            leg = await call.outbound.place(call, request)
            if not leg.is_answered:
                raise NotNow("nobody answered who could be brought into the call")
            with let_go_if_left(call, leg):
                call.room.enter(leg, part)
        except (SipagentError, ValueError) as error:
            call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="bring in", what=str(error)))
            return
        try:
            await asyncio.wait([leg.ended])
        finally:
            call.room.leave(leg)

    call.beside(work(), "bring-in")
