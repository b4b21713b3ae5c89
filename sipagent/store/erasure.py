"""A caller's data is erased on request: numbers, words, recordings. What remains of a call is that there was one.

A row of `erasures` proves it without the number: it holds a hash that whoever knows the number can make again.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, Table, case, delete, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session

from sipagent.core.ids import new_id
from sipagent.core.states import LegState
from sipagent.store.changes import CALLS, EVENTS, LEGS, SIP_MESSAGES, TOOL_CALLS, TRANSFERS, TURNS
from sipagent.store.recording_files import ERASED, RECORDINGS, RecordingFiles
from sipagent.store.resource_models import Erasure, IdempotencyKey, WebhookDelivery

GONE = "erased"  # in place of a number
SHORTEST = 3  # digits of a number
SHORTEST_IN_TEXT = 6  # characters of one that is looked for within texts: a shorter one would be found anywhere
CHUNK = 500  # rows in one statement
_CALL_ID = re.compile(r"\bcall_[0-9a-z]+")
_WEBHOOKS = cast(Table, WebhookDelivery.__table__)
_IDEMPOTENCY = cast(Table, IdempotencyKey.__table__)


class ErasureRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    at: datetime
    what: str
    number_hash: str
    counts: dict[str, int]  # rows changed or deleted, by table; "files" of recordings
    by: str


def erase_caller(session: Session, number: str, files: RecordingFiles, by: str, at: datetime) -> ErasureRecord:
    """Erase what ended calls with this number hold, in one transaction with the proof. Raises ValueError for a number
    that is none, OSError when a recording cannot be deleted.

    `counts` has what could not be erased, too: ``calls_up`` and ``recordings_elsewhere`` (of other nodes).
    """
    if sum(character.isdigit() for character in number) < SHORTEST:
        raise ValueError(f"a number has {SHORTEST} digits at least")
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql("PRAGMA secure_delete=ON")  # what is deleted is overwritten
    written = _ways_to_write(number)
    is_it = {table: or_(table.c.from_number.in_(written), table.c.to_number.in_(written)) for table in (CALLS, LEGS)}
    of_legs = select(LEGS.c.call_id).where(is_it[LEGS])
    found = session.execute(select(CALLS.c.id, CALLS.c.state).where(or_(is_it[CALLS], CALLS.c.id.in_(of_legs)))).all()
    over = [key for key, state in found if state == LegState.ENDED]
    counts = {"calls": len(over), "calls_up": len(found) - len(over)}
    for start in range(0, len(over), CHUNK):
        for name, count in _erase_calls(session, over[start : start + CHUNK], written, files).items():
            counts[name] = counts.get(name, 0) + count
    counts["idempotency_keys"] = _erase_answers(session, frozenset(over), written)
    erasure_id = new_id("erasure")
    proof = ErasureRecord(
        id=erasure_id,
        at=at,
        what="caller",
        number_hash=number_hash(erasure_id, number),
        counts={name: count for name, count in counts.items() if count},
        by=by,
    )
    session.execute(insert(Erasure).values(msgspec.structs.asdict(proof)))
    return proof


def erasures(session: Session, limit: int, after: str | None = None) -> list[ErasureRecord]:
    """Newest first, from the one before `after` on."""
    query = select(Erasure).order_by(Erasure.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Erasure.id < after)
    names = ErasureRecord.__struct_fields__
    return [ErasureRecord(**{name: getattr(row, name) for name in names}) for row in session.scalars(query)]


def number_hash(erasure_id: str, number: str) -> str:
    """Slow on purpose: there are few enough numbers to try them all."""
    digits = "".join(character for character in number if character.isdigit()).removeprefix("00")
    return hashlib.scrypt(digits.encode(), salt=erasure_id.encode(), n=1 << 14, r=8, p=1, dklen=32).hex()


def _ways_to_write(number: str) -> list[str]:
    plain = number.strip()
    bare = plain.removeprefix("+").removeprefix("00")
    return list(dict.fromkeys((plain, bare, f"+{bare}", f"00{bare}")))


def _erase_calls(session: Session, ids: Sequence[str], numbers: Sequence[str], files: RecordingFiles) -> dict[str, int]:
    def change(table: Table, **values: Any) -> int:
        return _count(session.execute(update(table).where(_of(table, ids)).values(values)))

    def without(column: ColumnElement[str]) -> ColumnElement[str]:
        return case((column.in_(numbers), GONE), else_=column)

    def parties(table: Table) -> dict[str, Any]:
        return {name: without(table.c[name]) for name in ("from_number", "to_number")}

    counts = _erase_recordings(session, ids, files)
    change(CALLS, properties={}, detail=None, **parties(CALLS))
    counts["legs"] = change(LEGS, remote_address="", remote_media=None, sip_call_id="", detail=None, **parties(LEGS))
    counts["turns"] = change(TURNS, caller_text="", agent_text="", heard_text="", details={})
    counts["tool_calls"] = change(TOOL_CALLS, arguments="", detail="")
    counts["transfers"] = change(TRANSFERS, target="", reason="")
    for table in (EVENTS, SIP_MESSAGES, _WEBHOOKS):
        counts[table.name] = _count(session.execute(delete(table).where(_of(table, ids))))
    return counts


def _erase_recordings(session: Session, ids: Sequence[str], files: RecordingFiles) -> dict[str, int]:
    rows = RECORDINGS.c
    ours = session.execute(select(rows.id, rows.file).where(_of(RECORDINGS, ids), files.are_here)).all()
    elsewhere = session.scalars(select(rows.id).where(_of(RECORDINGS, ids), ~files.are_here, rows.file != "")).all()
    erased = sum(files.erase(file) for _, file in ours)
    here = rows.id.in_([key for key, _ in ours])
    values = {"state": ERASED, "file": "", "sha256": None, "detail": "on request"}
    session.execute(update(RECORDINGS).where(here).values(values))
    return {"recordings": len(ours), "files": erased, "recordings_elsewhere": len(elsewhere)}


def _erase_answers(session: Session, ids: frozenset[str], numbers: Sequence[str]) -> int:
    """Kept answers of these calls, and those that name the number."""
    bare, kept = min(numbers, key=len), _IDEMPOTENCY.c
    rows = session.execute(select(kept.scope, kept.key, kept.body).execution_options(yield_per=CHUNK))
    gone = [
        (scope, key)
        for scope, key, body in rows
        if (len(bare) >= SHORTEST_IN_TEXT and bare in body) or not ids.isdisjoint(_CALL_ID.findall(f"{scope} {body}"))
    ]
    for start in range(0, len(gone), CHUNK):
        session.execute(delete(_IDEMPOTENCY).where(tuple_(kept.scope, kept.key).in_(gone[start : start + CHUNK])))
    return len(gone)


def _of(table: Table, ids: Sequence[str]) -> ColumnElement[bool]:
    return (table.c.id if table is CALLS else table.c.call_id).in_(ids)


def _count(result: Any) -> int:
    return int(result.rowcount)
