"""Calls as columns: what reports reckon with, and what a closed hour is kept as.

A million calls are added up in about two seconds of processor time this way, whatever is
asked of them; as rows of SQL they would take ten seconds and more. Numbers of callers are not among the columns.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.core.errors import SipagentError
from sipagent.core.states import Direction, TransferState
from sipagent.reports.cdr import CallDetail

Array = NDArray[Any]

VERSION = 1
UP = np.iinfo(np.int64).max  # end of what has not ended yet
NEVER = -1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)

# Instants are microseconds since 1970; columns named `word_` are positions in `words`.
CALL = np.dtype(
    [
        ("setup", "<i8"),
        ("answered", "<i8"),  # NEVER
        ("end", "<i8"),  # UP
        ("inbound", "?"),
        ("abandoned", "?"),
        ("human", "?"),
        ("turns", "<u2"),
        ("interrupted", "<u2"),
        ("transfers", "<u2"),
        ("transferred", "<u2"),
        ("sip", "<u2"),
        ("q850", "<u2"),
        ("word_trunk", "<i4"),
        ("word_number", "<i4"),
        ("word_agent", "<i4"),
        ("word_cause", "<i4"),
        ("word_disposition", "<i4"),
        ("cost", "<f8"),
        ("word_currency", "<i4"),
    ]
)
LEG = np.dtype(
    [
        ("call", "<i4"),  # position among the calls
        ("setup", "<i8"),
        ("ringing", "<i8"),
        ("answered", "<i8"),
        ("end", "<i8"),
        ("inbound", "?"),
        ("effective", "?"),
        ("sip", "<u2"),
        ("q850", "<u2"),
        ("word_trunk", "<i4"),
        ("word_cause", "<i4"),
        ("word_disposition", "<i4"),
        ("mos", "<f4"),  # NaN
    ]
)
TURN = np.dtype([("call", "<i4"), ("ms", "<f4")])
_HEAD = struct.Struct("<BIIII")


class NotColumns(SipagentError):
    """A kept hour cannot be read."""


@dataclass(frozen=True, slots=True)
class Columns:
    words: tuple[str, ...]
    calls: Array  # of CALL
    legs: Array  # of LEG
    turns: Array  # of TURN


def columns_of(details: Iterable[CallDetail]) -> Columns:
    words: dict[str, int] = {"": 0}
    calls: list[tuple[Any, ...]] = []
    legs: list[tuple[Any, ...]] = []
    turns: list[tuple[Any, ...]] = []

    def word(text: str | None) -> int:
        return words.setdefault(text or "", len(words))

    for at, call in enumerate(details):
        calls.append(
            (
                _us(call.setup_at),
                _us(call.answered_at),
                UP if call.ended_at is None else _us(call.ended_at),
                call.direction is Direction.INBOUND,
                call.abandoned,
                call.human,
                _small(call.turns),
                _small(call.interrupted),
                _small(len(call.transfers)),
                _small(sum(transfer.state is TransferState.COMPLETED for transfer in call.transfers)),
                _small(call.sip_status or 0),
                _small(call.q850 or 0),
                word(call.trunk),
                word(our_number(call)),
                word(call.agent),
                word(call.cause),
                word(call.disposition),
                call.cost,
                word(call.charges[0].currency if call.charges else ""),
            )
        )
        for leg in call.legs:
            legs.append(
                (
                    at,
                    _us(leg.setup_at),
                    _us(leg.ringing_at),
                    _us(leg.answered_at),
                    UP if leg.ended_at is None else _us(leg.ended_at),
                    leg.direction is Direction.INBOUND,
                    leg.effective,
                    _small(leg.sip_status or 0),
                    _small(leg.q850 or 0),
                    word(leg.trunk),
                    word(leg.cause),
                    word(leg.disposition),
                    np.nan if leg.mos_cq is None else leg.mos_cq,
                )
            )
        turns.extend((at, ms) for ms in call.latencies_ms)
    return Columns(tuple(words), np.array(calls, CALL), np.array(legs, LEG), np.array(turns, TURN))


def our_number(call: CallDetail) -> str:
    """The number of ours that was rung or shown; the other party's is nobody's business in a report."""
    return call.to_number if call.direction is Direction.INBOUND else call.from_number


def joined(parts: Sequence[Columns]) -> Columns:
    """All calls of all parts, in their order."""
    words: dict[str, int] = {"": 0}
    place = np.array([words.setdefault(text, len(words)) for part in parts for text in part.words], "<i4")
    words_before = _before([len(part.words) for part in parts])
    calls_before = _before([len(part.calls) for part in parts])
    tables = []
    for name, kind in (("calls", CALL), ("legs", LEG), ("turns", TURN)):
        found = [getattr(part, name) for part in parts]
        sizes = [len(table) for table in found]
        table = np.concatenate([*found, np.empty(0, kind)])
        shift = np.repeat(words_before, sizes)
        for field in kind.names or ():
            if field.startswith("word_"):
                table[field] = place[table[field] + shift]
        if name != "calls":
            table["call"] += np.repeat(calls_before, sizes)
        tables.append(table)
    return Columns(tuple(words), *tables)


def _before(sizes: list[int]) -> Array:
    """How many stand before each part."""
    return np.cumsum([0, *sizes])[:-1].astype("<i4")


def pack(columns: Columns) -> bytes:
    """For the store; `unpack` reads it."""
    words = msgspec.msgpack.encode(columns.words)
    counts = len(words), len(columns.calls), len(columns.legs), len(columns.turns)
    tables = columns.calls.tobytes() + columns.legs.tobytes() + columns.turns.tobytes()
    return _HEAD.pack(VERSION, *counts) + zlib.compress(words + tables, 1)


def unpack(data: bytes) -> Columns:
    """Raises NotColumns for what `pack` of this version has not made."""
    try:
        version, size, calls, legs, turns = _HEAD.unpack_from(data)
        if version != VERSION:
            raise NotColumns(f"an hour of calls is kept as version {version}, and this is version {VERSION}")
        room = size + calls * CALL.itemsize + legs * LEG.itemsize + turns * TURN.itemsize
        stream = zlib.decompressobj()
        body = stream.decompress(data[_HEAD.size :], room + 1)
        if len(body) != room or not stream.eof:
            raise NotColumns("an hour of calls is kept in another length than it says")
        words = msgspec.msgpack.decode(body[:size], type=tuple[str, ...])
        of_calls = np.frombuffer(body, CALL, calls, size)
        of_legs = np.frombuffer(body, LEG, legs, size + of_calls.nbytes)
        of_turns = np.frombuffer(body, TURN, turns, size + of_calls.nbytes + of_legs.nbytes)
    except (struct.error, zlib.error, ValueError, msgspec.MsgspecError) as error:
        raise NotColumns("an hour of calls cannot be read") from error
    return Columns(words, of_calls, of_legs, of_turns)


def microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _US


def instant(us: int) -> datetime:
    return _EPOCH + us * _US


def _us(at: datetime | None) -> int:
    return NEVER if at is None else microseconds(at)


def _small(count: int) -> int:
    return min(max(count, 0), 65535)
