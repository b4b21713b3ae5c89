"""Events as plain data: the JSON of the `events` table and of the live stream, an id, and the bytes of the journal."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any

import msgspec

from sipagent.core.clock import Stamp
from sipagent.core.events import EVENT_TYPES, CallEvent, Event, LegEvent, SipMessages, TurnEnded
from sipagent.core.text import all_storable, storable

# as in core.ids, so that ids of all kinds sort alike
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_APART = frozenset({"at", "call_id", "leg_id"})  # have columns of their own


def event_data(event: Event) -> dict[str, Any]:
    """The event's own fields as JSON types, without those kept apart; instants as ISO 8601 in UTC."""
    return {name: _plain(getattr(event, name)) for name in _own_fields(type(event).__name__)}


def event_id(event: Event) -> str:
    """``evt_`` and 26 characters that sort by time; the same event has the same id wherever and whenever it is asked.

    Made from the instant (the nanoseconds of ``at.mono`` tell two events apart that are otherwise alike) and from what
    is not private, so that it stands whatever is redacted, and says nothing of it.
    """
    kind, us = type(event).__name__, _wall_us(event.at.wall)
    told = [getattr(event, name) for name in _telling_fields(kind)]
    words = [value for value in told if value is None or isinstance(value, str | int)]
    what = [kind, event.at.mono, us, call_of(event), leg_of(event), words]
    try:
        data = msgspec.json.encode(what)
    except UnicodeEncodeError:
        data = msgspec.json.encode(all_storable(what))
    digest = hashlib.blake2b(data, digest_size=10).digest()
    return f"evt_{_base32(us // 1000, 5)}{_base32(int.from_bytes(digest), 8)}"


def call_of(event: Event) -> str | None:
    return storable(event.call_id) if isinstance(event, CallEvent) else None


def leg_of(event: Event) -> str | None:
    return storable(event.leg_id) or None if isinstance(event, LegEvent | SipMessages) else None


def packed(event: Event) -> bytes:
    """The event as msgpack, for `unpacked`."""
    if isinstance(event, TurnEnded):  # may hold anything that the record makes JSON of
        event = replace(event, details=_plain(event.details))
    try:
        return msgspec.msgpack.encode(event)
    except UnicodeEncodeError:  # msgpack has no lone surrogates
        return msgspec.msgpack.encode(all_storable(msgspec.to_builtins(event, builtin_types=(bytes, datetime))))


def unpacked(kind: str, data: bytes) -> Event:
    """Raises KeyError for a kind that this version does not know, msgspec.DecodeError for one that has changed."""
    return _decoder(kind).decode(data)


@cache
def _decoder(kind: str) -> msgspec.msgpack.Decoder[Event]:
    return msgspec.msgpack.Decoder(EVENT_TYPES[kind])


@cache
def _own_fields(kind: str) -> tuple[str, ...]:
    return tuple(f.name for f in fields(EVENT_TYPES[kind]) if f.name not in _APART and not f.metadata.get("apart"))


@cache
def _telling_fields(kind: str) -> tuple[str, ...]:
    return tuple(f.name for f in fields(EVENT_TYPES[kind]) if f.name not in _APART and not f.metadata.get("private"))


def _base32(value: int, pairs: int) -> str:
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(10 * pairs - 10, -1, -10)])


def _wall_us(wall: datetime) -> int:
    # not timestamp() * 1e6: a float holds microseconds of today only to about 0.2
    return int(wall.timestamp()) * 1_000_000 + wall.microsecond


def _plain(value: Any) -> Any:
    convert = _CONVERSIONS.get(type(value))
    if convert is not None:
        return convert(value)
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, dict | list | tuple | set | frozenset | str | float | datetime):  # of a class of their own
        return next(made(value) for kind, made in _CONVERSIONS.items() if isinstance(value, kind))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _plain_list(values: Any) -> list[Any]:
    return [_plain(item) for item in values]


_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    Stamp: lambda stamp: stamp.wall.isoformat(),
    str: storable,
    int: lambda number: number,
    bool: lambda truth: truth,
    type(None): lambda nothing: nothing,
    # JSON has no NaN, and PostgreSQL refuses it
    float: lambda number: number if math.isfinite(number) else None,
    datetime: datetime.isoformat,
    dict: lambda values: {storable(str(key)): _plain(item) for key, item in values.items()},
    list: _plain_list,
    tuple: _plain_list,
    set: _plain_list,
    frozenset: _plain_list,
}
