"""Identifiers: a readable prefix and 26 characters that sort by creation time."""

import secrets
from typing import NewType

from sipagent.core.clock import wall_ms

CallId = NewType("CallId", str)
LegId = NewType("LegId", str)
TurnId = NewType("TurnId", str)
TransferId = NewType("TransferId", str)

# Crockford's base 32: no letters that are mistaken for digits when read out to a colleague.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _encode(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in reversed(range(length)))


def _new(prefix: str) -> str:
    return f"{prefix}_{_encode(wall_ms(), 10)}{_encode(secrets.randbits(80), 16)}"


def new_call_id() -> CallId:
    return CallId(_new("call"))


def new_leg_id() -> LegId:
    return LegId(_new("leg"))


def new_turn_id() -> TurnId:
    return TurnId(_new("turn"))


def new_transfer_id() -> TransferId:
    return TransferId(_new("xfer"))
