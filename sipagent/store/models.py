"""The tables. What a report shows is a column; the raw event stands beside it as JSON.

Instants are aware UTC. Enumerations are stored as their words, so that a new member needs no migration.
"""

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, ForeignKey, Index, MetaData, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sipagent.store.types import FiniteFloat, StorableText, UtcDateTime, json_type

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# PostgreSQL refuses an index entry over 2.7 kB, and who rings chooses what stands in From. The event keeps all of it.
NUMBER = StorableText(longest=512)

# What a peer can drive up, by its sequence numbers or its headers: it shall not overflow.
Count = Annotated[int, mapped_column(BigInteger)]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {
        str: StorableText(),
        datetime: UtcDateTime(),
        float: FiniteFloat(),
        dict[str, Any]: json_type(),
        list[Any]: json_type(),
    }


class Call(Base):
    """One logical conversation, whatever legs it takes."""

    __tablename__ = "calls"

    id: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str]
    direction: Mapped[str]
    from_number: Mapped[str] = mapped_column(NUMBER)
    to_number: Mapped[str] = mapped_column(NUMBER)
    trunk: Mapped[str]
    dialplan: Mapped[str | None]
    route: Mapped[str | None]
    agent: Mapped[str | None]
    state: Mapped[str]
    setup_at: Mapped[datetime]
    ringing_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    disposition: Mapped[str | None]
    cause: Mapped[str | None]
    ended_by: Mapped[str | None]
    sip_status: Mapped[int | None]
    detail: Mapped[str | None]
    properties: Mapped[dict[str, Any]]
    account_id: Mapped[str] = mapped_column(server_default="default")
    voice_app_id: Mapped[str | None]
    recorded: Mapped[bool] = mapped_column(server_default=false())

    __table_args__ = (
        # list_calls(state=…) in order of id; also close_orphans: the few calls that are not 'ended'
        Index(None, "state", "id"),
        # list_calls(created_after=…, created_before=…)
        Index(None, "setup_at"),
        # list_calls(from_number=…) in order of id
        Index(None, "from_number", "id"),
        # list_calls(to_number=…) in order of id
        Index(None, "to_number", "id"),
    )


class Leg(Base):
    """Our side of one SIP dialog, with the counters of its RTP once it has ended."""

    __tablename__ = "legs"

    id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    direction: Mapped[str]
    state: Mapped[str]
    from_number: Mapped[str] = mapped_column(NUMBER)
    to_number: Mapped[str] = mapped_column(NUMBER)
    sip_call_id: Mapped[str]
    remote_address: Mapped[str]
    role: Mapped[str | None]  # "caller", "callee", "transfer", ...; null where nobody said
    trunk: Mapped[str | None]
    parent_leg_id: Mapped[str | None]  # the leg that this one was made for
    codec: Mapped[str | None]
    local_media: Mapped[str | None]
    remote_media: Mapped[str | None]
    setup_at: Mapped[datetime]
    ringing_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    disposition: Mapped[str | None]
    cause: Mapped[str | None]
    ended_by: Mapped[str | None]
    sip_status: Mapped[int | None]
    q850: Mapped[int | None]  # cause by the peer's Reason header
    detail: Mapped[str | None]
    # core.events.MediaFigures, by the same names; null until the leg has ended
    packets_in: Mapped[Count | None]
    packets_out: Mapped[Count | None]
    lost: Mapped[Count | None]
    late: Mapped[Count | None]
    duplicate: Mapped[Count | None]
    reordered: Mapped[Count | None]
    malformed: Mapped[Count | None]
    foreign: Mapped[Count | None] = mapped_column("foreign_source")  # FOREIGN is a word of SQL
    concealed_ms: Mapped[Count | None]
    dropped_ms: Mapped[Count | None]
    jitter_ms: Mapped[float | None]
    digits_in: Mapped[Count | None]

    __table_args__ = (
        # legs of one call or of a page of calls; and the cascade when a call is deleted
        Index(None, "call_id", "id"),
    )


