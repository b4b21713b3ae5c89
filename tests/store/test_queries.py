"""The read side: pages that neither skip nor repeat, filters, and no way to write."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree

from sipagent.core.states import LegState
from sipagent.store import queries as queries_module
from sipagent.store.engine import make_engine
from sipagent.store.queries import READ_THREADS, Queries, StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.records import CallFilter, RecordUnavailable

from .conftest import Servers
from .story import START, Story


@pytest.fixture
def queries(url: str) -> Iterator[Queries]:
    queries = Queries(url)
    yield queries
    queries.close()


async def write(url: str, *stories: Story) -> None:
    recorder = Recorder(url)
    for story in stories:
        for item in story.arrives():
            recorder.emit(item)
    recorder.start()
    assert await recorder.close() == 0


def many(count: int) -> list[Story]:
    return sorted(
        (Story(start=START + timedelta(minutes=i), from_number=f"+49{i % 3}") for i in range(count)),
        key=lambda story: story.call_id,
    )


async def test_pages_forward_and_back_show_each_call_once(url: str, queries: Queries) -> None:
    stories = many(25)
    await write(url, *stories)
    newest_first = [story.call_id for story in reversed(stories)]

    forward, page = [], queries.list_calls(CallFilter(limit=10))
    assert page.previous_cursor is None
    forward += [call.id for call in page.calls]
    while page.next_cursor:
        assert page.has_more
        page = queries.list_calls(CallFilter(limit=10, cursor_after=page.next_cursor))
        forward += [call.id for call in page.calls]
    assert not page.has_more
    assert forward == newest_first

    back: list[str] = [call.id for call in page.calls]
    while page.previous_cursor:
        page = queries.list_calls(CallFilter(limit=10, cursor_before=page.previous_cursor))
        assert page.has_more
        back = [call.id for call in page.calls] + back
    assert back == newest_first


async def test_calls_that_arrive_meanwhile_shift_no_page(url: str, queries: Queries) -> None:
    stories = many(6)
    await write(url, *stories)
    first = queries.list_calls(CallFilter(limit=3))
    await write(url, *many(3))
    second = queries.list_calls(CallFilter(limit=3, cursor_after=first.next_cursor))
    seen = [call.id for call in (*first.calls, *second.calls)]
    assert seen == [story.call_id for story in reversed(stories)]
    newer = queries.list_calls(CallFilter(limit=3, cursor_before=first.calls[0].id))
    assert len(newer.calls) == 3 and newer.next_cursor == newer.calls[-1].id


async def test_filters(url: str, queries: Queries) -> None:
    stories = many(9)
    await write(url, *stories)

    def found(wanted: CallFilter) -> int:
        return len(queries.list_calls(wanted).calls)

    assert found(CallFilter(from_number="+490")) == 3
    assert found(CallFilter(to_number="100")) == 9
    assert found(CallFilter(to_number="%")) == 0
    assert found(CallFilter(created_after=START + timedelta(minutes=6))) == 3
    assert found(CallFilter(created_before=START + timedelta(minutes=6))) == 6
    await write(url)  # a start closes what was left open
    assert found(CallFilter(state=LegState.ENDED)) == 9
    assert found(CallFilter(state=LegState.SETUP)) == 0


@pytest.mark.parametrize(
    "wanted",
    [CallFilter(limit=0), CallFilter(limit=101), CallFilter(cursor_after="a", cursor_before="b")],
)
def test_a_page_that_cannot_be_is_refused(sqlite_url: str, wanted: CallFilter) -> None:
    queries = Queries(sqlite_url)
    with pytest.raises(ValueError):
        queries.list_calls(wanted)
    queries.close()


def test_an_empty_database_has_an_empty_page(queries: Queries) -> None:
    page = queries.list_calls()
    assert (page.calls, page.next_cursor, page.previous_cursor, page.has_more) == ([], None, None, False)
    assert queries.get_call("call_none") is None


def test_the_read_side_cannot_write(url: str) -> None:
    engine = make_engine(url, read_only=True)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="(?i)read-?only"):
        connection.execute(text("DELETE FROM calls"))
    engine.dispose()


async def test_reads_from_an_event_loop(url: str) -> None:
    story = Story()
    await write(url, story)
    reads = StoreReads(url)
    page = await reads.list_calls(CallFilter())
    full = await reads.get_call(story.call_id)
    assert full is not None and full.call == page.calls[0]
    assert await reads.registrations() == []
    await reads.close()


class ReadThreads:
    """The threads of reads that began since this was made."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def count(self) -> int:
        new = set(threading.enumerate()) - self._before
        return sum(thread.name.startswith("record-reads") for thread in new)

    async def gone(self) -> bool:
        deadline = time.monotonic() + 10
        while self.count() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return not self.count()


@pytest.mark.peer
async def test_reads_that_hang_hold_up_neither_other_work_nor_the_close(postgres_url: str) -> None:
    threads = ReadThreads()
    reads, engine = StoreReads(postgres_url), make_engine(postgres_url)
    await reads.list_calls(CallFilter())
    with engine.connect() as locker:
        locker.execute(text("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE"))
        hanging = [asyncio.create_task(reads.list_calls(CallFilter())) for _ in range(40)]
        await asyncio.sleep(0.3)
        assert threads.count() == READ_THREADS
        began = time.monotonic()
        await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(40)))
        await reads.close()
        assert time.monotonic() - began < 1
        ends = await asyncio.gather(*hanging, return_exceptions=True)
        assert sum(isinstance(end, RecordUnavailable) for end in ends) == READ_THREADS
        assert sum(isinstance(end, asyncio.CancelledError) for end in ends) == 40 - READ_THREADS
        assert await threads.gone()  # the interpreter would wait for them
    engine.dispose()


@pytest.mark.peer
async def test_a_server_that_stands_still_does_not_hold_up_the_close(servers: Servers, postgres_url: str) -> None:
    threads = ReadThreads()
    reads = StoreReads(postgres_url)
    await reads.list_calls(CallFilter())
    with servers.postgres.standing_still(postgres_url):
        hanging = asyncio.create_task(reads.list_calls(CallFilter()))
        await asyncio.sleep(0.2)
        assert not hanging.done()
        began = time.monotonic()
        await reads.close()
        assert time.monotonic() - began < 1
        await asyncio.wait([hanging], timeout=10)  # it may try one new connection, for as long as connecting may take
    assert isinstance(hanging.exception(), RecordUnavailable)
    assert await threads.gone()


def test_no_free_connection_is_a_record_that_cannot_be_read(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_free(_engine: object) -> None:
        raise NoneFree("QueuePool limit of size 4 overflow 4 reached")

    queries = Queries(sqlite_url)
    monkeypatch.setattr(queries_module, "Session", none_free)
    with pytest.raises(RecordUnavailable, match="every connection to it is in use"):
        queries.list_calls()
    queries.close()


async def test_recordings_are_found_by_call_by_id_and_with_their_leg(url: str, queries: Queries) -> None:
    story = Story()
    recorder = Recorder(url)
    for item in [*story.arrives(), *story.is_answered(), *story.other_facts(5.0), *story.ends()]:
        recorder.emit(item)
    recorder.start()
    assert await recorder.close() == 0
    (found,) = queries.recordings(story.call_id)
    assert (found.state, found.ms, found.bytes, found.leg_id) == ("done", 9000, 288_044, story.leg_id)
    assert queries.recording(found.id) == found and queries.recording("rec_none") is None
    full = queries.get_call(story.call_id)
    assert full is not None and full.call.legs[0].recordings == [found.id]
    assert queries.recordings("call_none") == []
