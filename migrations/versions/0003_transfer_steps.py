"""transfer steps: every step of a transfer is a row"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("transfers") as table:
        table.add_column(sa.Column("step", sa.Integer(), nullable=False, server_default="1"))
        table.add_column(sa.Column("other_leg_id", TEXT))
        table.add_column(sa.Column("reason", TEXT, nullable=False, server_default=""))
        table.drop_constraint(op.f("pk_transfers"), type_="primary")
        table.create_primary_key(op.f("pk_transfers"), ["id", "step"])
    # What was known of each: when it was asked for, and what became of it last.
    op.execute(
        "INSERT INTO transfers (id, step, call_id, leg_id, kind, target, state, sip_status, reason, requested_at,"
        " changed_at) SELECT id, 0, call_id, leg_id, kind, target, 'requested', 0, '', requested_at, requested_at"
        " FROM transfers WHERE state <> 'requested'"
    )
    op.execute("UPDATE transfers SET step = 0 WHERE state = 'requested' AND step = 1")
    with op.batch_alter_table("transfers") as table:
        table.drop_column("requested_at")
        table.alter_column("changed_at", new_column_name="at")
        table.alter_column("step", server_default=None)
        table.alter_column("reason", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("transfers") as table:
        table.alter_column("at", new_column_name="changed_at")
        table.add_column(sa.Column("requested_at", INSTANT))
    op.execute(
        "UPDATE transfers SET requested_at ="
        " (SELECT min(first.changed_at) FROM transfers AS first WHERE first.id = transfers.id)"
    )
    op.execute(
        "DELETE FROM transfers WHERE step < (SELECT max(last.step) FROM transfers AS last WHERE last.id = transfers.id)"
    )
    with op.batch_alter_table("transfers") as table:
        table.drop_constraint(op.f("pk_transfers"), type_="primary")
        table.create_primary_key(op.f("pk_transfers"), ["id"])
        table.alter_column("requested_at", existing_type=INSTANT, nullable=False)
        table.drop_column("step")
        table.drop_column("other_leg_id")
        table.drop_column("reason")
