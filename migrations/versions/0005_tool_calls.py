"""tool calls: what an agent had done, a row each"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "tool_calls",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("turn_id", TEXT),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("arguments", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("ms", sa.Double()),
        sa.Column("at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_tool_calls_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool_calls")),
    )
    op.create_index(op.f("ix_tool_calls_call_id_id"), "tool_calls", ["call_id", "id"])


def downgrade() -> None:
    op.drop_table("tool_calls")
