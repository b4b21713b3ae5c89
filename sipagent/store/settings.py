"""Settings of the store."""

import msgspec


class StoreSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    # SQLite needs no server and suits one node; nodes that share a record need postgresql://user@host/name
    url: str = "sqlite:///sipagent.db"
    # events held while the database is slow or away; about 1 KiB each, 10,000 is a busy minute of 100 calls
    backlog: int = 10_000
    # this node's name in a shared database: at start a node closes the calls that its own crash left open
    node: str = ""
