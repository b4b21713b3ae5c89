"""Identifiers: a readable prefix and 26 characters that sort by creation time, also within one millisecond.

Made like version 7 UUIDs (RFC 9562 section 6.2, method 2): the time, then random bits that count up while it stands.
"""

import secrets
import threading
from datetime import datetime
from typing import NewType

from sipagent.core.clock import wall_ms

CallId = NewType("CallId", str)
LegId = NewType("LegId", str)
TurnId = NewType("TurnId", str)
TransferId = NewType("TransferId", str)
ToolCallId = NewType("ToolCallId", str)
StreamId = NewType("StreamId", str)
RecordingId = NewType("RecordingId", str)
PlaybackId = NewType("PlaybackId", str)
GatherId = NewType("GatherId", str)

# Crockford's base 32: no letters that are mistaken for digits when read out to a colleague.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _encode(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in reversed(range(length)))


_lock = threading.Lock()
_last = (0, 0)  # milliseconds and the random part of the newest identifier


def _new(prefix: str) -> str:
    global _last
    with _lock:
        now = max(wall_ms(), _last[0])  # a clock that was set back does not put new calls before old ones
        random = _last[1] + 1 if now == _last[0] else secrets.randbits(79)
        _last = (now, random)
    return f"{prefix}_{_encode(now, 10)}{_encode(random, 16)}"


def first_id(prefix: str, at: datetime) -> str:
    """What ids of this kind that were made before `at` are less than, and later ones are not."""
    return f"{prefix}_{_encode(max(0, int(at.timestamp() * 1000)), 10)}"  # no id is older than 1970


def new_call_id() -> CallId:
    return CallId(_new("call"))


def new_leg_id() -> LegId:
    return LegId(_new("leg"))


def new_turn_id() -> TurnId:
    return TurnId(_new("turn"))


def new_transfer_id() -> TransferId:
    return TransferId(_new("xfer"))


def new_tool_call_id() -> ToolCallId:
    return ToolCallId(_new("tool"))


def new_id(prefix: str) -> str:
    """Of what the API makes: "app", "vn", "trunk", "acl", "secret", "key", ..."""
    return _new(prefix)


def new_stream_id() -> StreamId:
    return StreamId(_new("strm"))


def new_recording_id() -> RecordingId:
    return RecordingId(_new("rec"))


def new_playback_id() -> PlaybackId:
    return PlaybackId(_new("play"))


def new_gather_id() -> GatherId:
    return GatherId(_new("gather"))
