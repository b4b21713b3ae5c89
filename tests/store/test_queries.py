"""The read side: pages that neither skip nor repeat, filters, and no way to write."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sipagent.core.states import LegState
from sipagent.store.engine import make_engine
from sipagent.store.queries import Queries, StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.records import CallFilter

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