class Turn(Base):
    """The agent's answer to something the caller said, or its own opening words."""

    __tablename__ = "turns"

    id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    turn_index: Mapped[int]  # "index" would need quoting in every query written by hand
    caller_text: Mapped[str]
    agent_text: Mapped[str]
    heard_text: Mapped[str]
    intent: Mapped[str]
    confidence: Mapped[float | None]
    interrupted: Mapped[bool]
    started_at: Mapped[datetime]
    agent_started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime]
    # core.events.TurnLatency, by the same names; null when there was nothing to measure
    jitter_buffer_ms: Mapped[float | None]
    endpointing_ms: Mapped[float | None]
    stt_ms: Mapped[float | None]
    llm_ms: Mapped[float | None]
    clause_ms: Mapped[float | None]
    tts_ms: Mapped[float | None]
    playout_ms: Mapped[float | None]
    pacing_ms: Mapped[float | None]
    total_ms: Mapped[float | None]
    details: Mapped[dict[str, Any]]

    __table_args__ = (
        # the turns of one call in order
        Index(None, "call_id", "turn_index"),
    )


class Transfer(Base):
    """One step of a transfer: asked for, accepted, refused, somebody reached, told, done."""

    __tablename__ = "transfers"

    id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    leg_id: Mapped[str]  # the leg of whoever is transferred
    other_leg_id: Mapped[str | None]  # the leg to whoever takes over, where we have one
    kind: Mapped[str]
    target: Mapped[str]
    state: Mapped[str]
    sip_status: Mapped[int]
    reason: Mapped[str]
    at: Mapped[datetime]

    __table_args__ = (
        # the transfers of one call in order
        Index(None, "call_id", "id"),
    )


class ToolCallRow(Base):
    """What an agent had done by a tool."""

    __tablename__ = "tool_calls"

    id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    turn_id: Mapped[str | None]  # of the turn it was called in, which may have been retracted
    name: Mapped[str]
    kind: Mapped[str]
    arguments: Mapped[str]  # JSON as the model wrote it
    status: Mapped[str]
    detail: Mapped[str]
    ms: Mapped[float | None]  # null while it runs
    at: Mapped[datetime]

    __table_args__ = (
        # the tool calls of one call in order
        Index(None, "call_id", "id"),
    )


class SipMessageRow(Base):
    """One SIP message of a call. A gap in `seq` is of messages that were not kept."""

    __tablename__ = "sip_messages"

    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    dialog: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    leg_id: Mapped[str | None]
    at: Mapped[datetime]
    sent: Mapped[bool]
    transport: Mapped[str]
    local_address: Mapped[str]
    remote_address: Mapped[str]
    size: Mapped[int]
    repeats: Mapped[int | None]
    text: Mapped[str]


class Quality(Base):
    """How good a leg's audio was: core.events.CallQuality by the same names."""

    __tablename__ = "quality"

    leg_id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    final: Mapped[bool] = mapped_column(primary_key=True)  # of the whole call
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    packets: Mapped[Count]
    lost: Mapped[Count]
    lost_percent: Mapped[float | None]
    discarded: Mapped[Count]
    discarded_percent: Mapped[float | None]
    burst_density_percent: Mapped[float | None]
    burst_ms: Mapped[float | None]
    gap_density_percent: Mapped[float | None]
    gap_ms: Mapped[float | None]
    jitter_ms: Mapped[float | None]
    concealed_ms: Mapped[Count]
    playout_delay_ms: Mapped[float | None]
    round_trip_ms: Mapped[float | None]
    mos_lq: Mapped[float | None]
    mos_cq: Mapped[float | None]
    level_in_dbov: Mapped[float | None]
    level_out_dbov: Mapped[float | None]
    peer_lost_percent: Mapped[float | None]
    peer_jitter_ms: Mapped[float | None]
    peer_mos_lq: Mapped[float | None]
    peer_mos_cq: Mapped[float | None]

    __table_args__ = (
        # the quality of one call's legs; the cascade
        Index(None, "call_id", "at"),
    )


class Registration(Base):
    """The present state of one trunk's registration at one node; the history is in `events`."""

    __tablename__ = "registrations"

    node: Mapped[str] = mapped_column(primary_key=True)
    trunk: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    sip_status: Mapped[int]
    reason: Mapped[str]
    expires_s: Mapped[Count]
    next_try_s: Mapped[float]
    changed_at: Mapped[datetime]


class EventRow(Base):
    """Every event as it was emitted. No foreign key: a fact is kept even when the row it belongs to is missing."""

    __tablename__ = "events"

    id: Mapped[str] = mapped_column(primary_key=True)  # made from the event itself, so a replay meets its own row
    call_id: Mapped[str | None]
    leg_id: Mapped[str | None]
    type: Mapped[str]
    at: Mapped[datetime]
    seq: Mapped[int] = mapped_column(BigInteger)  # order of emission on its node
    data: Mapped[dict[str, Any]]

    __table_args__ = (
        # the events of one call in order of emission; and the last sign of life of an orphan
        Index(None, "call_id", "seq"),
    )
