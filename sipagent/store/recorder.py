"""The one writer. The call path hands events over and goes on; a thread of its own commits them in batches."""

import asyncio
import itertools
import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from sipagent.core import clock as system_clock
from sipagent.core.clock import Stamp
from sipagent.core.events import Event, PartialTranscript
from sipagent.store.engine import describe, make_engine
from sipagent.store.records import RecorderStatistics
from sipagent.store.rows import EVENTS, apply, close_orphans, event_values, forget_registrations

log = logging.getLogger(__name__)

BATCH_EVENTS = 200
BATCH_MS = 200
CLOSE_LIMIT_S = 5.0
# Short, so that the thread looks up between tries and notices that it shall give up.
BUSY_TIMEOUT_MS = 1000
RETRY_FIRST_S = 0.05
RETRY_LONGEST_S = 2.0
ERROR_LOG_EVERY_S = 10.0
# How long an earlier run's session may take to be gone from the server before it counts as another node.
CLAIM_LIMIT_S = 3.0
CLAIM_EVERY_S = 0.1

READ_ONLY = "25006"  # the server we are connected to is not, or no longer, the primary
# Besides OperationalError; each can be put right while we wait.
PASSING = {
    READ_ONLY,
    "42501",  # insufficient privilege: somebody has yet to grant it
    "42P01",  # undefined table: somebody has yet to migrate
    "42703",  # undefined column: likewise
}

# The lock ends with the server's session. The server itself must notice within seconds, not hours, that a machine went
# without a word: its next start is to have the name again.
CLAIM = text(
    "SELECT pg_try_advisory_lock(hashtext(:name)), set_config('tcp_keepalives_idle', '10', false),"
    " set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)"
)


class _Flush:
    """Stands in the queue behind the events it waits for."""

    def __init__(self, done: Callable[[], None]) -> None:
        self.done = done


class _Abandoned(Exception):
    pass


