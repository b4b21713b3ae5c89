"""The one writer. The call path hands events over and goes on; a thread of its own commits them in batches.

On the way an event stands in the journal: a database that is away, slow, locked or full delays the record, and a
process that is killed leaves to the next one what it has not written.
"""

import asyncio
import itertools
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from sipagent.core import clock as system_clock
from sipagent.core.clock import Stamp
from sipagent.core.errors import where
from sipagent.core.events import CallEvent, Event, LegEvent, PartialTranscript
from sipagent.store.bulk import Row
from sipagent.store.changes import EVENTS, Changes, MissingCall, known_events, states_of
from sipagent.store.encoding import packed, unpacked
from sipagent.store.engine import describe, make_engine
from sipagent.store.journal import Batch, Journal
from sipagent.store.records import RecorderStatistics
from sipagent.store.rows import apply, event_values
from sipagent.store.settling import close_orphans, forget_registrations

log = logging.getLogger(__name__)

BATCH_EVENTS = 500
LINGER_S = 0.02  # after the first event of a batch: those that follow it are committed with it
GAP_S = 0.1  # at least, from commit to commit, while events keep coming
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
# What our own code raises on a value that it cannot handle, or by mistake: it will do so again.
MISTAKES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)

# The lock ends with the server's session. The server itself must notice within seconds, not hours, that a machine went
# without a word: its next start is to have the name again.
CLAIM = text(
    "SELECT pg_try_advisory_lock(hashtext(:name)), set_config('tcp_keepalives_idle', '10', false),"
    " set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)"
)


class _Abandoned(Exception):
    pass


Item = tuple[Event, Row]  # and its row in `events`


