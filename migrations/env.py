"""Alembic's entry. sipagent passes an open connection; a developer runs, from the top of the checkout:

alembic -c migrations/alembic.ini -x url=sqlite:///dev.db revision --autogenerate -m "what it is for"
"""

from alembic import context
from sqlalchemy import Connection, text

import sipagent.store.resource_models  # noqa: F401 - its tables
from sipagent.store.engine import make_engine, make_private_file, parse_url
from sipagent.store.models import Base

# Any constant of ours: nodes that start together on one PostgreSQL migrate one after another.
ADVISORY_LOCK = 0x51BA6E17


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_as_batch=True,  # SQLite cannot alter a column in place
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("offline migrations are not supported: they would need the database's present revision")
given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = str(context.get_x_argument(as_dictionary=True).get("url", "sqlite:///dev.db"))
    make_private_file(parse_url(url))
    engine = make_engine(url)
    with engine.connect() as opened:
        run(opened)
    engine.dispose()
