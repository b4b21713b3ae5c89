"""What each event changes in the tables. One event is applied once: the recorder skips what `events` already holds."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.orm import Session

from sipagent.core.clock import Stamp
from sipagent.core.events import (
    AgentInterrupted,
    AgentSpeaking,
    AudioTrouble,
    CallCreated,
    CalleeDetected,
    CallEnded,
    CallerSaid,
    CallerTold,
    CallQuality,
    CallRefused,
    CallResumed,
    DigitReceived,
    Event,
    FlowAnswered,
    IntentFulfilled,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegHeld,
    LegRinging,
    MediaInterrupted,
    MediaSourceChanged,
    Problem,
    ProcessEnded,
    ProcessStarted,
    PublicAddressChanged,
    RegistrationChanged,
    RouteChosen,
    SipMessages,
    StreamEnded,
    StreamStarted,
    ToolCalled,
    ToolReturned,
    TransferChanged,
    TrunkChanged,
    TurnEnded,
    as_fields,
)
from sipagent.core.ids import CallId
from sipagent.core.states import LegState, ToolStatus
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.store.encoding import call_of, event_data, event_id, leg_of
from sipagent.store.models import Call, EventRow, Leg, Quality, Registration, SipMessageRow, ToolCallRow, Transfer, Turn

LIVE_STATES = (LegState.SETUP, LegState.RINGING, LegState.ANSWERED)


# Tables, not mapped classes, where statements are made: a third of the time per event (measured, 200 to a batch).
CALLS = cast(Table, Call.__table__)
LEGS = cast(Table, Leg.__table__)
EVENTS = cast(Table, EventRow.__table__)
SIP_MESSAGES = cast(Table, SipMessageRow.__table__)
TOOL_CALLS = cast(Table, ToolCallRow.__table__)


def event_values(event: Event, seq: int) -> dict[str, Any]:
    """The event's row in `events`, by column."""
    data = event_data(event)
    return {
        "id": event_id(event, data),
        "call_id": call_of(event),
        "leg_id": leg_of(event),
        "type": type(event).__name__,
        "at": event.at.wall,
        "seq": seq,
        "data": data,
    }


def apply(session: Session, event: Event, node: str) -> None:
    """Make the event's changes to the other tables.

    New rows are written at the session's next flush, at the latest at its commit, which raises IntegrityError when the
    call they belong to is missing.
    """
    at = event.at.wall
    match event:
        case CallCreated():
            session.add(
                Call(
                    id=event.call_id,
                    node=node,
                    direction=event.direction,
                    from_number=event.from_number,
                    to_number=event.to_number,
                    trunk=event.trunk,
                    voice_app_id=event.voice_app_id or None,
                    state=LegState.SETUP,
                    setup_at=at,
                    properties={},
                )
            )
            session.flush()  # legs and turns refer to it, and the unit of work knows nothing of that
        case CallerTold():
            told = {name: value for name, value in event_data(event).items() if value}
            _change(session, CALLS, event.call_id, {"properties": told})
        case RouteChosen():
            route = {"dialplan": event.dialplan, "route": event.route, "agent": event.agent}
            _change(session, CALLS, event.call_id, route)
        case CallEnded():
            _change(session, CALLS, event.call_id, _ended(event.termination) | {"ended_at": at}, LIVE_STATES)
        case LegCreated():
            session.add(
                Leg(
                    id=event.leg_id,
                    call_id=event.call_id,
                    direction=event.direction,
                    state=LegState.SETUP,
                    from_number=event.from_number,
                    to_number=event.to_number,
                    sip_call_id=event.sip_call_id,
                    remote_address=event.remote_address,
                    role=event.role or None,
                    trunk=event.trunk,
                    parent_leg_id=event.parent_leg_id,
                    setup_at=at,
                )
            )
        case LegRinging():
            # A call rings and is answered when its first leg does; a later leg (a transfer's) changes neither.
            for table, key in ((CALLS, event.call_id), (LEGS, event.leg_id)):
                _change(session, table, key, {"state": LegState.RINGING, "ringing_at": at}, (LegState.SETUP,))
        case LegAnswered():
            unanswered = (LegState.SETUP, LegState.RINGING)
            answered = {"state": LegState.ANSWERED, "answered_at": at}
            media = {
                "sip_call_id": event.sip_call_id,
                "codec": event.codec,
                "local_media": event.local_media,
                "remote_media": event.remote_media,
            }
            _change(session, CALLS, event.call_id, answered, unanswered)
            _change(session, LEGS, event.leg_id, answered | media, unanswered)
        case LegEnded():
            figures = asdict(event.figures)
            figures["foreign_source"] = figures.pop("foreign")
            ended = _ended(event.termination) | figures | {"ended_at": at, "q850": event.termination.q850 or None}
            if event.sip_call_id:
                ended["sip_call_id"] = event.sip_call_id
            _change(session, LEGS, event.leg_id, ended, LIVE_STATES)
        case MediaSourceChanged():
            _change(session, LEGS, event.leg_id, {"remote_media": event.remote_media})
        case TurnEnded():
            session.add(_turn(event))
        case TransferChanged():
            session.add(_transfer(event))
        case ToolCalled():
            session.add(
                ToolCallRow(
                    id=event.tool_call_id,
                    call_id=event.call_id,
                    turn_id=event.turn_id,
                    name=event.name,
                    kind=event.kind,
                    arguments=event.arguments,
                    status=ToolStatus.RUNNING,
                    detail="",
                    at=at,
                )
            )
        case ToolReturned():
            returned = {"status": event.status, "detail": event.detail, "ms": event.ms}
            _change(session, TOOL_CALLS, event.tool_call_id, returned)
        case SipMessages():
            _keep_messages(session, event)
        case CallQuality():
            session.add(Quality(**as_fields(event) | {"at": at}))
        case RegistrationChanged():
            session.merge(
                Registration(
                    node=node,
                    trunk=event.trunk,
                    state=event.state,
                    sip_status=event.sip_status,
                    reason=event.reason,
                    expires_s=event.expires_s,
                    next_try_s=event.next_try_s,
                    changed_at=at,
                )
            )
        case (
            LegHeld()
            | CallResumed()
            | FlowAnswered()
            | IntentFulfilled()
            | CalleeDetected()
            | StreamStarted()
            | StreamEnded()
            | CallRefused()
            | CallerSaid()
            | AgentSpeaking()
            | AgentInterrupted()
            | DigitReceived()
            | TrunkChanged()
            | ProcessStarted()
            | ProcessEnded()
            | PublicAddressChanged()
            | MediaInterrupted()
            | AudioTrouble()
            | Problem()
        ):
            pass  # the row in `events` is all there is to keep
        case _:
            raise TypeError(f"no rows are defined for {type(event).__name__}")