class Recorder:
    """Writes events to the database at `url`; an `EventSink`.

    `backlog`: how many events may wait while the database is slow or away; more are dropped and counted.
    `node`: whose calls and registrations these are, where several nodes share one database. On PostgreSQL a lock on
    the name tells when another node has the same.
    """

    def __init__(
        self,
        url: str,
        *,
        backlog: int = 10_000,
        node: str = "",
        clock: Callable[[], Stamp] = system_clock.now,
    ) -> None:
        self._engine = make_engine(url, busy_timeout_ms=BUSY_TIMEOUT_MS)
        self._limit = backlog
        self._node = node
        self._clock = clock
        # SimpleQueue: put() never waits, not even for a lock. events: `backlog`, drop newest, count and alarm.
        self._queue: queue.SimpleQueue[Event | _Flush | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._going_on: frozenset[str] = frozenset()
        self._abandon = threading.Event()
        self._has_name = self._engine.dialect.name != "postgresql"  # a file is one node's by the lock on its folder
        self._closed = False
        self._in_hand = 0
        self._written = 0
        self._dropped = 0
        self._refused = 0
        self._lost = 0
        self._last_error = ""
        self._next_error_log = 0
        # Microseconds of the start, then one by one: grows over restarts, and JavaScript can hold it.
        self._seq = itertools.count(int(clock().wall.timestamp() * 1_000_000))

    @property
    def statistics(self) -> RecorderStatistics:
        return RecorderStatistics(
            written=self._written,
            dropped=self._dropped,
            refused=self._refused,
            backlog=self._queue.qsize() + self._in_hand,
            last_error=self._last_error,
        )

    def start(self, going_on: frozenset[str] = frozenset()) -> None:
        """Start the thread. Before the first event it closes the calls that a crash of this node left open, without
        those that are going on.

        Not while another node of the same name writes to the record: they may be that one's, and up.
        """
        if self._thread is not None:
            raise RuntimeError("the recorder was started before")
        self._going_on = going_on
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Take the event. From any thread; never waits, never raises."""
        if isinstance(event, PartialTranscript):
            return  # shown live, not stored
        if self._closed or self._queue.qsize() + self._in_hand >= self._limit:
            self._dropped += 1
            self._complain("events dropped: the record's backlog is full or closed")
            return
        self._queue.put(event)

    async def flush(self) -> None:
        """Return when everything emitted so far is committed (or given up at close)."""
        if self._thread is None or not self._thread.is_alive():
            return
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop was closed meanwhile, so nobody waits
                pass

        self._queue.put(_Flush(wake))
        if not self._thread.is_alive():
            wake()
        await done.wait()

    async def close(self) -> int:
        """Write what is left, for at most 5 s; returns how many events could not be written."""
        self._closed = True
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join, CLOSE_LIMIT_S)
            if thread.is_alive():
                self._abandon.set()
                await asyncio.to_thread(thread.join, 2 * BUSY_TIMEOUT_MS / 1000)
        self._lost += self._give_up()
        if self._lost:
            log.error("events lost at close", extra={"lost": self._lost, "error": self._last_error})
        return self._lost

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            try:
                self._settle()
            except _Abandoned:
                raise
            except Exception as error:  # today's calls are worth more than yesterday's order
                self._complain("calls left open by a crash could not be closed", error)
            stopping = False
            while not stopping:
                batch, waiting, stopping = self._collect()
                if batch:
                    self._write(batch)
                for flush in waiting:
                    flush.done()
        except _Abandoned:
            pass
        finally:
            self._closed = True
            self._lost += self._give_up()
            self._engine.dispose()

    def _collect(self) -> tuple[list[tuple[int, Event]], list[_Flush], bool]:
        """The next batch; flushes that wait for it; whether this is the last."""
        batch: list[tuple[int, Event]] = []
        deadline = 0
        while len(batch) < BATCH_EVENTS:
            try:
                timeout = max(0, deadline - system_clock.mono_ns()) / 1e9 if batch else None
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                break
            if item is None:
                return batch, [], True
            if isinstance(item, _Flush):
                return batch, [item], False
            if not batch:
                deadline = system_clock.mono_ns() + BATCH_MS * 1_000_000
            batch.append((next(self._seq), item))
            self._in_hand = len(batch)
        return batch, [], False

    def _write(self, batch: Sequence[tuple[int, Event]]) -> None:
        try:
            self._persist(lambda session: self._record(session, batch))
            self._written += len(batch)
        except _Abandoned:
            raise
        except Exception:
            # One event the database will not take must not cost its neighbours: each on its own.
            for seq, event in batch:
                self._write_alone(seq, event)
                self._in_hand -= 1
        self._in_hand = 0

    def _write_alone(self, seq: int, event: Event) -> None:
        try:
            self._persist(lambda session: self._record(session, [(seq, event)]))
            self._written += 1
            return
        except _Abandoned:
            raise
        except Exception as error:
            self._refused += 1
            self._complain("event refused by the database", error, type(event).__name__)
        try:
            self._persist(lambda session: self._keep(session, event, seq))
            self._written += 1
        except _Abandoned:
            raise
        except Exception as error:
            self._complain("event refused by the database", error, type(event).__name__)

    def _record(self, session: Session, batch: Sequence[tuple[int, Event]]) -> None:
        told: dict[str, tuple[dict[str, Any], Event]] = {}
        for seq, event in batch:
            row = event_values(event, seq)
            told.setdefault(row["id"], (row, event))
        # known: a replay, or a batch whose commit succeeded without our hearing of it
        known = set(session.scalars(select(EVENTS.c.id).where(EVENTS.c.id.in_(list(told)))))
        fresh = [both for key, both in told.items() if key not in known]
        if not fresh:
            return
        session.execute(insert(EVENTS), [row for row, _ in fresh])
        for _, event in fresh:
            apply(session, event, self._node)

    def _keep(self, session: Session, event: Event, seq: int) -> None:
        session.execute(insert(EVENTS), [event_values(event, seq)])

    def _settle(self) -> None:
        for _ in range(round(CLAIM_LIMIT_S / CLAIM_EVERY_S)):
            self._persist(self._settle_the_past)
            if self._has_name:
                return
            if self._abandon.wait(CLAIM_EVERY_S):
                raise _Abandoned
        log.error("another node of this name writes to this record; set [node] name", extra={"node": self._node})

    def _settle_the_past(self, session: Session) -> None:
        if not self._has_name:
            return
        closed = close_orphans(session, self._clock(), self._node, self._going_on)
        forget_registrations(session, self._node)
        if closed:
            log.warning("calls left open by a crash were closed", extra={"calls": closed})

    def _persist(self, work: Callable[[Session], None]) -> None:
        """Do the work in one transaction, again and again while the database is locked, full or away."""
        delay = RETRY_FIRST_S
        while True:
            try:
                with self._engine.connect() as connection:
                    self._claim(connection)
                    with Session(connection, expire_on_commit=False) as session, session.begin():
                        work(session)
                self._last_error = ""
                return
            except DBAPIError as error:
                if not _may_pass(error):
                    raise
                self._complain("the database does not take events", error)
                if _sqlstate(error) == READ_ONLY:
                    self._engine.dispose()  # the next connection may find the primary
            if self._abandon.wait(delay * random.uniform(0.75, 1.25)):
                raise _Abandoned
            delay = min(2 * delay, RETRY_LONGEST_S)

    def _claim(self, connection: Connection) -> None:
        """Have the node's name for ourselves, as long as the server's session lasts; a new session tries again.

        The pool never holds more than the one connection, this thread being its only user.
        """
        if connection.dialect.name != "postgresql":
            return
        if not connection.info.get("has_name"):  # kept as long as the session is
            connection.info["has_name"] = connection.scalar(CLAIM, {"name": f"sipagent:{self._node}"})
            connection.commit()
        self._has_name = connection.info["has_name"]

    def _give_up(self) -> int:
        """Empty the queue; returns how many events were in it and in hand."""
        lost = self._in_hand
        self._in_hand = 0
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return lost
            if isinstance(item, _Flush):
                item.done()
            elif item is not None:
                lost += 1

    def _complain(self, message: str, error: Exception | None = None, event_type: str = "") -> None:
        if error is not None:
            self._last_error = describe(error)
        now = system_clock.mono_ns()
        if now < self._next_error_log:
            return
        self._next_error_log = now + int(ERROR_LOG_EVERY_S * 1e9)
        log.error(
            message,
            extra={"dropped": self._dropped, "refused": self._refused, "event": event_type, "error": self._last_error},
        )


def _may_pass(error: DBAPIError) -> bool:
    """Whether waiting can help: locked, full, away, not migrated yet. A value it refuses, it will refuse again."""
    sqlstate = _sqlstate(error)
    if sqlstate.startswith("54"):  # PostgreSQL's "program limit exceeded": the value is too large, now and later
        return False
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return True
    return sqlstate in PASSING


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
