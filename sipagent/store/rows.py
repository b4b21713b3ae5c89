"""What each event changes in the tables. One event is applied once: the recorder skips what `events` already holds."""

from dataclasses import asdict, fields

from sipagent.core.events import (
    AgentInterrupted,
    AgentSpeaking,
    AudioTrouble,
    CallbackWanted,
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
    Gathered,
    IntentFulfilled,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegHeld,
    LegMuted,
    LegRinging,
    MediaInterrupted,
    MediaSourceChanged,
    PlaybackEnded,
    PlaybackStarted,
    Problem,
    ProcessEnded,
    ProcessStarted,
    PublicAddressChanged,
    RecordingEnded,
    RecordingStarted,
    RegistrationChanged,
    RouteChosen,
    SipMessage,
    SipMessages,
    StreamEnded,
    StreamStarted,
    ToolCalled,
    ToolReturned,
    TransferChanged,
    TrunkChanged,
    TurnEnded,
    TurnLatency,
    WebhookDue,
    as_fields,
)
from sipagent.core.states import LegState, ToolStatus
from sipagent.core.termination import Termination
from sipagent.store import outbox
from sipagent.store.bulk import Row
from sipagent.store.changes import (
    CALLS,
    LEGS,
    QUALITY,
    RECORDINGS,
    SIP_MESSAGES,
    TOOL_CALLS,
    TRANSFERS,
    TURNS,
    WEBHOOKS,
    Changes,
)
from sipagent.store.encoding import call_of, event_data, event_id, leg_of

LIVE_STATES = (LegState.SETUP, LegState.RINGING, LegState.ANSWERED)
_LATENCIES = tuple(field.name for field in fields(TurnLatency))


def event_values(event: Event, seq: int) -> Row:
    """The event's row in `events`, by column."""
    return {
        "id": event_id(event),
        "call_id": call_of(event),
        "leg_id": leg_of(event),
        "type": type(event).__name__,
        "at": event.at.wall,
        "seq": seq,
        "data": event_data(event),
    }