def _change(
    session: Session, table: Table, key: str, values: dict[str, Any], states: Sequence[LegState] | None = None
) -> None:
    """Set the columns of one row, unless its state is none of `states`."""
    if session.new:
        session.flush()  # statements on tables do not see what the session has yet to write
    statement = update(table).where(table.c.id == key)
    if states is not None:
        statement = statement.where(table.c.state.in_(states))
    session.execute(statement.values(values))


def _ended(termination: Termination) -> dict[str, Any]:
    return {
        "state": LegState.ENDED,
        "disposition": termination.disposition,
        "cause": termination.cause,
        "ended_by": termination.by,
        "sip_status": termination.sip_status,
        "detail": termination.detail,
    }


def _turn(event: TurnEnded) -> Turn:
    return Turn(
        id=event.turn_id,
        call_id=event.call_id,
        turn_index=event.index,
        caller_text=event.caller_text,
        agent_text=event.agent_text,
        heard_text=event.heard_text,
        intent=event.intent,
        confidence=event.confidence,
        interrupted=event.interrupted,
        started_at=event.started_at.wall,
        agent_started_at=event.agent_started_at.wall if event.agent_started_at else None,
        ended_at=event.at.wall,
        details=event_data(event)["details"],
        **(asdict(event.latency) if event.latency else {}),
    )


def _transfer(event: TransferChanged) -> Transfer:
    return Transfer(
        id=event.transfer_id,
        step=event.step,
        call_id=event.call_id,
        leg_id=event.leg_id,
        other_leg_id=event.other_leg_id,
        kind=event.kind,
        target=event.target,
        state=event.state,
        sip_status=event.sip_status,
        reason=event.reason,
        at=event.at.wall,
    )


def _keep_messages(session: Session, event: SipMessages) -> None:
    if not event.messages:
        return
    if session.new:
        session.flush()  # the call's row
    session.execute(
        insert(SIP_MESSAGES),
        [
            {
                "call_id": event.call_id,
                "dialog": event.dialog,
                "seq": message.seq,
                "leg_id": event.leg_id or None,
                "at": message.at.wall,
                "sent": message.sent,
                "transport": message.transport,
                "local_address": message.local,
                "remote_address": message.remote,
                "size": message.size,
                "repeats": message.repeats,
                "text": message.text,
            }
            for message in event.messages
        ],
    )


def close_orphans(session: Session, now: Stamp, node: str = "", but: frozenset[str] = frozenset()) -> int:
    """End the calls this node left open when it crashed, `but` those that go on; returns how many.

    A call's end is its last recorded sign of life, not `now`: a night without power is not billed. The event that
    tells of it stands at `now`, when it was found out.
    """
    live = session.scalars(select(Call).where(Call.state.in_(LIVE_STATES), Call.node == node)).all()
    orphans = [call for call in live if call.id not in but]
    for call in orphans:
        last_seen = session.scalar(select(func.max(EventRow.at)).where(EventRow.call_id == call.id)) or call.setup_at
        disposition = Disposition.ANSWERED if call.answered_at else Disposition.FAILED
        termination = Termination(disposition=disposition, cause=Cause.NODE_CRASHED, by=EndedBy.SYSTEM)
        last_seq = session.scalar(select(func.max(EventRow.seq)).where(EventRow.call_id == call.id)) or 0
        for leg in session.scalars(select(Leg).where(Leg.call_id == call.id, Leg.state != LegState.ENDED)).all():
            leg_end = Disposition.ANSWERED if leg.answered_at else Disposition.FAILED
            _assign(leg, _ended(termination) | {"disposition": leg_end, "ended_at": last_seen})
        _assign(call, _ended(termination) | {"ended_at": last_seen})
        found_out = CallEnded(call_id=CallId(call.id), at=now, termination=termination)
        session.execute(insert(EVENTS), [event_values(found_out, last_seq + 1)])
    session.flush()
    return len(orphans)


def forget_registrations(session: Session, node: str = "") -> None:
    """Drop the states that an earlier run of this node left: they are not the present any more."""
    session.execute(delete(Registration).where(Registration.node == node))


def _assign(row: Call | Leg, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)
