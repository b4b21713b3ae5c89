"""Settings of the store."""

import re
from typing import Annotated

import msgspec

Days = Annotated[int, msgspec.Meta(ge=0, le=36_500)]
MAX_PATTERN = 200  # characters
# A repetition of a group that itself repeats may take ages on a short text.
_NESTED = re.compile(r"[*+}]\??\)+(?:\?:)?[*+{]")


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


class RedactionSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is blacked out in what was said, heard, pressed and given to tools, before it is written to the record."""

    keys: bool = False  # pressed keys become x: telephone events, SIP INFO, gathered, and turns answered by them
    cards: bool = False  # of card numbers (13 to 19 digits with a right check digit) only the last four stay
    digits: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0  # runs of so many digits and more become x's; 0 is none
    patterns: tuple[str, ...] = ()  # regular expressions; what they find becomes [redacted]

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                found = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"patterns: {pattern!r} is no regular expression: {error}") from None
            if len(pattern) > MAX_PATTERN or _NESTED.search(pattern):
                raise ValueError(
                    f"patterns: {pattern[:MAX_PATTERN]!r} repeats what repeats, or is longer than {MAX_PATTERN}"
                    " characters: it could take for ever"
                )
            if found.match(""):
                raise ValueError(f"patterns: {pattern!r} finds the empty text everywhere")


class RetentionSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """After how many days rows go; 0 keeps them. What belongs to a call goes with it at the latest."""

    calls_days: Days = 0  # ended calls, with all that belongs to them
    turns_days: Days = 0  # what was said in each turn, and its latency
    tool_calls_days: Days = 0  # what agents had done
    sip_messages_days: Days = 0  # the SIP of calls
    quality_days: Days = 0  # of legs, every five seconds
    events_days: Days = 0  # they hold what was said, too
    recordings_days: Days = 0  # their files; the row stays and says so
    webhook_deliveries_days: Days = 30  # what was sent to applications
    audit_days: Days = 0  # who changed what over the API