class Recorder:
    """Writes events to the database at `url`; an `EventSink`.

    `folder`: of the journal, where events wait while the database is slow or away, up to `spill_bytes`; None for
    memory. `backlog`: how many may wait in memory, without a folder or when the disk is full; more are dropped and
    counted. `redact`: blacks out what shall not be written (`store.redaction`). `node`: whose calls and registrations
    these are, where several nodes share one database. On PostgreSQL a lock on the name tells when another node has the
    same.
    """

    def __init__(
        self,
        url: str,
        *,
        folder: Path | None = None,
        spill_bytes: int = 1 << 30,
        backlog: int = 10_000,
        node: str = "",
        redact: Callable[[Event], Event] | None = None,
        clock: Callable[[], Stamp] = system_clock.now,
    ) -> None:
        self._engine = make_engine(url, busy_timeout_ms=BUSY_TIMEOUT_MS)
        self._journal = Journal(folder, spill_bytes, backlog)
        self._node = node
        self._redact = redact
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._going_on: frozenset[str] = frozenset()
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._abandon = threading.Event()
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()  # flushes, by the count they wait for
        self._has_name = self._engine.dialect.name != "postgresql"  # a file is one node's by the lock on its folder
        self._closed = False
        self._written = 0
        self._dropped = 0
        self._refused = 0
        self._last_error = ""
        self._next_error_log = 0
        self._committed_at = 0
        # Microseconds of the start, then one by one: grows over restarts, and JavaScript can hold it.
        self._seq = itertools.count(int(clock().wall.timestamp() * 1_000_000))

    @property
    def statistics(self) -> RecorderStatistics:
        return RecorderStatistics(
            written=self._written,
            dropped=self._dropped,
            refused=self._refused,
            backlog=self._journal.left + self._journal.appended - self._journal.finished,
            last_error=self._last_error,
        )

    def start(self, going_on: frozenset[str] = frozenset()) -> None:
        """Start the thread. Before the first event it writes what an earlier run has left in the journal, and closes
        the calls that a crash of this node left open, without those that are going on.

        Not while another node of the same name writes to the record: they may be that one's, and up. Raises SetupError
        when the journal's folder cannot be used.
        """
        if self._thread is not None:
            raise RuntimeError("the recorder was started before")
        self._journal.open()
        self._going_on = going_on
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Take the event. From any thread; never waits, never raises."""
        if isinstance(event, PartialTranscript):
            return  # shown live, not stored
        try:
            body = msgspec.msgpack.encode((next(self._seq), type(event).__name__, packed(event)))
        except Exception as error:  # a value that has no msgpack: a mistake of ours
            self._refused += 1
            self._complain("an event cannot be recorded", where(error), type(event).__name__)
            return
        if self._closed or not self._journal.append(body):
            self._dropped += 1
            self._complain("events dropped: the record's backlog is full or closed", self._journal.trouble)
            return
        if not self._news.is_set():
            self._news.set()

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

        self._waiting.append((self._journal.appended, wake))
        self._wake()
        if not self._thread.is_alive():
            wake()
        await done.wait()

    async def close(self) -> int:
        """Write what is left, for at most 5 s; returns how many events are lost. What the journal's files hold is
        not: the next start writes it."""
        self._closed = True
        thread = self._thread
        if thread is not None:
            self._wake()
            await asyncio.to_thread(thread.join, CLOSE_LIMIT_S)
            if thread.is_alive():
                self._abandon.set()
                await asyncio.to_thread(thread.join, 2 * BUSY_TIMEOUT_MS / 1000)
        if thread is not None and thread.is_alive():  # in the hands of a server that hangs: its batch is not done
            return self._journal.appended - self._journal.finished
        left, lost = await asyncio.to_thread(self._journal.close)
        if left:
            log.warning("events wait in the journal for the next start", extra={"events": left})
        if lost:
            log.error("events lost at close", extra={"lost": lost, "error": self._last_error})
        return lost

    def _wake(self) -> None:
        self._hurry.set()
        self._news.set()

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._write_what_was_left()
            try:
                self._settle()
            except _Abandoned:
                raise
            except Exception as error:  # today's calls are worth more than yesterday's order
                self._complain("calls left open by a crash could not be closed", _told(error))
            while True:
                closing = self._closed  # before the look into the journal: nothing comes after it
                batch = self._journal.next_batch(BATCH_EVENTS)
                if batch is not None:
                    self._write(batch)
                self._tell_who_waits()
                if batch is None:
                    if closing:
                        break
                    self._wait()
        except _Abandoned:
            pass
        finally:
            self._closed = True
            self._tell_who_waits(of_all=True)
            self._engine.dispose()

    def _wait(self) -> None:
        self._news.wait()
        self._hurry.wait(max(LINGER_S, GAP_S - (system_clock.mono_ns() - self._committed_at) / 1e9))
        self._news.clear()
        self._hurry.clear()

    def _tell_who_waits(self, of_all: bool = False) -> None:
        while self._waiting and (of_all or self._waiting[0][0] <= self._journal.finished):
            self._waiting.popleft()[1]()

    def _write_what_was_left(self) -> None:
        count = 0
        while (batch := self._journal.next_batch(BATCH_EVENTS)) is not None and batch.segment.left:
            self._write(batch)
            count += len(batch.bodies)
        if count:
            log.warning("events that an earlier run has left in the journal are written", extra={"events": count})

    def _write(self, batch: Batch) -> None:
        items = self._read(batch)
        try:
            refused: list[Event] = []
            self._persist(lambda connection: self._record(connection, items, refused))
        except _Abandoned:
            raise
        except Exception:
            # One event the database will not take must not cost its neighbours: each on its own.
            refused = []
            for item in items:
                self._write_alone(item, refused)
        for event in refused:
            self._refused += 1
            self._complain("event refused by the database", event_type=type(event).__name__)
        self._written += len(items)
        self._committed_at = system_clock.mono_ns()
        self._journal.finish(batch)

    def _write_alone(self, item: Item, refused: list[Event]) -> None:
        event, row = item
        try:
            self._persist(lambda connection: self._record(connection, [item], refused))
            return
        except _Abandoned:
            raise
        except Exception as error:
            refused.append(event)
            self._complain("event refused by the database", _told(error), type(event).__name__)
        try:
            self._persist(lambda connection: self._keep(connection, row))
        except _Abandoned:
            raise
        except Exception as error:
            self._written -= 1
            self._complain("event refused by the database", _told(error), type(event).__name__)

    def _read(self, batch: Batch) -> list[Item]:
        items: list[Item] = []
        for body in batch.bodies:
            try:
                seq, kind, data = msgspec.msgpack.decode(body, type=tuple[int, str, bytes])
                event = unpacked(kind, data)
            except (KeyError, msgspec.DecodeError) as error:  # of another version
                self._refused += 1
                self._complain("an event in the journal cannot be read", where(error))
                continue
            if self._redact is not None:
                event = self._redact(event)
            items.append((event, event_values(event, seq)))
        return items

    def _record(self, connection: Connection, items: Sequence[Item], refused: list[Event]) -> None:
        refused.clear()
        told = {row["id"]: (event, row) for event, row in reversed(items)}
        # known: a replay, or a batch whose commit succeeded without our hearing of it
        known = known_events(connection, told)
        fresh = [both for key, both in reversed(told.items()) if key not in known]
        if not fresh:
            return
        calls = [event.call_id for event, _ in fresh if isinstance(event, CallEvent)]
        legs = [event.leg_id for event, _ in fresh if isinstance(event, LegEvent)]
        changes = Changes(states_of(connection, calls, legs))
        for event, row in fresh:
            changes.insert(EVENTS, row)
            try:
                apply(changes, event, self._node)
            except MissingCall:
                refused.append(event)
        changes.write(connection)

    def _keep(self, connection: Connection, row: Row) -> None:
        changes = Changes({})
        changes.insert(EVENTS, row)
        changes.write(connection)

    def _settle(self) -> None:
        for _ in range(round(CLAIM_LIMIT_S / CLAIM_EVERY_S)):
            self._persist(self._settle_the_past)
            if self._has_name:
                return
            if self._abandon.wait(CLAIM_EVERY_S):
                raise _Abandoned
        log.error("another node of this name writes to this record; set [node] name", extra={"node": self._node})

    def _settle_the_past(self, connection: Connection) -> None:
        if not self._has_name:
            return
        closed = close_orphans(connection, self._clock(), self._node, self._going_on)
        forget_registrations(connection, self._node)
        if closed:
            log.warning("calls left open by a crash were closed", extra={"calls": closed})

    def _persist(self, work: Callable[[Connection], None]) -> None:
        """Do the work in one transaction, again and again until the database takes it: locked, full, away, not migrated
        yet or broken, it can be put right meanwhile. Raises what another try would meet again."""
        delay = RETRY_FIRST_S
        while True:
            try:
                with self._engine.connect() as connection:
                    self._claim(connection)
                    with connection.begin():
                        work(connection)
                self._last_error = ""
                return
            except Exception as error:
                if _is_final(error):
                    raise
                self._complain("the database does not take events", _told(error))
                if _sqlstate(error) == READ_ONLY or not isinstance(error, OperationalError):
                    self._engine.dispose()  # the next connection may find the primary, or a file that was put back
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

    def _complain(self, message: str, error: str = "", event_type: str = "") -> None:
        self._last_error = error or self._last_error
        now = system_clock.mono_ns()
        if now < self._next_error_log:
            return
        self._next_error_log = now + int(ERROR_LOG_EVERY_S * 1e9)
        log.error(
            message,
            extra={"dropped": self._dropped, "refused": self._refused, "event": event_type, "error": error},
        )


def _told(error: Exception) -> str:
    return describe(error) if isinstance(error, DBAPIError) else where(error)


def _is_final(error: Exception) -> bool:
    """Whether waiting cannot help, since it is the value that is refused and not the database that is in trouble."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, MISTAKES)
    if _sqlstate(error).startswith("54"):  # PostgreSQL's "program limit exceeded": the value is too large
        return True
    # the last is what SQLite's driver says of a value that is of no type it knows
    return isinstance(error, DataError | IntegrityError) or "binding parameter" in str(error.orig)


def _sqlstate(error: Exception) -> str:
    return getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""
