"""sip messages"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.String()


def upgrade() -> None:
    op.create_table(
        "sip_messages",
        sa.Column("call_id", TEXT, nullable=False),
        sa.Column("dialog", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("leg_id", TEXT),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent", sa.Boolean(), nullable=False),
        sa.Column("transport", TEXT, nullable=False),
        sa.Column("local_address", TEXT, nullable=False),
        sa.Column("remote_address", TEXT, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer()),
        sa.Column("text", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_sip_messages_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("call_id", "dialog", "seq", name=op.f("pk_sip_messages")),
    )


def downgrade() -> None:
    op.drop_table("sip_messages")
