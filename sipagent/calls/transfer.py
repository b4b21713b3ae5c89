"""Handing the caller to somebody else, step by step on record.

blind      REFER the caller to the target; where that is refused, or we are to stay in the middle, as attended
attended   ring the target on a leg of ours, tell them who comes, then REFER the caller to them (Replaces, RFC 5589)
bridge     ... or, where that is refused, join the two legs here

Every way ends with the caller at the target, gone, or back with whoever had them, with a sentence that says why.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipagent.calls import bridging
from sipagent.calls.leg import Leg
from sipagent.calls.music import while_waiting
from sipagent.calls.outbound import PlaceRequest, let_go_if_left
from sipagent.calls.requests import ReferOutcome
from sipagent.calls.speaking import tell
from sipagent.core import clock
from sipagent.core.errors import SipagentError
from sipagent.core.events import Problem, TransferChanged
from sipagent.core.ids import TransferId, new_transfer_id
from sipagent.core.states import TransferKind, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.model import TransferSpec
from sipagent.sip import numbers
from sipagent.sip.protocol import Replaces

if TYPE_CHECKING:
    from sipagent.calls.call import Call

_UNREACHABLE = "they cannot be reached at the moment"
_HUNG_UP = "they have hung up"
_REASONS = {
    Disposition.BUSY: "the line is busy",
    Disposition.NO_ANSWER: "nobody answers there",
    Disposition.REJECTED: "they cannot take the call now",
}


# What Asterisk says to a REFER of a call that it has not joined yet, some milliseconds after our answer.
TOO_SOON = (400, 500)
SETTLED_MS = 500.0

REASONS = (*_REASONS.values(), _UNREACHABLE, _HUNG_UP)


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of a transfer."""

    reason: str = ""  # why it failed, for the caller's ears; "" when the caller is with the target, or gone

    @property
    def failed(self) -> bool:
        return self.reason != ""


class TransferLog:
    """The steps of one transfer, each an event and a row."""

    def __init__(self, call: "Call", kind: TransferKind, target: str, transfer_id: TransferId) -> None:
        self.kind = kind
        self.over = False
        self._call = call
        self._leg = call.leg
        self._target = target
        self._id = transfer_id
        self._step = 0

    def step(self, state: TransferState, status: int = 0, reason: str = "", other: Leg | None = None) -> None:
        self.over = state in ENDS
        self._call.services.events.emit(
            TransferChanged(
                at=clock.now(),
                call_id=self._call.id,
                leg_id=self._leg.id,
                transfer_id=self._id,
                step=self._step,
                kind=self.kind,
                target=self._target,
                state=state,
                sip_status=status,
                reason=reason,
                other_leg_id=other.id if other is not None else None,
            )
        )
        self._step += 1


ENDS = (TransferState.COMPLETED, TransferState.FAILED, TransferState.ABANDONED, TransferState.UNKNOWN)


async def transfer(
    call: "Call", plan: TransferSpec, whisper: str = "", summary: str = "", transfer_id: TransferId | None = None
) -> Handed:
    """Carries the plan out. ``whisper`` is more to the point than the plan's; ``summary`` is for want of either."""
    via = plan.via or call.services.transfer_policy(call.trunk)
    if (plan.headers or plan.confirm) and not plan.attended:
        via = "bridge"  # a REFER would leave them behind
    kind = TransferKind.ATTENDED if plan.attended else TransferKind.BRIDGE if via == "bridge" else TransferKind.BLIND
    log = TransferLog(call, kind, plan.target, transfer_id or new_transfer_id())
    log.step(TransferState.REQUESTED)
    told = (whisper or plan.whisper or summary) if plan.attended else ""
    handed: Handed | None = None
    other: Leg | None = None
    try:
        async with while_waiting(call, plan.music):
            if kind is TransferKind.BLIND:
                handed = await _refer_blindly(call, log, plan, may_bridge=via == "auto")
            if handed is None:
                handed, other = await _by_our_leg(call, log, plan, via, told)
        if handed is None and other is not None:
            handed = await _join(call, log, other)
    except SipagentError as error:
        log.step(TransferState.FAILED, reason=str(error))
        handed = Handed(_UNREACHABLE)
    finally:
        if not log.over:  # the call ended meanwhile, and this is cancelled
            log.step(TransferState.ABANDONED)
    assert handed is not None
    if handed.failed and not call.leg.ended.done():
        what = f"a transfer failed: {handed.reason}"
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="transfer", what=what))
    return handed


# --- by REFER -------------------------------------------------------------------------------------------------


async def _refer_blindly(call: "Call", log: TransferLog, plan: TransferSpec, *, may_bridge: bool) -> Handed | None:
    """None when the peer does not take a REFER, and we may go on without."""
    outcome = await _refer(call, log, target_uri(call, plan.target), None, may_bridge=may_bridge)
    if outcome.succeeded:
        call.hangup(EndedBy.AGENT, Cause.TRANSFERRED)
        return Handed()
    if outcome.refused and may_bridge:
        return None
    return Handed(_reason_of_status(outcome.status))


