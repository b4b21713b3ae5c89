"""Settings of the store."""

from typing import Annotated

import msgspec


class StoreSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    # "" is the SQLite file sipagent.db in the node's state folder: no server, and enough for one node.
    # Nodes that share a record need postgresql://user:password@host/name
    url: str = ""
    # what may wait on disk, in the state folder's `journal`, while the database is slow or away; about 0.5 KiB an event
    spill_mb: Annotated[int, msgspec.Meta(ge=16, le=1 << 20)] = 1024
    # events that may wait in memory besides, when the disk is full
    backlog: int = 10_000
    # What seals secrets in the database: 32 bytes in URL-safe base64. "" makes one in the file seal.key of the state
    # folder; nodes that share a database need the same.
    seal_key: str = ""
