"""A peer that sends us elsewhere: REFER received (RFC 3515), and INVITE with Replaces (RFC 3891).

Whoever may send us somewhere lets us pay for it, so a REFER is followed only to numbers that the trunk's
`follow_refer` names, over that same trunk. Who takes the place of a dialog pays for that call themselves, and must
come from where that dialog is.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sipagent.calls.leg import Leg
from sipagent.calls.music import while_waiting
from sipagent.calls.outbound import PlaceRequest, let_go_if_left, until_answered
from sipagent.calls.transfer import TransferLog
from sipagent.core.errors import NotNow, SipagentError
from sipagent.core.ids import new_transfer_id
from sipagent.core.states import TransferKind, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.sip import message
from sipagent.sip import protocol as sip

if TYPE_CHECKING:
    from sipagent.calls.call import Call

FORBIDDEN, UNAVAILABLE = 603, 503
BYE_EXPECTED_S = 2.0
ACK_EXPECTED_S = 35.0  # the lane gives up after 32
TAKEN_OVER = Termination(disposition=Disposition.ANSWERED, cause=Cause.TRANSFERRED, by=EndedBy.SYSTEM, sip_status=200)


def may_follow(call: "Call", leg: Leg) -> bool:
    """Whether a REFER on this leg is looked at at all."""
    trunk = call.services.trunk(_trunk(call, leg))
    return trunk is not None and bool(trunk.follow_refer)


def asked(call: "Call", leg: Leg, fact: sip.TransferRequested) -> None:
    """Goes where the peer sends us, or tells it why not."""
    trunk = call.services.trunk(_trunk(call, leg))
    number = message.parse_address(fact.target).user
    allowed = trunk is not None and any(fnmatchcase(number, pattern) for pattern in trunk.follow_refer)
    log = TransferLog(call, TransferKind.RECEIVED, fact.target, new_transfer_id())
    log.step(TransferState.REQUESTED)
    if leg not in (call.leg, call.room.other) or not allowed:
        log.step(TransferState.FAILED, FORBIDDEN, "this trunk may not send us there")
        leg.tell_transfer(FORBIDDEN)
        return

    async def work() -> None:
        await _follow(call, leg, log, number, fact)

    try:
        if call.leaving is not None:
            raise NotNow("we are on our way to somebody else already")
        if call.room.joined:
            call.check_up()
            call.beside(work(), "referred")
        else:
            call.obey(work)
    except SipagentError as error:
        log.step(TransferState.FAILED, UNAVAILABLE, str(error))
        leg.tell_transfer(UNAVAILABLE)
    else:
        call.leave(leg)  # from now on, not only when the work begins: its BYE may be here by then


def _trunk(call: "Call", leg: Leg) -> str:
    return leg.identity.trunk or (call.trunk if leg is call.leg else "")


async def _follow(call: "Call", leg: Leg, log: TransferLog, number: str, fact: sip.TransferRequested) -> None:
    headers = {"Replaces": str(fact.replaces)} if fact.replaces is not None else {}
    request = PlaceRequest(
        target=number, trunk=_trunk(call, leg), headers=headers, ours=True, beside=leg.port, role="transfer"
    )
    status = UNAVAILABLE
    try:
        log.step(TransferState.DIALLING)
        async with _waiting(call, leg):
            other = await call.outbound.place(call, request)
        if other.is_answered and not other.ended.done():
            log.step(TransferState.COMPLETED, 200, other=other)
            status = 200
            leg.tell_transfer(200)
            if leg is call.leg:
                take_over(call, other)
            else:
                call.room.enter(other)
            call.beside(_let_go(leg), "let-go")
        else:
            status = other.ended.result().sip_status or UNAVAILABLE
            log.step(TransferState.FAILED, status, other=other)
    except SipagentError as error:
        log.step(TransferState.FAILED, UNAVAILABLE, str(error))
    finally:
        if not log.over:
            log.step(TransferState.ABANDONED)
        if status != 200:
            leg.tell_transfer(status)
        call.stay()


def _waiting(call: "Call", leg: Leg) -> AbstractAsyncContextManager[None]:
    """For a caller whose partner is being replaced."""
    return nullcontext() if leg is call.leg else while_waiting(call, "")


def take_over(call: "Call", leg: Leg) -> Leg:
    """The call goes on with another leg; the one it had before."""
    before = call.leg
    call.speak_on(leg)
    if call.talk is not None:
        call.talk.opening = ""
    return before


async def _let_go(before: Leg) -> None:
    """Whoever sent us on hangs up as soon as it knows how that went (RFC 5589 section 6); if not, we do."""
    try:
        await asyncio.wait([before.ended], timeout=BYE_EXPECTED_S)
    finally:  # also when the call ends first
        before.hangup(TAKEN_OVER)


def replace(call: "Call", leg: Leg) -> None:
    """Somebody takes the place of the call's peer, by an INVITE that names its dialog. Raises NotNow."""
    log = TransferLog(call, TransferKind.RECEIVED, leg.identity.from_number, new_transfer_id())
    log.step(TransferState.REQUESTED, other=leg)

    async def work() -> None:
        try:
            leg.answer()
            with let_go_if_left(call, leg):
                if await until_answered(leg, ACK_EXPECTED_S) != "answered" or leg.ended.done():
                    log.step(TransferState.FAILED, leg.ended.result().sip_status, other=leg)
                    return
            take_over(call, leg).hangup(TAKEN_OVER)
            log.step(TransferState.COMPLETED, 200, other=leg)
        finally:
            if not log.over:
                log.step(TransferState.ABANDONED, other=leg)

    call.obey(work)
