"""Call-detail records: one call with a row for each of its legs."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

import msgspec

from sipagent.core.states import Direction, LegState, TransferKind, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.reports.causes import is_effective, q850_of
from sipagent.store.records import CallRecord, CallStory, LegRecord, QualityRecord, TransferRecord, TurnFacts

# Legs to a human who takes the call, or takes part in it.
HUMAN_ROLES = frozenset({"transfer", "dial", "conference"})
LATENCY_PERCENTILES = (50, 90, 95, 99)


class Charge(msgspec.Struct, kw_only=True, frozen=True):
    """A part of what a call has cost."""

    kind: str  # as `of` in [[prices]]
    leg_id: str  # "" for what belongs to no leg
    units: float
    unit: str
    price: float  # of one unit
    currency: str
    amount: float


class LegDetail(msgspec.Struct, kw_only=True, frozen=True):
    """One leg: our side of one SIP dialog."""

    id: str
    role: str | None
    direction: Direction
    trunk: str
    from_number: str
    to_number: str
    sip_call_id: str
    remote_address: str
    setup_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    billable_s: float  # from answer to end (its own, else the call's), or until now
    disposition: Disposition | None
    cause: Cause | None
    ended_by: EndedBy | None
    sip_status: int | None
    q850: int | None
    q850_by_peer: bool  # told by its Reason header; else it follows from the SIP status (RFC 3398)
    effective: bool  # counts for the network effectiveness ratio
    codec: str | None
    mos_lq: float | None
    mos_cq: float | None
    lost_percent: float | None
    discarded_percent: float | None
    jitter_ms: float | None
    round_trip_ms: float | None
    concealed_ms: int | None


class TransferDetail(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    kind: TransferKind  # as it was done in the end
    target: str
    state: TransferState  # the last one
    sip_status: int
    reason: str


class LatencyDetail(msgspec.Struct, kw_only=True, frozen=True):
    """Of the call's turns, from the caller's last speech packet to the agent's first; nearest rank, in ms."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class CallDetail(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    node: str
    state: LegState
    direction: Direction
    from_number: str
    to_number: str
    trunk: str
    dialplan: str | None
    route: str | None
    agent: str | None
    setup_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    billable_s: float
    disposition: Disposition | None
    cause: Cause | None
    ended_by: EndedBy | None
    sip_status: int | None
    q850: int | None  # of the leg that the call was made by
    detail: str | None
    abandoned: bool
    human: bool  # one has spoken with the caller, or the caller was sent to one
    turns: int  # in which the caller spoke, as far as they are kept
    interrupted: int  # of them, those that the caller cut short
    latency: LatencyDetail | None
    latencies_ms: list[float]  # of each turn, in order
    mos_cq: float | None  # the worst of its legs'
    transfers: list[TransferDetail]
    legs: list[LegDetail]
    charges: list[Charge] = []
    cost: float = 0.0


def call_detail(story: CallStory, now: datetime) -> CallDetail:
    """The record of a call; of one that is up, as far as it is known by `now`."""
    call = story.call
    quality = {record.leg_id: record for record in story.quality}
    legs = [_leg(leg, call, quality.get(leg.id), now) for leg in call.legs]
    turns = [turn for turn in story.turns if turn.caller_spoke]
    latencies = [turn.total_ms for turn in turns if turn.total_ms is not None]
    transfers = [_transfer(list(steps)) for _, steps in groupby(story.transfers, key=lambda step: step.id)]
    human = any(it.state is TransferState.COMPLETED for it in transfers) or any(
        leg.answered_at is not None and leg.role in HUMAN_ROLES for leg in legs
    )
    charges = [
        Charge(
            kind=cost.kind,
            leg_id=cost.leg_id,
            units=cost.units,
            unit=cost.unit,
            price=cost.price,
            currency=cost.currency,
            amount=cost.amount,
        )
        for cost in story.costs
    ]
    return CallDetail(
        id=call.id,
        node=call.node,
        state=call.state,
        direction=call.direction,
        from_number=call.from_number,
        to_number=call.to_number,
        trunk=call.trunk,
        dialplan=call.dialplan,
        route=call.route,
        agent=call.agent or None,
        setup_at=call.setup_at,
        ringing_at=call.ringing_at,
        answered_at=call.answered_at,
        ended_at=call.ended_at,
        billable_s=billable_s(call, now),
        disposition=call.disposition,
        cause=call.cause,
        ended_by=call.ended_by,
        sip_status=call.sip_status,
        q850=next((leg.q850 for leg in reversed(legs) if leg.role in ("caller", "callee", None)), None),
        detail=call.detail,
        abandoned=_abandoned(call, story.turns, human=human),
        human=human,
        turns=len(turns),
        interrupted=sum(turn.interrupted for turn in turns),
        latency=_latency(latencies),
        latencies_ms=latencies,
        mos_cq=min((leg.mos_cq for leg in legs if leg.mos_cq is not None), default=None),
        transfers=transfers,
        legs=legs,
        charges=charges,
        cost=round(sum(charge.amount for charge in charges), 6),
    )


