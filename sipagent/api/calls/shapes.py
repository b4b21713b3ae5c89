"""From records to what goes over the wire."""

from collections.abc import Iterable

from sipagent.api.calls.backend import LiveCall
from sipagent.api.calls.types import (
    CallOut,
    CallRecordOut,
    CallsPage,
    FiguresOut,
    LatencyOut,
    LegOut,
    LegsPage,
    LiveCallOut,
    ToolCallOut,
    TransferOut,
    TurnOut,
)
from sipagent.api.events.types import EventOut
from sipagent.api.shapes import same_names
from sipagent.api.shared import ACCOUNT
from sipagent.core.states import Direction
from sipagent.store.records import CallPage, CallRecord, FullCall, LegRecord, TurnRecord


def call_out(call: CallRecord) -> CallOut:
    return CallOut(
        id=call.id,
        account_id=ACCOUNT,
        voice_app_id=call.voice_app_id,
        state=call.state,
        direction=call.direction,
        from_number=call.from_number,
        to_number=call.to_number,
        properties=call.properties,
        created_at=call.setup_at,
        answered_at=call.answered_at,
        ended_at=call.ended_at,
        reason=call.cause,
        legs=[leg_out(leg) for leg in call.legs],
        ringing_at=call.ringing_at,
        disposition=call.disposition,
        ended_by=call.ended_by,
        sip_status=call.sip_status,
        trunk=call.trunk,
        dialplan=call.dialplan,
        route=call.route,
        agent=call.agent,
    )


def fresh_call_out(call: LiveCall) -> CallOut:
    """A call that is up and has not reached the database yet."""
    return CallOut(
        id=call.call_id,
        account_id=ACCOUNT,
        voice_app_id=None,
        state=call.state,
        direction=call.direction,
        from_number=call.from_number,
        to_number=call.to_number,
        properties={},
        created_at=call.started_at,
        answered_at=call.answered_at,
        ended_at=None,
        reason=None,
        legs=[],
        ringing_at=None,
        disposition=None,
        ended_by=None,
        sip_status=None,
        trunk="",
        dialplan=None,
        route=None,
        agent=call.agent or None,
    )


def leg_out(leg: LegRecord) -> LegOut:
    return LegOut(
        id=leg.id,
        call_session_id=leg.call_id,
        direction=leg.direction,
        role="caller" if leg.direction is Direction.INBOUND else "callee",
        state=leg.state,
        from_number=leg.from_number,
        to_number=leg.to_number,
        parent_leg_id=leg.parent_leg_id,
        recordings=leg.recordings,
        created_at=leg.setup_at,
        answered_at=leg.answered_at,
        ended_at=leg.ended_at,
        reason=leg.cause,
        ended_by=leg.ended_by,
        ringing_at=leg.ringing_at,
        disposition=leg.disposition,
        sip_status=leg.sip_status,
        q850=leg.q850,
        sip_call_id=leg.sip_call_id,
        remote_address=leg.remote_address,
        codec=leg.codec,
        local_media=leg.local_media,
        remote_media=leg.remote_media,
        # a leg closed after a crash has ended without anybody to count
        figures=None if leg.packets_in is None else same_names(leg, FiguresOut),
    )


def calls_page(page: CallPage) -> CallsPage:
    return CallsPage(
        data=[call_out(call) for call in page.calls],
        next_cursor=page.next_cursor,
        previous_cursor=page.previous_cursor,
        has_more=page.has_more,
    )


def legs_page(legs: Iterable[LegRecord]) -> LegsPage:
    return LegsPage(data=[leg_out(leg) for leg in legs])


def record_out(full: FullCall) -> CallRecordOut:
    return CallRecordOut(
        call=call_out(full.call),
        turns=[turn_out(turn) for turn in full.turns],
        transfers=[same_names(transfer, TransferOut) for transfer in full.transfers],
        tool_calls=[same_names(tool_call, ToolCallOut) for tool_call in full.tool_calls],
        events=[same_names(event, EventOut) for event in full.events],
    )


def turn_out(turn: TurnRecord) -> TurnOut:
    return TurnOut(
        id=turn.id,
        index=turn.turn_index,
        caller_text=turn.caller_text,
        agent_text=turn.agent_text,
        heard_text=turn.heard_text,
        intent=turn.intent,
        confidence=turn.confidence,
        interrupted=turn.interrupted,
        started_at=turn.started_at,
        agent_started_at=turn.agent_started_at,
        ended_at=turn.ended_at,
        latency=None if turn.total_ms is None else same_names(turn, LatencyOut),
        details=turn.details,
    )


def live_call_out(call: LiveCall) -> LiveCallOut:
    return LiveCallOut(
        id=call.call_id,
        state=call.state,
        direction=call.direction,
        from_number=call.from_number,
        to_number=call.to_number,
        created_at=call.started_at,
        answered_at=call.answered_at,
        agent=call.agent,
    )
