"""What goes over the wire, in Teler's shape where Teler has it. The OpenAPI document is made from these types.

In `CallOut` and `LegOut` the fields down to the comment are those of the Teler SDK 1.0.0
(`teler.resources.voice.types`).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sipagent.core.states import (
    Direction,
    LegState,
    RegistrationState,
    ToolStatus,
    TransferKind,
    TransferState,
    TrunkState,
)
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.store.records import MAX_PAGE

# Printable ASCII without quote, angle bracket and backslash: nothing that could end a SIP header.
# Patterns end in "nothing follows": Python's $ would let a newline through, and JSON Schema does not know \Z.
_END = r"(?![\s\S])"
_DIALLED = r"[!#-;=?-\[\]-~]"
Dialled = Annotated[str, Meta(pattern=rf"^{_DIALLED}+{_END}", min_length=1, max_length=256)]
DialledOrNone = Annotated[str, Meta(pattern=rf"^{_DIALLED}*{_END}", max_length=256)]
Name = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.-]*{_END}", max_length=64)]
Short = Annotated[str, Meta(max_length=512)]
Instant = Annotated[datetime, Meta(tz=True)]  # always UTC
Cursor = Annotated[str, Meta(min_length=1, max_length=64)]


class Request(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class Response(msgspec.Struct, kw_only=True, frozen=True):
    pass


# --- requests -------------------------------------------------------------------------------------------------


class CreateCall(Request, kw_only=True, frozen=True):
    """A call to place. What happens on it comes from `dialplan`, the way out from `trunk`; "" is the node's own."""

    to_number: Dialled  # a number of the trunk, or a SIP URI
    from_number: DialledOrNone = ""
    dialplan: Name = ""
    trunk: Name = ""
    timeout_s: Annotated[int, Meta(ge=1, le=600)] | None = (
        None  # of ringing; null is the node's [limits] ring_timeout_s
    )
    flow_url: Annotated[str, Meta(max_length=2048)] = ""  # only "dialplan:NAME" so far, the same as `dialplan`
    status_callback_url: Annotated[str, Meta(max_length=2048)] = ""  # not served yet: must be empty
    record: bool = False  # not served yet: the answer says false
    withhold: bool = False  # keep the calling number from the callee
    # Of the INVITE; the trunk's `headers_out` says which may leave.
    custom_headers: Annotated[dict[str, str], Meta(max_length=16)] = {}


class Hangup(Request, kw_only=True, frozen=True):
    leg_id: Short | None = None  # only this leg of it; null ends the call
    reason: Short | None = None  # taken for compatibility; the record says that the operator hung up


class TransferTarget(Request, kw_only=True, frozen=True):
    """`number` for kind "pstn", `uri` for "sip"; `leg_id` of another call that is up for "leg": the two are joined."""

    kind: Literal["pstn", "sip", "leg"]
    number: DialledOrNone = ""
    uri: DialledOrNone = ""
    leg_id: Short = ""
    # Of the INVITE to the target, which is then a leg of ours; the trunk's `headers_out` says which may leave.
    custom_headers: Annotated[dict[str, str], Meta(max_length=16)] = {}


class DialMusic(Request, kw_only=True, frozen=True):
    """What the caller hears until the target answers."""

    action: Literal["play"] = "play"
    # A WAV file is looked for beside the dialplan.
    file: Annotated[str, Meta(pattern=r"^(ringback|silence|[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.wav)$")]


class TransferCall(Request, kw_only=True, frozen=True):
    """Hand the caller to somebody else. When it fails they are back where they were."""

    target: TransferTarget
    mode: Literal["blind", "cold", "attended", "warm"] = "blind"  # cold is blind, warm is attended
    timeout: Annotated[int, Meta(ge=1, le=600)] | None = None  # of ringing; null is the node's
    ringback: Short | None = None  # anything but "" and "none": the caller hears it ring instead of hold music
    record: bool = False  # not served yet
    dial_music: DialMusic | None = None  # null is hold music, or what `ringback` says
    confirm_sound: dict[str, Any] | None = None  # not served yet: must be left out
    on_failure: dict[str, Any] | None = None  # not served yet: must be left out
    # ours
    via: Literal["", "auto", "refer", "bridge"] = ""  # "" is what the trunk's `transfer` says
    trunk: Name = ""  # of a leg of ours; "" is the caller's
    whisper: Annotated[str, Meta(max_length=1000)] = ""  # told to the target before; only where it is attended


