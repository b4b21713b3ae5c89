"""Who may use the API, what they changed, and what they asked for once."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError, StatementError
from sqlalchemy.orm import Session

from sipagent.store.resource_models import ApiKey, AuditRow, IdempotencyKey, Node

KEEP_ANSWERS = timedelta(hours=24)
UNFINISHED = 0  # the status of what was begun
_AUDIT = cast(Table, AuditRow.__table__)


class ApiKeyRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    name: str
    hash: str
    scopes: list[str]
    rate_per_s: float | None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class AuditRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    at: datetime
    key_id: str
    node: str
    action: str
    resource: str
    status: int
    detail: str = ""


class KeptAnswer(msgspec.Struct, kw_only=True, frozen=True):
    """`status` is UNFINISHED for what was begun and has not ended, or whose node has."""

    fingerprint: str
    status: int
    body: str
    at: datetime


class NodeRecord(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    url: str
    version: str
    state: str
    started_at: datetime
    seen_at: datetime
    calls_active: int
    max_calls: int


# --- keys -----------------------------------------------------------------------------------------------------


def keys_version(session: Session) -> tuple[Any, ...]:
    """Changes when a key is made or revoked."""
    counted = select(func.count(), func.count(ApiKey.revoked_at), func.max(ApiKey.id))
    return tuple(session.execute(counted).one())


def keys(session: Session) -> list[ApiKeyRecord]:
    """Newest first."""
    names = ApiKeyRecord.__struct_fields__
    rows = session.scalars(select(ApiKey).order_by(ApiKey.id.desc()))
    return [msgspec.convert({name: getattr(row, name) for name in names}, ApiKeyRecord) for row in rows]


def add_key(session: Session, key: ApiKeyRecord) -> None:
    session.add(ApiKey(**msgspec.structs.asdict(key)))


def revoke_key(session: Session, key_id: str, at: datetime) -> None:
    session.execute(update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=at))


def used_keys(session: Session, used: Mapping[str, datetime]) -> None:
    for key_id, at in used.items():
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=at))


# --- audit ----------------------------------------------------------------------------------------------------


def write_down(session: Session, rows: Sequence[AuditRecord], used: Mapping[str, datetime]) -> list[AuditRecord]:
    """Returns the rows that the database does not take: they keep no others from being written."""
    refused = [] if _add_audit(session, rows) else [row for row in rows if not _add_audit(session, [row])]
    used_keys(session, used)
    return refused


def _add_audit(session: Session, rows: Sequence[AuditRecord]) -> bool:
    """All of them, or none. False where the database refuses one; raises what is the database's own failure."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    # a commit that we did not hear of has written them before
    statement = insert(_AUDIT).on_conflict_do_nothing()
    try:
        with session.begin_nested():
            if rows:
                session.execute(statement, [msgspec.structs.asdict(row) for row in rows])
    except (OperationalError, InterfaceError):
        raise
    except StatementError:
        return False
    return True


def audit_page(session: Session, limit: int, after: str | None) -> list[AuditRecord]:
    """Newest first, of at most `limit`; `after` is the id of the last one of the page before."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if after is not None:
        query = query.where(AuditRow.id < after)
    names = AuditRecord.__struct_fields__
    rows = session.scalars(query)
    return [msgspec.convert({name: getattr(row, name) for name in names}, AuditRecord) for row in rows]


# --- answers --------------------------------------------------------------------------------------------------


def begin(session: Session, scope: str, key: str, fingerprint: str, at: datetime) -> KeptAnswer | None:
    """None when it was not asked for before: it counts as begun then. Forgets what is older than KEEP_ANSWERS."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.at < at - KEEP_ANSWERS))
    row = session.get(IdempotencyKey, (scope, key))
    if row is not None:
        return KeptAnswer(fingerprint=row.fingerprint, status=row.status, body=row.body, at=row.at)
    session.add(IdempotencyKey(scope=scope, key=key, fingerprint=fingerprint, status=UNFINISHED, body="", at=at))
    return None


def finish(session: Session, scope: str, key: str, status: int, body: str) -> None:
    asked = update(IdempotencyKey).where(IdempotencyKey.scope == scope, IdempotencyKey.key == key)
    session.execute(asked.values(status=status, body=body))


def forget(session: Session, scope: str, key: str) -> None:
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.scope == scope, IdempotencyKey.key == key))


# --- nodes ----------------------------------------------------------------------------------------------------


def seen(session: Session, node: NodeRecord) -> None:
    session.merge(Node(**msgspec.structs.asdict(node)))


def nodes(session: Session) -> list[NodeRecord]:
    names = NodeRecord.__struct_fields__
    rows = session.scalars(select(Node).order_by(Node.name))
    return [msgspec.convert({name: getattr(row, name) for name in names}, NodeRecord) for row in rows]