def apply(changes: Changes, event: Event, node: str) -> None:
    """Add what follows from the event to the changes. Raises MissingCall."""
    at = event.at.wall
    match event:
        case CallCreated():
            changes.insert(
                CALLS,
                {
                    "id": event.call_id,
                    "node": node,
                    "direction": event.direction,
                    "from_number": event.from_number,
                    "to_number": event.to_number,
                    "trunk": event.trunk,
                    "voice_app_id": event.voice_app_id or None,
                    "state": LegState.SETUP,
                    "setup_at": at,
                    "properties": {},
                    "account_id": "default",
                    "recorded": False,
                },
            )
        case CallerTold():
            told = {name: value for name, value in event_data(event).items() if value}
            changes.change(CALLS, event.call_id, {"properties": told})
        case RouteChosen():
            route = {"dialplan": event.dialplan, "route": event.route, "agent": event.agent}
            changes.change(CALLS, event.call_id, route)
        case CallEnded():
            changes.change(CALLS, event.call_id, ended(event.termination) | {"ended_at": at}, LIVE_STATES)
        case LegCreated():
            changes.insert(
                LEGS,
                {
                    "id": event.leg_id,
                    "call_id": event.call_id,
                    "direction": event.direction,
                    "state": LegState.SETUP,
                    "from_number": event.from_number,
                    "to_number": event.to_number,
                    "sip_call_id": event.sip_call_id,
                    "remote_address": event.remote_address,
                    "role": event.role or None,
                    "trunk": event.trunk,
                    "parent_leg_id": event.parent_leg_id,
                    "setup_at": at,
                },
            )
        case LegRinging():
            # A call rings and is answered when its first leg does; a later leg (a transfer's) changes neither.
            for table, key in ((CALLS, event.call_id), (LEGS, event.leg_id)):
                changes.change(table, key, {"state": LegState.RINGING, "ringing_at": at}, (LegState.SETUP,))
        case LegAnswered():
            unanswered = (LegState.SETUP, LegState.RINGING)
            answered = {"state": LegState.ANSWERED, "answered_at": at}
            media = {
                "sip_call_id": event.sip_call_id,
                "codec": event.codec,
                "local_media": event.local_media,
                "remote_media": event.remote_media,
            }
            changes.change(CALLS, event.call_id, answered, unanswered)
            changes.change(LEGS, event.leg_id, answered | media, unanswered)
        case LegEnded():
            figures = asdict(event.figures)
            figures["foreign_source"] = figures.pop("foreign")
            end = ended(event.termination) | figures | {"ended_at": at, "q850": event.termination.q850 or None}
            if event.sip_call_id:
                end["sip_call_id"] = event.sip_call_id
            changes.change(LEGS, event.leg_id, end, LIVE_STATES)
        case MediaSourceChanged():
            changes.change(LEGS, event.leg_id, {"remote_media": event.remote_media})
        case TurnEnded():
            changes.insert(TURNS, _turn(event))
        case TransferChanged():
            changes.insert(TRANSFERS, _transfer(event))
        case ToolCalled():
            changes.insert(
                TOOL_CALLS,
                {
                    "id": event.tool_call_id,
                    "call_id": event.call_id,
                    "turn_id": event.turn_id,
                    "name": event.name,
                    "kind": event.kind,
                    "arguments": event.arguments,
                    "status": ToolStatus.RUNNING,
                    "detail": "",
                    "at": at,
                },
            )
        case ToolReturned():
            returned = {"status": event.status, "detail": event.detail, "ms": event.ms}
            changes.change(TOOL_CALLS, event.tool_call_id, returned)
        case WebhookDue():
            changes.insert(WEBHOOKS, outbox.row(event))
        case SipMessages():
            for message in event.messages:
                changes.insert(SIP_MESSAGES, _message(event, message))
        case RecordingStarted():
            recording: Row = {"id": event.recording_id, "call_id": event.call_id, "leg_id": event.leg_id}
            recording |= {"state": "recording", "started_at": at, "detail": ""}
            file: Row = {"channels": event.channels, "rate": event.rate, "file": event.file}
            changes.insert(RECORDINGS, recording | file)
        case RecordingEnded():
            written: Row = {"ended_at": at, "ms": event.ms, "bytes": event.size, "sha256": event.sha256 or None}
            state = {"state": "failed" if event.failed else "done", "detail": event.detail}
            changes.change(RECORDINGS, event.recording_id, written | state)
        case CallQuality():
            changes.insert(QUALITY, as_fields(event) | {"at": at})
        case RegistrationChanged():
            changes.registration(
                {
                    "node": node,
                    "trunk": event.trunk,
                    "state": event.state,
                    "sip_status": event.sip_status,
                    "reason": event.reason,
                    "expires_s": event.expires_s,
                    "next_try_s": event.next_try_s,
                    "changed_at": at,
                }
            )
        case (
            LegHeld()
            | CallResumed()
            | FlowAnswered()
            | CallbackWanted()
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
            | LegMuted()
            | PlaybackStarted()
            | PlaybackEnded()
            | Gathered()
            | Problem()
        ):
            pass  # the row in `events` is all there is to keep
        case _:
            raise TypeError(f"no rows are defined for {type(event).__name__}")


def ended(termination: Termination) -> Row:
    """The columns of a call or a leg that tell how it ended."""
    return {
        "state": LegState.ENDED,
        "disposition": termination.disposition,
        "cause": termination.cause,
        "ended_by": termination.by,
        "sip_status": termination.sip_status,
        "detail": termination.detail,
    }


def _turn(event: TurnEnded) -> Row:
    row: Row = {name: getattr(event.latency, name, None) for name in _LATENCIES}
    return row | {
        "id": event.turn_id,
        "call_id": event.call_id,
        "turn_index": event.index,
        "caller_text": event.caller_text,
        "agent_text": event.agent_text,
        "heard_text": event.heard_text,
        "intent": event.intent,
        "confidence": event.confidence,
        "interrupted": event.interrupted,
        "started_at": event.started_at.wall,
        "agent_started_at": event.agent_started_at.wall if event.agent_started_at else None,
        "ended_at": event.at.wall,
        "details": event_data(event)["details"],
    }


def _transfer(event: TransferChanged) -> Row:
    return {
        "id": event.transfer_id,
        "step": event.step,
        "call_id": event.call_id,
        "leg_id": event.leg_id,
        "other_leg_id": event.other_leg_id,
        "kind": event.kind,
        "target": event.target,
        "state": event.state,
        "sip_status": event.sip_status,
        "reason": event.reason,
        "at": event.at.wall,
    }


def _message(event: SipMessages, message: SipMessage) -> Row:
    return {
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
