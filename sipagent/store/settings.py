"""Settings of the store."""

import msgspec


class StoreSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    # "" is the SQLite file sipagent.db in the node's state folder: no server, and enough for one node.
    # Nodes that share a record need postgresql://user:password@host/name
    url: str = ""
    # events held while the database is slow or away; about 1 KiB each, 10,000 is a busy minute of 100 calls
    backlog: int = 10_000
    # What seals secrets in the database: 32 bytes in URL-safe base64. "" makes one in the file seal.key of the state
    # folder; nodes that share a database need the same.
    seal_key: str = ""