async def _refer(
    call: "Call", log: TransferLog, uri: str, replaces: Replaces | None, *, may_bridge: bool
) -> ReferOutcome:
    """REFER and its outcome on record; also when the call ends meanwhile and this is cancelled."""
    leg = call.leg
    log.step(TransferState.REFERRED)
    outcome = ReferOutcome()

    async def refer() -> ReferOutcome:
        return await leg.requests.refer(
            uri,
            call.services.limits.transfer_timeout_s,
            lambda status: log.step(TransferState.ACCEPTED, status),
            replaces,
        )

    try:
        up_ms = leg.up_ms
        outcome = await refer()
        if outcome.refused and outcome.status in TOO_SOON and up_ms < SETTLED_MS:
            await asyncio.wait([leg.ended], timeout=(SETTLED_MS - up_ms) / 1000)
            if not leg.ended.done():
                outcome = await refer()
    finally:
        outcome = leg.requests.refer_outcome
        if outcome.succeeded:
            log.step(TransferState.COMPLETED, outcome.status)
        elif outcome.refused and may_bridge and not leg.ended.done():
            log.step(TransferState.REFUSED, outcome.status)
        elif outcome.told and outcome.status >= 300:
            log.step(TransferState.FAILED, outcome.status, _reason_of_status(outcome.status))
        elif outcome.told and not outcome.status:
            log.step(TransferState.FAILED, reason="the REFER could not be sent")
        elif leg.ended.done():  # many hang up as soon as they have reached the target, before they say so
            log.step(TransferState.UNKNOWN)
        else:
            log.step(TransferState.FAILED, 408, "nobody said in time what became of it")
    return outcome


# --- by a leg of ours -----------------------------------------------------------------------------------------


async def _by_our_leg(
    call: "Call", log: TransferLog, plan: TransferSpec, via: str, whisper: str
) -> tuple[Handed | None, Leg]:
    """Rings the target and tells them who comes. None: they are to be joined with the caller."""
    request = PlaceRequest(
        target=_dialled(call, plan),
        trunk=plan.trunk or (call.trunk if _is_number(plan.target) else ""),
        from_number=call.shown(plan.show),
        ring_timeout_s=plan.timeout_s,
        headers=plan.headers,
        beside=call.leg.port,
        role="transfer",
    )
    log.step(TransferState.DIALLING)
    other = await call.outbound.place(call, request)
    if not other.is_answered or other.ended.done():
        return _not_reached(log, other), other
    with let_go_if_left(call, other):
        return await _consult(call, log, plan, via, whisper, other), other


async def _join(call: "Call", log: TransferLog, other: Leg) -> Handed:
    """The two legs, until one of them is hung up: that ends the call."""
    log.kind = TransferKind.BRIDGE
    log.step(TransferState.COMPLETED, 200, other=other)
    other = await bridging.joined(call, other)
    if other.ended.done():
        end = other.ended.result()
        call.hangup(end.by, end.cause, end.detail)
    return Handed()


async def _consult(
    call: "Call", log: TransferLog, plan: TransferSpec, via: str, whisper: str, other: Leg
) -> Handed | None:
    """Tells the target who comes, and where it may be by REFER, sends the caller there. None: they are to be joined."""
    log.step(TransferState.CONSULTING, 200, other=other)
    if whisper or plan.confirm:
        await tell(call, other, whisper, plan.confirm)
        if not other.ended.done():
            log.step(TransferState.WHISPERED, other=other)
    if other.ended.done():
        return _not_reached(log, other)
    if not plan.attended or via == "bridge":
        return None
    outcome = await _refer(call, log, other.remote_uri, other.dialog, may_bridge=via == "auto")
    if outcome.succeeded:
        call.hangup(EndedBy.AGENT, Cause.TRANSFERRED)
        return Handed()
    if outcome.refused and via == "auto" and not other.ended.done():
        return None
    other.hangup(_let_go())
    if not log.over:
        log.step(TransferState.FAILED, outcome.status, _UNREACHABLE, other)
    return Handed(_reason_of_status(outcome.status))


def _not_reached(log: TransferLog, other: Leg) -> Handed:
    end = other.ended.result()
    reason = _REASONS.get(end.disposition, _UNREACHABLE)
    if end.disposition is Disposition.ANSWERED:
        reason = _HUNG_UP
    log.step(TransferState.FAILED, end.sip_status, reason, other)
    return Handed(reason)


def _let_go() -> Termination:
    return Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.AGENT, sip_status=200)


def _reason_of_status(status: int) -> str:
    """Why a REFER failed, by the last status that the peer told."""
    match status:
        case 486 | 600:
            return _REASONS[Disposition.BUSY]
        case 408 | 480 | 487:
            return _REASONS[Disposition.NO_ANSWER]
        case 603:
            return _REASONS[Disposition.REJECTED]
    return _UNREACHABLE


# --- where to -------------------------------------------------------------------------------------------------


def target_uri(call: "Call", target: str) -> str:
    """For a REFER: a URI as it is; a number as the caller's trunk has it, or without one where the caller is."""
    if target.startswith(("sip:", "sips:", "tel:")):
        return target
    trunk = call.services.trunk(call.trunk)
    if trunk is not None and trunk.outbound_host:
        return trunk.target_uri(numbers.for_trunk(target, trunk))
    return f"sip:{target}@{call.leg.identity.remote_address}"


def _is_number(target: str) -> bool:
    return not target.startswith(("sip:", "sips:"))


def _dialled(call: "Call", plan: TransferSpec) -> str:
    """For a leg of ours: a number goes by a trunk, or without any to where the caller is."""
    if not _is_number(plan.target):
        return plan.target
    number = plan.target.removeprefix("tel:").partition(";")[0]
    return number if call.services.trunks.settings else target_uri(call, number)