def billable_s(of: CallRecord | LegRecord, now: datetime) -> float:
    """Seconds from answer to end (ITU: conversation time), or until now; 0 for what was not answered."""
    if of.answered_at is None:
        return 0.0
    return max(0.0, ((of.ended_at or now) - of.answered_at).total_seconds())


def nearest_rank(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of all are not above; `values` in order, at least one."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _abandoned(call: CallRecord, turns: Sequence[TurnFacts], *, human: bool) -> bool:
    """An inbound caller has left before anybody served them: unanswered, or without a word to the agent. Where no turn
    has any words (turns go by age, their words on request) it is not known, and nobody is said to have done so."""
    if call.direction is not Direction.INBOUND or call.ended_by is not EndedBy.CALLER or human:
        return False
    if call.answered_at is None:
        return True
    silent = not any(turn.caller_spoke for turn in turns)
    return bool(call.agent) and silent and any(turn.characters for turn in turns)


def _latency(values: list[float]) -> LatencyDetail | None:
    if not values:
        return None
    ordered = sorted(values)
    p50, p90, p95, p99 = (nearest_rank(ordered, percent) for percent in LATENCY_PERCENTILES)
    return LatencyDetail(p50=p50, p90=p90, p95=p95, p99=p99, max=ordered[-1])


def _transfer(steps: list[TransferRecord]) -> TransferDetail:
    last = steps[-1]
    return TransferDetail(
        id=last.id,
        kind=last.kind,
        target=last.target,
        state=last.state,
        sip_status=last.sip_status,
        reason=last.reason,
    )


def _leg(leg: LegRecord, call: CallRecord, quality: QualityRecord | None, now: datetime) -> LegDetail:
    return LegDetail(
        id=leg.id,
        role=leg.role,
        direction=leg.direction,
        trunk=call.trunk if leg.trunk is None else leg.trunk,  # none is told in records of before
        from_number=leg.from_number,
        to_number=leg.to_number,
        sip_call_id=leg.sip_call_id,
        remote_address=leg.remote_address,
        setup_at=leg.setup_at,
        ringing_at=leg.ringing_at,
        answered_at=leg.answered_at,
        ended_at=leg.ended_at,
        billable_s=billable_s(leg, call.ended_at or now),
        disposition=leg.disposition,
        cause=leg.cause,
        ended_by=leg.ended_by,
        sip_status=leg.sip_status,
        q850=q850_of(leg),
        q850_by_peer=leg.q850 is not None,
        effective=is_effective(leg),
        codec=leg.codec,
        mos_lq=quality.mos_lq if quality else None,
        mos_cq=quality.mos_cq if quality else None,
        lost_percent=quality.lost_percent if quality else None,
        discarded_percent=quality.discarded_percent if quality else None,
        jitter_ms=quality.jitter_ms if quality else leg.jitter_ms,
        round_trip_ms=quality.round_trip_ms if quality else None,
        concealed_ms=quality.concealed_ms if quality else leg.concealed_ms,
    )
