"""Detail records and reports from what events have written, with hours open and closed, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import update

from sipagent.core.clock import Stamp
from sipagent.core.events import Event
from sipagent.core.states import TransferState
from sipagent.reports.closing import close_hours
from sipagent.reports.reading import Reports, hour_of
from sipagent.reports.report import Question, Report
from sipagent.reports.settings import PriceSettings
from sipagent.store.engine import make_engine
from sipagent.store.recorder import Recorder
from sipagent.store.records import CallFilter, CallStory
from sipagent.store.report_queries import HourWriter, ReportQueries
from sipagent.store.resource_models import ReportHour

from .story import START, Story

NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
PRICES = [PriceSettings(of="minute", price=0.6), PriceSettings(of="tts_character", price=0.001)]
MONTH = Question(
    begin=datetime(2026, 3, 1, tzinfo=UTC), end=datetime(2026, 4, 1, tzinfo=UTC), by="hour", zone="Europe/Berlin"
)


@pytest.fixture
def queries(url: str) -> Iterator[ReportQueries]:
    queries = ReportQueries(url)
    yield queries
    queries.close()


async def told(url: str, *stories: list[Event]) -> None:
    recorder = Recorder(url, clock=lambda: Stamp(0, NOW))
    recorder.start()
    for events in stories:
        for event in events:
            recorder.emit(event)
    await recorder.flush()
    assert await recorder.close() == 0


def closed(url: str, queries: ReportQueries, prices: list[PriceSettings] = PRICES) -> int:
    writer = HourWriter(url)
    try:
        return close_hours(queries, writer, prices, "EUR", NOW, most=100)
    finally:
        writer.close()


def asked(queries: ReportQueries, question: Question = MONTH, prices: list[PriceSettings] = PRICES) -> Report:
    return Reports(queries, prices, "EUR").report(question, NOW)


async def test_a_call_in_detail_is_what_happened(url: str, queries: ReportQueries) -> None:
    story = Story()
    await told(url, story.whole())
    page = Reports(queries, PRICES, "EUR").details(CallFilter(), NOW)
    (call,) = page.calls
    (leg,) = call.legs
    assert (call.id, call.agent, call.trunk, call.turns) == (story.call_id, "desk", "carrier", 1)
    assert call.latency is not None and call.latency.p50 == 500.0
    assert leg.q850 == 16 and not leg.q850_by_peer and leg.id == story.leg_id
    assert call.billable_s == leg.billable_s > 0
    assert [transfer.state for transfer in call.transfers] == [TransferState.COMPLETED]
    assert {charge.kind for charge in call.charges} == {"minute", "tts_character"} and call.cost > 0
    assert list(Reports(queries, PRICES, "EUR").details_between(MONTH.begin, MONTH.end, NOW)) == page.calls


async def test_closed_hours_tell_the_same(url: str, queries: ReportQueries) -> None:
    stories = [Story(START + timedelta(minutes=25 * n), to_number=f"10{n % 3}").whole() for n in range(12)]
    up = Story(datetime(2026, 3, 29, 9, 30, tzinfo=UTC))
    await told(url, *stories, up.arrives() + up.is_answered())
    before = asked(queries)
    assert before.total.calls == 13 and before.total.up == 1 and before.total.cost > 0
    assert closed(url, queries) == 10  # from 0:00 to 11:00 UTC, without that of the call that is up
    assert closed(url, queries) == 0
    assert asked(queries) == before
    # Their costs are fixed: the price may change. The call that is up has none yet.
    assert asked(queries, prices=[]).total.cost == before.total.cost
    for by in ("trunk", "number", "q850", "day"):
        question = msgspec.structs.replace(MONTH, by=by)
        rows = asked(queries, question).rows
        assert sum(row.calls for row in rows) == 13


async def test_what_was_free_when_its_hour_was_closed_stays_so(url: str, queries: ReportQueries) -> None:
    await told(url, Story().whole())
    assert closed(url, queries, prices=[]) > 0
    reports = Reports(queries, PRICES, "EUR")
    assert [call.cost for call in reports.details(CallFilter(), NOW).calls] == [0.0]
    assert [call.cost for call in reports.details_between(MONTH.begin, MONTH.end, NOW)] == [0.0]
    assert asked(queries).total.cost == 0.0


async def test_closed_hours_of_the_day_before_are_not_read_by_row(
    url: str, queries: ReportQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(url, Story().whole())
    closed(url, queries)
    read: list[datetime] = []
    between = queries.stories_between

    def watched(begin: datetime, end: datetime) -> Iterator[list[CallStory]]:
        read.extend(begin + timedelta(hours=n) for n in range((end - begin) // timedelta(hours=1)))
        return between(begin, end)

    monkeypatch.setattr(queries, "stories_between", watched)
    next_day = Question(begin=START + timedelta(hours=5), end=START + timedelta(hours=6), by="total")
    assert asked(queries, next_day).total.calls == 0
    assert read == []


async def test_hours_with_calls_that_are_up_are_not_read_again_and_again(
    url: str, queries: ReportQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = Story()
    await told(url, up.arrives() + up.is_answered(), Story(START + timedelta(hours=2)).whole())
    read: list[datetime] = []
    between = queries.stories_between

    def watched(begin: datetime, end: datetime) -> Iterator[list[CallStory]]:
        read.append(begin)
        return between(begin, end)

    monkeypatch.setattr(queries, "stories_between", watched)
    monkeypatch.setattr(HourWriter, "keep", lambda *_: False)  # another node was first
    writer = HourWriter(url)
    assert close_hours(queries, writer, PRICES, "EUR", NOW, most=4) == 0
    assert len(read) == 4, "hours that cannot be closed are tried, too"
    read.clear()
    close_hours(queries, writer, PRICES, "EUR", NOW, most=1000)
    writer.close()
    assert hour_of(START) not in read and hour_of(START) + timedelta(hours=1) in read


async def test_a_call_that_comes_late_opens_its_hour(url: str, queries: ReportQueries) -> None:
    await told(url, Story().whole())
    assert closed(url, queries) > 0
    late = Story(START + timedelta(minutes=1))
    await told(url, late.whole())
    assert asked(queries).total.calls == 2
    assert closed(url, queries) == 1
    assert asked(queries).total.calls == 2 and asked(queries, prices=[]).total.cost == asked(queries).total.cost > 0


async def test_a_call_across_the_boundary_counts_where_it_began(url: str, queries: ReportQueries) -> None:
    """The story's call begins two seconds before clocks change and lasts on."""
    await told(url, Story().whole())
    first = Question(begin=START - timedelta(seconds=10), end=START + timedelta(seconds=5), by="total")
    second = Question(begin=first.end, end=first.end + timedelta(hours=1), by="total")
    for _ in range(2):
        one, two = (asked(queries, question).total for question in (first, second))
        assert (one.calls, two.calls) == (1, 0)
        assert (one.peak, two.peak) == (1, 1)  # but it was up in both
        assert two.peak_at == second.begin
        closed(url, queries)
    rows = [row for row in asked(queries).rows if row.calls or row.peak]
    assert [row.key for row in rows] == ["2026-03-29 01:00+01:00", "2026-03-29 03:00+02:00"]
    assert [row.calls for row in rows] == [1, 0]


async def test_an_hour_that_cannot_be_read_is_read_from_its_rows(url: str, queries: ReportQueries) -> None:
    await told(url, Story().whole())
    before = asked(queries)
    closed(url, queries)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(update(ReportHour).values(data=b"\x01 nonsense"))
    engine.dispose()
    assert asked(queries).total.calls == before.total.calls


async def test_detail_records_are_read_in_pages(url: str, queries: ReportQueries) -> None:
    stories = [Story(START + timedelta(seconds=n)) for n in range(7)]
    await told(url, *(story.whole() for story in stories))
    reports, found, cursor = Reports(queries, [], "EUR"), [], None
    while True:
        page = reports.details(CallFilter(limit=3, cursor_after=cursor, trunk="carrier", agent="desk"), NOW)
        found += [call.id for call in page.calls]
        cursor = page.next_cursor
        if not page.has_more:
            break
    assert found == sorted((story.call_id for story in stories), reverse=True)
    assert reports.details(CallFilter(agent="nobody"), NOW).calls == []
