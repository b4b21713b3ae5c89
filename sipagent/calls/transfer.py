"""Handing the caller to somebody else, step by step on record."""

from typing import TYPE_CHECKING

from sipagent.calls.leg import Leg, ReferOutcome
from sipagent.core import clock
from sipagent.core.errors import SipagentError
from sipagent.core.events import Problem, TransferChanged
from sipagent.core.ids import new_transfer_id
from sipagent.core.states import TransferKind, TransferState
from sipagent.core.termination import Cause, EndedBy

if TYPE_CHECKING:
    from sipagent.calls.call import Call


class TransferLog:
    """The steps of one transfer, each an event and a row."""

    def __init__(self, call: "Call", kind: TransferKind, target: str) -> None:
        self.kind = kind
        self._call = call
        self._leg = call.leg
        self._target = target
        self._id = new_transfer_id()
        self._step = 0

    def step(self, state: TransferState, status: int = 0, reason: str = "", other: Leg | None = None) -> None:
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


async def transfer(call: "Call", target: str) -> bool:
    """REFER; a success ends the call, a failure lets it go on."""
    try:
        uri = target_uri(call, target)
    except SipagentError as error:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="transfer", what=str(error)))
        return False
    log = TransferLog(call, TransferKind.BLIND, uri)
    log.step(TransferState.REQUESTED)
    outcome = await _refer(call, log, uri)
    if outcome.succeeded:
        call.hangup(EndedBy.AGENT, Cause.TRANSFERRED)
        return True
    call.services.events.emit(
        Problem(at=clock.now(), call_id=call.id, where="transfer", what=f"the transfer failed with {outcome.status}")
    )
    return False


async def _refer(call: "Call", log: TransferLog, uri: str) -> ReferOutcome:
    """REFER and its outcome; also when the call ends meanwhile and this is cancelled."""
    leg = call.leg
    outcome = ReferOutcome()
    try:
        outcome = await leg.refer(
            uri, call.services.limits.transfer_timeout_s, lambda status: log.step(TransferState.ACCEPTED, status)
        )
    finally:
        outcome = leg.refer_outcome or outcome
        if outcome.succeeded:
            log.step(TransferState.COMPLETED, outcome.status)
        elif outcome.told:
            log.step(TransferState.FAILED, outcome.status)
        elif leg.ended.done():  # many hang up as soon as they have reached the target, before they say so
            log.step(TransferState.UNKNOWN)
        else:
            log.step(TransferState.FAILED, 408, "nobody said in time what became of it")
    return outcome


def target_uri(call: "Call", target: str) -> str:
    """A SIP URI as it is; a number at the domain of the peer we are talking to."""
    if target.startswith(("sip:", "sips:", "tel:")):
        return target
    return f"sip:{target}@{call.leg.identity.remote_address}"
