"""The read side: sessions of its own that cannot write, values that outlive them."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.orm import Session

from sipagent.store.engine import OpenConnections, describe, make_engine
from sipagent.store.models import Base, Call, EventRow, Leg, Registration, SipMessageRow, ToolCallRow, Transfer, Turn
from sipagent.store.records import (
    MAX_PAGE,
    CallFilter,
    CallPage,
    CallRecord,
    EventRecord,
    FullCall,
    LegRecord,
    RecordingRecord,
    RecordUnavailable,
    RegistrationRecord,
    SipMessageRecord,
    ToolCallRecord,
    TransferRecord,
    TurnRecord,
)
from sipagent.store.resource_models import Recording

READ_THREADS = 4

_Record = TypeVar("_Record", bound=msgspec.Struct)
_Answer = TypeVar("_Answer")


class Queries:
    """Blocking reads of the database at `url`; for the command line, and for `StoreReads` in threads.

    Each raises RecordUnavailable when the database is away, locked or not migrated.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url, read_only=True)
        self._connections = OpenConnections(self._engine)

    def close(self) -> None:
        """Reads under way in other threads fail, even those that wait for a server that hangs."""
        self._connections.break_off()
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with Session(self._engine) as session:
                yield session
        except NoneFree as error:
            raise RecordUnavailable("the record cannot be read: every connection to it is in use") from error
        except DBAPIError as error:
            raise RecordUnavailable(f"the record cannot be read: {describe(error)}") from error

    def ask(self, question: Callable[[Session], _Answer]) -> _Answer:
        """What the question finds in one session."""
        with self._session() as session:
            return question(session)

    def list_calls(self, wanted: CallFilter | None = None) -> CallPage:
        """One page, newest first. Pages are cut by id, so calls that arrive meanwhile shift nothing.

        Raises ValueError for a limit outside 1..100 or for two cursors.
        """
        wanted = wanted or CallFilter()
        if not 1 <= wanted.limit <= MAX_PAGE:
            raise ValueError(f"limit must be between 1 and {MAX_PAGE}")
        if wanted.cursor_after is not None and wanted.cursor_before is not None:
            raise ValueError("cursor_after and cursor_before exclude each other")
        query = _filtered(wanted).limit(wanted.limit + 1)
        with self._session() as session:
            if wanted.cursor_before is not None:
                rows = session.scalars(query.where(Call.id > wanted.cursor_before).order_by(Call.id)).all()
                newer = len(rows) > wanted.limit
                rows = rows[: wanted.limit][::-1]
                older = bool(rows)  # the cursor's own call, at least
            else:
                if wanted.cursor_after is not None:
                    query = query.where(Call.id < wanted.cursor_after)
                rows = session.scalars(query.order_by(Call.id.desc())).all()
                older = len(rows) > wanted.limit
                rows = rows[: wanted.limit]
                newer = bool(rows) and wanted.cursor_after is not None
            calls = _with_legs(session, rows)
        return CallPage(
            calls=calls,
            next_cursor=calls[-1].id if older else None,
            previous_cursor=calls[0].id if newer else None,
            has_more=older,
        )

    def get_call(self, call_id: str) -> FullCall | None:
        """Everything recorded of the call, or None."""
        with self._session() as session:
            row = session.get(Call, call_id)
            if row is None:
                return None
            turns = session.scalars(select(Turn).where(Turn.call_id == call_id).order_by(Turn.turn_index, Turn.id))
            transfers = session.scalars(
                select(Transfer).where(Transfer.call_id == call_id).order_by(Transfer.id, Transfer.step)
            )
            tool_calls = session.scalars(
                select(ToolCallRow).where(ToolCallRow.call_id == call_id).order_by(ToolCallRow.id)
            )
            events = session.scalars(select(EventRow).where(EventRow.call_id == call_id).order_by(EventRow.seq))
            return FullCall(
                call=_with_legs(session, [row])[0],
                turns=_records(turns, TurnRecord),
                transfers=_records(transfers, TransferRecord),
                tool_calls=_records(tool_calls, ToolCallRecord),
                events=_records(events, EventRecord),
            )

    def recordings(self, call_id: str) -> list[RecordingRecord]:
        """Of one call, the oldest first."""
        query = select(Recording).where(Recording.call_id == call_id).order_by(Recording.id)
        with self._session() as session:
            return _records(session.scalars(query), RecordingRecord)

    def recording(self, recording_id: str) -> RecordingRecord | None:
        with self._session() as session:
            row = session.get(Recording, recording_id)
            return _record(row, RecordingRecord) if row is not None else None

    def sip_messages(self, call_id: str) -> list[SipMessageRecord]:
        """The call's SIP messages, oldest first; those of one instant in the order of the lane."""
        rows = SipMessageRow
        query = select(rows).where(rows.call_id == call_id).order_by(rows.at, rows.dialog, rows.seq)
        with self._session() as session:
            return _records(session.scalars(query), SipMessageRecord)

    def registrations(self) -> list[RegistrationRecord]:
        """The present state of every trunk, of all nodes that share the database."""
        query = select(Registration).order_by(Registration.trunk, Registration.node)
        with self._session() as session:
            return _records(session.scalars(query), RegistrationRecord)