class Hold(Request, kw_only=True, frozen=True):
    music: Literal["", "ringback", "silence"] = ""  # "" is hold music


class Resume(Request, kw_only=True, frozen=True):
    pass


class Bridge(Request, kw_only=True, frozen=True):
    call_id: Cursor  # another call that is up


class BringIn(Request, kw_only=True, frozen=True):
    """Ring somebody, who then listens in, whispers (to everyone but the caller), or joins."""

    to_number: Dialled
    part: Literal["listen", "whisper", "conference"] = "listen"
    trunk: Name = ""
    timeout_s: Annotated[int, Meta(ge=1, le=600)] | None = None  # of ringing; null is the node's


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


class WatchEvents(Request, kw_only=True, frozen=True):
    call_id: Cursor | None = None  # only this call's events


class NoParameters(Request, kw_only=True, frozen=True):
    pass


# --- answers --------------------------------------------------------------------------------------------------


class FieldError(Response, kw_only=True, frozen=True):
    field: str  # dotted path, "" for the whole
    message: str


class ErrorOut(Response, kw_only=True, frozen=True):
    """Every answer from 400 up."""

    message: str
    errors: list[FieldError] = []


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


class MutationOut(Response, kw_only=True, frozen=True):
    request_id: str
    playback_id: str | None = None


class TransferStarted(Response, kw_only=True, frozen=True):
    """The transfer is under way; its steps are in the call's record, by its id."""

    id: str
    call_id: str
    status: str  # "requested"
    target_leg_id: str | None
    mode: str
    request_id: str


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


class EventOut(Response, kw_only=True, frozen=True):
    """One event: `data` has the fields of the event's type. Also the data of each message on the stream."""

    id: str
    type: str
    call_id: str | None
    leg_id: str | None
    at: Instant
    data: dict[str, Any]


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


class RegistrationOut(Response, kw_only=True, frozen=True):
    trunk: str
    state: RegistrationState
    sip_status: int = 0
    reason: str = ""
    expires_s: int = 0
    next_try_s: float = 0.0
    changed_at: Instant | None = None


class TrunkServerOut(Response, kw_only=True, frozen=True):
    address: str
    up: bool
    reason: str = ""


class TrunkOut(Response, kw_only=True, frozen=True):
    """A trunk of this node. `reason` says what is wrong and what to look at."""

    name: str
    state: TrunkState
    reason: str = ""
    since_s: float = 0.0
    servers: list[TrunkServerOut] = []
    calls_in: int = 0
    calls_out: int = 0
    total_in: int = 0
    total_out: int = 0
    refused_channels: int = 0
    refused_rate: int = 0
    refused_password: int = 0


class TrunksPage(Response, kw_only=True, frozen=True):
    """The trunks of this node; there is never a second page."""

    data: list[TrunkOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class RegistrationsPage(Response, kw_only=True, frozen=True):
    """The registrations of this node; there is never a second page."""

    data: list[RegistrationOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class RecorderOut(Response, kw_only=True, frozen=True):
    written: int
    dropped: int
    refused: int
    backlog: int
    last_error: str


class HealthOut(Response, kw_only=True, frozen=True):
    """`status` is "ok", "degraded" or "draining". The rest only with a key."""

    status: str
    version: str | UnsetType = UNSET
    uptime_s: float | UnsetType = UNSET
    calls_active: int | UnsetType = UNSET
    max_calls: int | UnsetType = UNSET
    processes: dict[str, int] | UnsetType = UNSET  # process id by name
    registrations: list[RegistrationOut] | UnsetType = UNSET
    trunks: list[TrunkOut] | UnsetType = UNSET
    recorder: RecorderOut | None | UnsetType = UNSET
