"""record and control: what the API makes, recordings, quality, costs, webhooks, erasures"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")

TABLES = (
    "api_keys",
    "audit",
    "erasures",
    "idempotency_keys",
    "ip_acls",
    "nodes",
    "report_hours",
    "secrets",
    "sip_trunks",
    "virtual_numbers",
    "voice_apps",
    "webhook_deliveries",
    "call_costs",
    "quality",
    "recordings",
)
NEW_COLUMNS = {
    "calls": ("account_id", "voice_app_id", "recorded"),
    "legs": ("role", "trunk", "parent_leg_id", "q850"),
}


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        sa.Column("rate_per_s", sa.Double()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("revoked_at", INSTANT),
        sa.Column("last_used_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    op.create_table(
        "audit",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("resource", TEXT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"])
    op.create_table(
        "erasures",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("what", TEXT, nullable=False),
        sa.Column("number_hash", TEXT, nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_at"), "idempotency_keys", ["at"])
    op.create_table(
        "ip_acls",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("trunk_id", TEXT),
        sa.Column("entries", JSON, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ip_acls")),
    )
    op.create_index(op.f("ix_ip_acls_trunk_id_id"), "ip_acls", ["trunk_id", "id"])
    op.create_table(
        "nodes",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.Column("calls_active", sa.Integer(), nullable=False),
        sa.Column("max_calls", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_nodes")),
    )
    op.create_table(
        "report_hours",
        sa.Column("hour", INSTANT, nullable=False),
        sa.Column("last_end", INSTANT),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name=op.f("pk_report_hours")),
    )
    op.create_index(op.f("ix_report_hours_last_end"), "report_hours", ["last_end"])
    op.create_table(
        "secrets",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secrets")),
        sa.UniqueConstraint("name", name=op.f("uq_secrets_name")),
    )
    op.create_table(
        "sip_trunks",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sip_trunks")),
        sa.UniqueConstraint("name", name=op.f("uq_sip_trunks_name")),
    )
    op.create_table(
        "virtual_numbers",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("number", TEXT, nullable=False),
        sa.Column("voice_app_id", TEXT),
        sa.Column("trunk", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_virtual_numbers")),
        sa.UniqueConstraint("number", name=op.f("uq_virtual_numbers_number")),
    )
    op.create_index(op.f("ix_virtual_numbers_voice_app_id_id"), "virtual_numbers", ["voice_app_id", "id"])
    op.create_table(
        "voice_apps",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("flow_url", TEXT, nullable=False),
        sa.Column("fallback_url", TEXT, nullable=False),
        sa.Column("webhook_url", TEXT, nullable=False),
        sa.Column("dialplan", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("channel_limit", sa.Integer()),
        sa.Column("secret_id", TEXT),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_voice_apps")),
        sa.UniqueConstraint("name", name=op.f("uq_voice_apps_name")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("call_id", TEXT),
        sa.Column("app_id", TEXT),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", INSTANT),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("last_try_at", INSTANT),
        sa.Column("delivered_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(op.f("ix_webhook_deliveries_call_id_id"), "webhook_deliveries", ["call_id", "id"])
    op.create_index(op.f("ix_webhook_deliveries_created_at"), "webhook_deliveries", ["created_at"])
    op.create_index(op.f("ix_webhook_deliveries_state_next_try_at"), "webhook_deliveries", ["state", "next_try_at"])
    op.create_table(
        "call_costs",
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("leg_id", TEXT, nullable=False),
        sa.Column("units", sa.Double(), nullable=False),
        sa.Column("unit", TEXT, nullable=False),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("currency", TEXT, nullable=False),
        sa.Column("amount", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_call_costs_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("call_id", "kind", "leg_id", name=op.f("pk_call_costs")),
    )
    op.create_table(
        "quality",
        sa.Column("leg_id", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("packets", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("lost_percent", sa.Double()),
        sa.Column("discarded", sa.BigInteger(), nullable=False),
        sa.Column("discarded_percent", sa.Double()),
        sa.Column("burst_density_percent", sa.Double()),
        sa.Column("burst_ms", sa.Double()),
        sa.Column("gap_density_percent", sa.Double()),
        sa.Column("gap_ms", sa.Double()),
        sa.Column("jitter_ms", sa.Double()),
        sa.Column("concealed_ms", sa.BigInteger(), nullable=False),
        sa.Column("playout_delay_ms", sa.Double()),
        sa.Column("round_trip_ms", sa.Double()),
        sa.Column("mos_lq", sa.Double()),
        sa.Column("mos_cq", sa.Double()),
        sa.Column("level_in_dbov", sa.Double()),
        sa.Column("level_out_dbov", sa.Double()),
        sa.Column("peer_lost_percent", sa.Double()),
        sa.Column("peer_jitter_ms", sa.Double()),
        sa.Column("peer_mos_lq", sa.Double()),
        sa.Column("peer_mos_cq", sa.Double()),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_quality_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("leg_id", "at", "final", name=op.f("pk_quality")),
    )
    op.create_index(op.f("ix_quality_call_id_at"), "quality", ["call_id", "at"])
    op.create_table(
        "recordings",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("leg_id", TEXT),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT),
        sa.Column("ms", sa.BigInteger()),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("sha256", TEXT),
        sa.Column("file", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_recordings_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recordings")),
    )
    op.create_index(op.f("ix_recordings_call_id_id"), "recordings", ["call_id", "id"])
    op.create_index(op.f("ix_recordings_started_at"), "recordings", ["started_at"])
    op.add_column("calls", sa.Column("account_id", TEXT, server_default="default", nullable=False))
    op.add_column("calls", sa.Column("voice_app_id", TEXT))
    op.add_column("calls", sa.Column("recorded", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("legs", sa.Column("role", TEXT))
    op.add_column("legs", sa.Column("trunk", TEXT))
    op.add_column("legs", sa.Column("parent_leg_id", TEXT))
    op.add_column("legs", sa.Column("q850", sa.Integer()))


def downgrade() -> None:
    # Not in a batch: SQLite would make `calls` anew, and dropping the old one deletes what refers to it.
    for table, columns in NEW_COLUMNS.items():
        for column in columns:
            op.drop_column(table, column)
    for table in TABLES:
        op.drop_table(table)
