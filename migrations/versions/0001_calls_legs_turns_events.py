"""calls legs turns events"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("direction", TEXT, nullable=False),
        sa.Column("from_number", TEXT, nullable=False),
        sa.Column("to_number", TEXT, nullable=False),
        sa.Column("trunk", TEXT, nullable=False),
        sa.Column("dialplan", TEXT),
        sa.Column("route", TEXT),
        sa.Column("agent", TEXT),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("setup_at", INSTANT, nullable=False),
        sa.Column("ringing_at", INSTANT),
        sa.Column("answered_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.Column("disposition", TEXT),
        sa.Column("cause", TEXT),
        sa.Column("ended_by", TEXT),
        sa.Column("sip_status", sa.Integer()),
        sa.Column("detail", TEXT),
        sa.Column("properties", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
    )
    op.create_table(
        "events",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("call_id", TEXT),
        sa.Column("leg_id", TEXT),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_table(
        "registrations",
        sa.Column("node", TEXT, nullable=False),
        sa.Column("trunk", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("sip_status", sa.Integer(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
        sa.Column("next_try_s", sa.Double(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("node", "trunk", name=op.f("pk_registrations")),
    )
    op.create_table(
        "legs",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("direction", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("from_number", TEXT, nullable=False),
        sa.Column("to_number", TEXT, nullable=False),
        sa.Column("sip_call_id", TEXT, nullable=False),
        sa.Column("remote_address", TEXT, nullable=False),
        sa.Column("codec", TEXT),
        sa.Column("local_media", TEXT),
        sa.Column("remote_media", TEXT),
        sa.Column("setup_at", INSTANT, nullable=False),
        sa.Column("ringing_at", INSTANT),
        sa.Column("answered_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.Column("disposition", TEXT),
        sa.Column("cause", TEXT),
        sa.Column("ended_by", TEXT),
        sa.Column("sip_status", sa.Integer()),
        sa.Column("detail", TEXT),
        sa.Column("packets_in", sa.BigInteger()),
        sa.Column("packets_out", sa.BigInteger()),
        sa.Column("lost", sa.BigInteger()),
        sa.Column("late", sa.BigInteger()),
        sa.Column("duplicate", sa.BigInteger()),
        sa.Column("reordered", sa.BigInteger()),
        sa.Column("malformed", sa.BigInteger()),
        sa.Column("foreign_source", sa.BigInteger()),
        sa.Column("concealed_ms", sa.BigInteger()),
        sa.Column("dropped_ms", sa.BigInteger()),
        sa.Column("jitter_ms", sa.Double()),
        sa.Column("digits_in", sa.BigInteger()),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_legs_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legs")),
    )
    op.create_table(
        "transfers",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("leg_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("sip_status", sa.Integer(), nullable=False),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_transfers_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
    )
    op.create_table(
        "turns",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("turn_index", sa.Integer(), nullable=False),
        sa.Column("caller_text", TEXT, nullable=False),
        sa.Column("agent_text", TEXT, nullable=False),
        sa.Column("heard_text", TEXT, nullable=False),
        sa.Column("intent", TEXT, nullable=False),
        sa.Column("confidence", sa.Double()),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("agent_started_at", INSTANT),
        sa.Column("ended_at", INSTANT, nullable=False),
        sa.Column("jitter_buffer_ms", sa.Double()),
        sa.Column("endpointing_ms", sa.Double()),
        sa.Column("stt_ms", sa.Double()),
        sa.Column("llm_ms", sa.Double()),
        sa.Column("tts_ms", sa.Double()),
        sa.Column("playout_ms", sa.Double()),
        sa.Column("total_ms", sa.Double()),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_turns_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_turns")),
    )
    op.create_index(op.f("ix_calls_from_number_id"), "calls", ["from_number", "id"])
    op.create_index(op.f("ix_calls_setup_at"), "calls", ["setup_at"])
    op.create_index(op.f("ix_calls_state_id"), "calls", ["state", "id"])
    op.create_index(op.f("ix_calls_to_number_id"), "calls", ["to_number", "id"])
    op.create_index(op.f("ix_events_call_id_seq"), "events", ["call_id", "seq"])
    op.create_index(op.f("ix_legs_call_id_id"), "legs", ["call_id", "id"])
    op.create_index(op.f("ix_transfers_call_id_id"), "transfers", ["call_id", "id"])
    op.create_index(op.f("ix_turns_call_id_turn_index"), "turns", ["call_id", "turn_index"])


def downgrade() -> None:
    for table in ("turns", "transfers", "legs", "registrations", "events", "calls"):  # children before their calls
        op.drop_table(table)
