"""Calls and what is recorded of them, in Teler's shape where Teler has it.

In `CallOut` and `LegOut` the fields down to the comment are those of the Teler SDK 1.0.0
(`teler.resources.voice.types`).
"""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from sipagent.api.events.types import EventOut
from sipagent.api.types import Cursor, Dialled, DialledOrNone, Instant, Name, Request, Response, Short
from sipagent.core.states import (
    Direction,
    LegState,
    ToolStatus,
    TransferKind,
    TransferState,
)
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.store.records import MAX_PAGE


class CreateCall(Request, kw_only=True, frozen=True):
    """A call to place. What happens on it comes from `dialplan`, the way out from `trunk`; "" is the node's own."""

    to_number: Dialled  # a number of the trunk, or a SIP URI
    from_number: DialledOrNone = ""
    dialplan: Name = ""
    trunk: Name = ""
    timeout_s: Annotated[int, Meta(ge=1, le=600)] | None = (
        None  # of ringing; null is the node's [limits] ring_timeout_s
    )
    flow_url: Annotated[str, Meta(max_length=2048)] = ""  # asked what to do; "dialplan:NAME" is the same as `dialplan`
    status_callback_url: Annotated[str, Meta(max_length=2048)] = ""  # is told how the call goes (docs/webhooks.md)
    record: bool = False  # both sides, from the answer on
    withhold: bool = False  # keep the calling number from the callee
    # Of the INVITE; the trunk's `headers_out` says which may leave.
    custom_headers: Annotated[dict[str, str], Meta(max_length=16)] = {}


class ListCalls(Request, kw_only=True, frozen=True):
    """Newest first. At most one of the cursors."""

    state: LegState | None = None
    from_number: Short | None = None
    to_number: Short | None = None
    created_after: datetime | None = None  # inclusive; without a zone it is UTC
    created_before: datetime | None = None  # exclusive
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None
    cursor_before: Cursor | None = None


class FiguresOut(Response, kw_only=True, frozen=True):
    """Counters of one leg's RTP: packets unless named otherwise."""

    packets_in: int | None
    packets_out: int | None
    lost: int | None
    late: int | None
    duplicate: int | None
    reordered: int | None
    malformed: int | None
    foreign: int | None
    concealed_ms: int | None
    dropped_ms: int | None
    jitter_ms: float | None
    digits_in: int | None


class LegOut(Response, kw_only=True, frozen=True):
    id: str
    call_session_id: str
    direction: Direction
    role: str  # who the other side of the leg is: "caller" or "callee"
    state: LegState
    from_number: str
    to_number: str
    parent_leg_id: str | None
    recordings: list[str]
    created_at: Instant
    answered_at: Instant | None
    ended_at: Instant | None
    reason: Cause | None
    ended_by: EndedBy | None
    # ours
    ringing_at: Instant | None
    disposition: Disposition | None
    sip_status: int | None
    q850: int | None  # by the peer's Reason header
    sip_call_id: str
    remote_address: str
    codec: str | None
    local_media: str | None
    remote_media: str | None
    figures: FiguresOut | None  # null until the leg has ended


class CallOut(Response, kw_only=True, frozen=True):
    id: str
    account_id: str
    voice_app_id: str | None
    state: LegState
    direction: Direction
    from_number: str
    to_number: str
    properties: dict[str, Any]
    created_at: Instant
    answered_at: Instant | None
    ended_at: Instant | None
    reason: Cause | None
    legs: list[LegOut]
    # ours
    ringing_at: Instant | None
    disposition: Disposition | None
    ended_by: EndedBy | None
    sip_status: int | None
    trunk: str
    dialplan: str | None
    route: str | None
    agent: str | None


class CallsPage(Response, kw_only=True, frozen=True):
    data: list[CallOut]
    next_cursor: str | None  # for `cursor_after`
    previous_cursor: str | None  # for `cursor_before`
    has_more: bool


class LegsPage(Response, kw_only=True, frozen=True):
    """All legs of one call; there is never a second page."""

    data: list[LegOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class CallStarted(Response, kw_only=True, frozen=True):
    id: str
    from_number: str
    to_number: str
    status_callback_url: str | None
    record: bool


class LatencyOut(Response, kw_only=True, frozen=True):
    """From the caller's last speech packet to the agent's first, in ms; the parts add up to the total."""

    jitter_buffer_ms: float | None
    endpointing_ms: float | None
    stt_ms: float | None
    llm_ms: float | None
    clause_ms: float | None
    tts_ms: float | None
    playout_ms: float | None
    pacing_ms: float | None
    total_ms: float | None


class TurnOut(Response, kw_only=True, frozen=True):
    id: str
    index: int
    caller_text: str
    agent_text: str
    heard_text: str
    intent: str
    confidence: float | None
    interrupted: bool
    started_at: Instant
    agent_started_at: Instant | None
    ended_at: Instant
    latency: LatencyOut | None
    details: dict[str, Any]  # how the turn came about, each feature under its own key


class TransferOut(Response, kw_only=True, frozen=True):
    """One step of a transfer; those of one transfer have the same id."""

    id: str
    step: int
    leg_id: str  # of whoever is transferred
    other_leg_id: str | None  # to whoever takes over
    kind: TransferKind
    target: str
    state: TransferState
    sip_status: int
    reason: str
    at: Instant


class ToolCallOut(Response, kw_only=True, frozen=True):
    """What the agent had done by a tool."""

    id: str
    turn_id: str | None
    name: str
    kind: str
    arguments: str  # JSON as the model wrote it
    status: ToolStatus
    detail: str
    ms: float | None  # null while it runs
    at: Instant


class CallRecordOut(Response, kw_only=True, frozen=True):
    """Everything that is recorded of one call."""

    call: CallOut
    turns: list[TurnOut]
    transfers: list[TransferOut]
    tool_calls: list[ToolCallOut]
    events: list[EventOut]


class SipMessageOut(Response, kw_only=True, frozen=True):
    """One SIP message as this node saw it: passwords' digests, SRTP keys and pressed keys are masked by x."""

    leg_id: str | None
    dialog: int  # which of the call's SIP dialogs; one for each leg
    seq: int  # within the dialog; a gap is of messages that were not kept
    at: Instant
    offset_ms: float  # since the call's first message
    sent: bool  # by this node
    transport: str
    local_address: str
    remote_address: str  # of the packet: the edge's where calls come through one; the leg has the true one
    size: int  # bytes on the wire
    repeats: int | None  # seq of the message that this one repeats to the byte (a retransmission)
    method: str  # of the request, or of the one that a response answers
    status: int  # 0 for a request
    reason: str
    target: str  # a request's URI
    cseq: int
    sdp: str  # in a few words, "" without
    notes: list[str]  # headers that explain
    text: str  # at most 4000 characters


class SipMessagesPage(Response, kw_only=True, frozen=True):
    """The SIP messages of one call, oldest first; there is never a second page."""

    data: list[SipMessageOut]
    not_kept: int  # in the middle of long dialogs
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class LiveCallOut(Response, kw_only=True, frozen=True):
    id: str
    state: LegState
    direction: Direction
    from_number: str
    to_number: str
    created_at: Instant
    answered_at: Instant | None
    agent: str


class LiveCallsPage(Response, kw_only=True, frozen=True):
    """The calls of this node that are up; there is never a second page."""

    data: list[LiveCallOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False