class StoreReads:
    """`Queries` for an event loop: each read runs in a thread.

    The threads are its own: reads that wait for a database that hangs must not hold up the work of calls.
    """

    def __init__(self, url: str) -> None:
        self._queries = Queries(url)
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="record-reads")

    async def ask(self, question: Callable[[Session], _Answer]) -> _Answer:
        return await self._read(lambda: self._queries.ask(question))

    async def list_calls(self, wanted: CallFilter) -> CallPage:
        return await self._read(lambda: self._queries.list_calls(wanted))

    async def get_call(self, call_id: str) -> FullCall | None:
        return await self._read(lambda: self._queries.get_call(call_id))

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]:
        return await self._read(lambda: self._queries.sip_messages(call_id))

    async def recordings(self, call_id: str) -> list[RecordingRecord]:
        return await self._read(lambda: self._queries.recordings(call_id))

    async def recording(self, recording_id: str) -> RecordingRecord | None:
        return await self._read(lambda: self._queries.recording(recording_id))

    async def registrations(self) -> list[RegistrationRecord]:
        return await self._read(self._queries.registrations)

    async def close(self) -> None:
        """Does not wait for reads under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._queries.close)

    async def _read(self, question: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, question)


def _filtered(wanted: CallFilter) -> Select[Any]:
    query = select(Call)
    if wanted.state is not None:
        query = query.where(Call.state == wanted.state)
    if wanted.direction is not None:
        query = query.where(Call.direction == wanted.direction)
    if wanted.trunk is not None:
        query = query.where(Call.trunk == wanted.trunk)
    if wanted.agent is not None:
        query = query.where(Call.agent == wanted.agent)
    if wanted.from_number is not None:
        query = query.where(Call.from_number == wanted.from_number)
    if wanted.to_number is not None:
        query = query.where(Call.to_number == wanted.to_number)
    if wanted.created_after is not None:
        query = query.where(Call.setup_at >= wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(Call.setup_at < wanted.created_before)
    return query


def _with_legs(session: Session, rows: Sequence[Call]) -> list[CallRecord]:
    ids = [row.id for row in rows]
    legs: dict[str, list[LegRecord]] = {call_id: [] for call_id in ids}
    recorded: dict[str | None, list[str]] = {}
    columns = select(Recording.leg_id, Recording.id).where(Recording.call_id.in_(ids)).order_by(Recording.id)
    for leg_id, recording_id in session.execute(columns):
        recorded.setdefault(leg_id, []).append(recording_id)
    for row in session.scalars(select(Leg).where(Leg.call_id.in_(ids)).order_by(Leg.id)):
        legs[row.call_id].append(_record(row, LegRecord, recordings=recorded.get(row.id, [])))
    return [_record(call, CallRecord, legs=legs[call.id]) for call in rows]


def _records(rows: Iterable[Base], kind: type[_Record]) -> list[_Record]:
    return [_record(row, kind) for row in rows]


def _record(row: Base, kind: type[_Record], **given: Any) -> _Record:
    values = {name: getattr(row, name) for name in kind.__struct_fields__ if name not in given}
    return msgspec.convert(values | given, kind)
