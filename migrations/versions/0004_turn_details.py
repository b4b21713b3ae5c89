"""turn details: two more parts of the latency, and how a turn came about"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("turns") as table:
        table.add_column(sa.Column("clause_ms", sa.Double()))
        table.add_column(sa.Column("pacing_ms", sa.Double()))
        table.add_column(sa.Column("details", JSON, nullable=False, server_default="{}"))
    # The parts of a turn that was measured before still add up to its total.
    op.execute("UPDATE turns SET clause_ms = 0, pacing_ms = 0 WHERE total_ms IS NOT NULL")
    with op.batch_alter_table("turns") as table:
        table.alter_column("details", server_default=None)


def downgrade() -> None:
    op.execute("UPDATE turns SET llm_ms = llm_ms + clause_ms, playout_ms = playout_ms + pacing_ms")
    with op.batch_alter_table("turns") as table:
        table.drop_column("clause_ms")
        table.drop_column("pacing_ms")
        table.drop_column("details")
