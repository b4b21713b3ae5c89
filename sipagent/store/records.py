"""What the read side hands out: frozen values, by the same names as the columns."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from sipagent.core.errors import SipagentError
from sipagent.core.states import Direction, LegState, RegistrationState, ToolStatus, TransferKind, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy

MAX_PAGE = 100


class RecordUnavailable(SipagentError):
    """The database did not answer a question."""


class AlreadyThere(SipagentError):
    """Something of the same name is there."""


class LegRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    call_id: str
    direction: Direction
    state: LegState
    from_number: str
    to_number: str
    sip_call_id: str
    remote_address: str
    role: str | None
    trunk: str | None
    parent_leg_id: str | None
    codec: str | None
    local_media: str | None
    remote_media: str | None
    setup_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    disposition: Disposition | None
    cause: Cause | None
    ended_by: EndedBy | None
    sip_status: int | None
    q850: int | None
    detail: str | None
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
    recordings: list[str] = []  # ids, oldest first; not a column


class RecordingRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    call_id: str
    leg_id: str | None
    state: Literal["recording", "done", "failed", "erased"]
    started_at: datetime
    ended_at: datetime | None
    ms: int | None
    channels: int
    rate: int
    bytes: int | None
    sha256: str | None
    file: str  # relative to the folder of recordings
    detail: str


class CallRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    node: str
    direction: Direction
    from_number: str
    to_number: str
    trunk: str
    dialplan: str | None
    route: str | None
    agent: str | None
    state: LegState
    setup_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    disposition: Disposition | None
    cause: Cause | None
    ended_by: EndedBy | None
    sip_status: int | None
    detail: str | None
    properties: dict[str, Any]
    voice_app_id: str | None = None
    legs: list[LegRecord] = []  # in order of creation; not a column


class TurnRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    call_id: str
    turn_index: int
    caller_text: str
    agent_text: str
    heard_text: str
    intent: str
    confidence: float | None
    interrupted: bool
    started_at: datetime
    agent_started_at: datetime | None
    ended_at: datetime
    jitter_buffer_ms: float | None
    endpointing_ms: float | None
    stt_ms: float | None
    llm_ms: float | None
    clause_ms: float | None
    tts_ms: float | None
    playout_ms: float | None
    pacing_ms: float | None
    total_ms: float | None
    details: dict[str, Any]


class TransferRecord(msgspec.Struct, kw_only=True, frozen=True):
    """One step of a transfer; those of one transfer have the same id."""

    id: str
    step: int
    call_id: str
    leg_id: str
    other_leg_id: str | None
    kind: TransferKind
    target: str
    state: TransferState
    sip_status: int
    reason: str
    at: datetime


class ToolCallRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    call_id: str
    turn_id: str | None
    name: str
    kind: str
    arguments: str
    status: ToolStatus
    detail: str
    ms: float | None
    at: datetime


class EventRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    call_id: str | None
    leg_id: str | None
    type: str
    at: datetime
    seq: int
    data: dict[str, Any]


class SipMessageRecord(msgspec.Struct, kw_only=True, frozen=True):
    call_id: str
    dialog: int
    seq: int
    leg_id: str | None
    at: datetime
    sent: bool
    transport: str
    local_address: str
    remote_address: str
    size: int
    repeats: int | None
    text: str


class RegistrationRecord(msgspec.Struct, kw_only=True, frozen=True):
    node: str
    trunk: str
    state: RegistrationState
    sip_status: int
    reason: str
    expires_s: int
    next_try_s: float
    changed_at: datetime


class FullCall(msgspec.Struct, kw_only=True, frozen=True):
    """Everything that is recorded of one call."""

    call: CallRecord  # with its legs
    turns: list[TurnRecord]
    transfers: list[TransferRecord]  # every step, in order
    tool_calls: list[ToolCallRecord]
    events: list[EventRecord]


class TurnFacts(msgspec.Struct, kw_only=True, frozen=True):
    """Of a turn what is counted; none of its words."""

    call_id: str
    caller_spoke: bool
    interrupted: bool
    total_ms: float | None
    characters: int  # that the agent wanted to speak
    tokens: dict[str, Any] | None  # of the model, where it told


class QualityRecord(msgspec.Struct, kw_only=True, frozen=True):
    """Of one leg over the whole call."""

    call_id: str
    leg_id: str
    packets: int
    lost: int
    lost_percent: float | None
    discarded_percent: float | None
    jitter_ms: float | None
    concealed_ms: int
    round_trip_ms: float | None
    mos_lq: float | None
    mos_cq: float | None


class CostRecord(msgspec.Struct, kw_only=True, frozen=True):
    call_id: str
    kind: str
    leg_id: str  # "" for what belongs to no leg
    units: float
    unit: str
    price: float
    currency: str
    amount: float


class CallStory(msgspec.Struct, kw_only=True, frozen=True):
    """What a call's detail record is made of."""

    call: CallRecord  # with its legs
    turns: list[TurnFacts] = []
    transfers: list[TransferRecord] = []  # every step, in order
    quality: list[QualityRecord] = []
    costs: list[CostRecord] = []  # empty until its hour is closed
    tools: int = 0  # calls of tools that were carried out


class HourRecord(msgspec.Struct, kw_only=True, frozen=True):
    """A closed hour of calls, as `sipagent.reports.columns` has packed it."""

    hour: datetime
    last_end: datetime | None
    data: bytes


class CallFilter(msgspec.Struct, kw_only=True, frozen=True):
    """Which calls, and which page of them, newest first. At most one cursor."""

    state: LegState | None = None
    direction: Direction | None = None
    trunk: str | None = None
    agent: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    created_after: datetime | None = None  # inclusive
    created_before: datetime | None = None  # exclusive
    limit: int = 50
    cursor_after: str | None = None  # older than this
    cursor_before: str | None = None  # newer than this


class CallPage(msgspec.Struct, kw_only=True, frozen=True):
    calls: list[CallRecord]
    next_cursor: str | None  # for `cursor_after`: older calls
    previous_cursor: str | None  # for `cursor_before`: newer calls
    has_more: bool  # older ones exist


class StoryPage(msgspec.Struct, kw_only=True, frozen=True):
    stories: list[CallStory]
    page: CallPage


class RecorderStatistics(msgspec.Struct, kw_only=True, frozen=True):
    """How the recorder is doing."""

    written: int  # events committed
    dropped: int  # events refused because the backlog was full or the recorder closed
    refused: int  # events whose rows the database would not take; the event itself is kept where possible
    backlog: int  # events waiting; of those that an earlier run has left, what is read by now
    last_error: str  # "" while the database takes what it is given
