"""Events as plain data: the JSON of the `events` table and of the live stream, and an id made from the content."""

import hashlib
import math
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from sipagent.core.clock import Stamp
from sipagent.core.events import CallEvent, Event, LegEvent, SipMessages, as_fields, fields_apart
from sipagent.core.text import storable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # as in core.ids, so that ids of all kinds sort alike
_APART = frozenset({"at", "call_id", "leg_id"})  # have columns of their own


def event_data(event: Event) -> dict[str, Any]:
    """The event's own fields as JSON types, without those kept apart; instants as ISO 8601 in UTC."""
    left_out = _APART | fields_apart(event)
    return {name: _plain(value) for name, value in as_fields(event).items() if name not in left_out}


def event_id(event: Event, data: dict[str, Any] | None = None) -> str:
    """``evt_`` and 26 characters that sort by time; the same event has the same id wherever and whenever it is asked.

    The nanoseconds of ``at.mono`` tell two events apart that are otherwise alike. `data` is the event's `event_data`,
    for those who have it already.
    """
    digest = hashlib.blake2b(digest_size=10)
    digest.update(msgspec.json.encode([type(event).__name__, event.at.mono, _wall_us(event.at.wall)]))
    digest.update(msgspec.json.encode([call_of(event), leg_of(event), event_data(event) if data is None else data]))
    return f"evt_{_encode(_wall_us(event.at.wall) // 1000, 10)}{_encode(int.from_bytes(digest.digest()), 16)}"


def call_of(event: Event) -> str | None:
    return storable(event.call_id) if isinstance(event, CallEvent) else None


def leg_of(event: Event) -> str | None:
    return storable(event.leg_id) or None if isinstance(event, LegEvent | SipMessages) else None


def _encode(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in reversed(range(length)))


def _wall_us(wall: datetime) -> int:
    # not timestamp() * 1e6: a float holds microseconds of today only to about 0.2
    return int(wall.timestamp()) * 1_000_000 + wall.microsecond


def _plain(value: Any) -> Any:
    match value:
        case Stamp():
            return value.wall.isoformat()
        case datetime():
            return value.isoformat()
        case Enum():
            return _plain(value.value)
        case str():
            return storable(value)
        case float() if not math.isfinite(value):
            return None  # JSON has no NaN, and PostgreSQL refuses it
        case dict():
            return {storable(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
