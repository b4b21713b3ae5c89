"""What is too old goes, table by table, a little at a time: nobody waits long for the database meanwhile."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, delete, exists, literal_column, select, update
from sqlalchemy.orm import Session

from sipagent.core import clock
from sipagent.core.errors import where
from sipagent.core.ids import first_id
from sipagent.core.states import LegState
from sipagent.store.access import KEEP_ANSWERS
from sipagent.store.changes import CALLS, EVENTS, QUALITY, SIP_MESSAGES, TOOL_CALLS, TURNS
from sipagent.store.recording_files import ERASED, OVER, RECORDINGS, RecordingFiles
from sipagent.store.resource_models import AuditRow, IdempotencyKey, WebhookDelivery
from sipagent.store.settings import RetentionSettings
from sipagent.store.writing import StoreWrites

log = logging.getLogger(__name__)

CHUNK = 500  # rows in one transaction
CALLS_CHUNK = 50  # each with some hundred rows of others
PAUSE_S = 0.1  # between two transactions
EVERY_S = 3600.0
_WEBHOOKS = cast(Table, WebhookDelivery.__table__)
_KEPT = cast(Table, IdempotencyKey.__table__)

Step = Callable[[Session], int]  # takes away some rows, returns how many; 0 when there are no more


def steps(settings: RetentionSettings, now: datetime, files: RecordingFiles) -> dict[str, Step]:
    """What there is to do, by table."""
    found: dict[str, Step] = {}

    def old(days: int) -> datetime:
        return now - timedelta(days=days)

    for table, column, prefix, days in (
        # ids begin with their time, and there is an index on each
        (TURNS, "id", "turn", settings.turns_days),
        (TOOL_CALLS, "id", "tool", settings.tool_calls_days),
        (EVENTS, "id", "evt", settings.events_days),
        (SIP_MESSAGES, "call_id", "call", settings.sip_messages_days),
        (QUALITY, "call_id", "call", settings.quality_days),
    ):
        if days:
            found[table.name] = _deletes(table, table.c[column] < first_id(prefix, old(days)))
    for model, column, days in (
        (WebhookDelivery, "created_at", settings.webhook_deliveries_days),
        (AuditRow, "at", settings.audit_days),
    ):
        if days:
            table = cast(Table, model.__table__)
            found[table.name] = _deletes(table, table.c[column] < old(days))
    found[_KEPT.name] = _deletes(_KEPT, _KEPT.c.at < now - KEEP_ANSWERS)
    if settings.recordings_days:
        cutoff = old(settings.recordings_days)
        found["recordings"] = lambda session: _old_recordings(session, cutoff, files)
    if settings.calls_days:
        last = old(settings.calls_days)
        found["calls"] = lambda session: _old_calls(session, last, files)
    return found


def _deletes(table: Table, which: ColumnElement[bool]) -> Step:
    def step(session: Session) -> int:
        row: ColumnElement[Any] = literal_column("ctid" if session.get_bind().dialect.name == "postgresql" else "rowid")
        some = select(row).select_from(table).where(which).limit(CHUNK)
        return _count(session.execute(delete(table).where(row.in_(some))))

    return step


def _old_recordings(session: Session, cutoff: datetime, files: RecordingFiles) -> int:
    rows = RECORDINGS.c
    query = (
        select(rows.id, rows.file).where(rows.started_at < cutoff, rows.state.in_(OVER), files.are_here).limit(CHUNK)
    )
    found = session.execute(query).all()
    for _, file in found:
        files.erase(file)
    ids = [key for key, _ in found]
    session.execute(update(RECORDINGS).where(rows.id.in_(ids)).values(state=ERASED, file="", detail="by age"))
    return len(found)


def _old_calls(session: Session, cutoff: datetime, files: RecordingFiles) -> int:
    elsewhere = exists().where(RECORDINGS.c.call_id == CALLS.c.id, RECORDINGS.c.file != "", ~files.are_here)
    query = select(CALLS.c.id).where(CALLS.c.setup_at < cutoff, CALLS.c.state == LegState.ENDED, ~elsewhere)
    ids = list(session.scalars(query.limit(CALLS_CHUNK)))
    for file in session.scalars(select(RECORDINGS.c.file).where(RECORDINGS.c.call_id.in_(ids))):
        files.erase(file)
    _delete_calls(session, ids)
    return len(ids)


def _delete_calls(session: Session, ids: Sequence[str]) -> None:
    """With all that belongs to them but the files of recordings."""
    for table in (EVENTS, _WEBHOOKS):  # these do not go with their call by themselves
        session.execute(delete(table).where(table.c.call_id.in_(ids)))
    session.execute(delete(CALLS).where(CALLS.c.id.in_(ids)))


def _count(result: Any) -> int:
    return int(result.rowcount)


class Retention:
    """Looks once an hour, and at its start."""

    def __init__(self, settings: RetentionSettings, writes: StoreWrites, files: RecordingFiles) -> None:
        self._settings = settings
        self._writes = writes
        self._files = files
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="retention")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            await self.sweep(clock.now().wall)
            await asyncio.sleep(EVERY_S)

    async def sweep(self, now: datetime, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> dict[str, int]:
        """Takes away all that is too old; returns how many rows, by table. What fails is told and tried again later."""
        gone: dict[str, int] = {}
        for table, step in steps(self._settings, now, self._files).items():
            try:
                while count := await self._writes.run(step):
                    gone[table] = gone.get(table, 0) + count
                    await pause(PAUSE_S)
            except Exception as error:  # whatever it was, the other tables and the next hour are not to pay for it
                log.error("old rows could not be deleted", extra={"table": table, "error": where(error)})
        if gone:
            log.info("old rows are deleted", extra={"rows": gone})
        return gone
