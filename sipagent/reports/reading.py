"""From the record to calls in detail and to reports."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from sipagent.reports.cdr import CallDetail, call_detail
from sipagent.reports.columns import Columns, NotColumns, columns_of, joined, unpack
from sipagent.reports.prices import priced
from sipagent.reports.report import Question, Report, report
from sipagent.reports.settings import PriceSettings
from sipagent.store.records import CallFilter, CallStory
from sipagent.store.report_queries import HOUR, ReportQueries

# How long before a period calls are looked for that may have reached into it, where their hour is not closed.
LONGEST_CALL = timedelta(days=1)


class DetailPage(msgspec.Struct, kw_only=True, frozen=True):
    calls: list[CallDetail]
    next_cursor: str | None
    previous_cursor: str | None
    has_more: bool


class Reports:
    """Blocking. Everything raises RecordUnavailable when the database does not answer."""

    def __init__(self, queries: ReportQueries, prices: Sequence[PriceSettings], currency: str) -> None:
        self._queries = queries
        self._prices = prices
        self._currency = currency

    def details(self, wanted: CallFilter, now: datetime) -> DetailPage:
        """A page of calls in detail, newest first. Raises ValueError as `Queries.list_calls`."""
        found = self._queries.stories(wanted)
        page = found.page
        hours = [hour_of(story.call.setup_at) for story in found.stories]
        closed = self._queries.which_closed(min(hours), max(hours) + HOUR) if hours else set()
        return DetailPage(
            calls=[self._detail(story, now, closed) for story in found.stories],
            next_cursor=page.next_cursor,
            previous_cursor=page.previous_cursor,
            has_more=page.has_more,
        )

    def details_between(self, begin: datetime, end: datetime, now: datetime) -> Iterator[CallDetail]:
        """All calls of a period in detail, oldest first."""
        closed = self._queries.which_closed(hour_of(begin), end)
        for stories in self._queries.stories_between(begin, end):
            yield from (self._detail(story, now, closed) for story in stories)

    def report(self, question: Question, now: datetime) -> Report:
        """Raises ValueError for more periods than a report may have."""
        return self.reports([question], now)[0]

    def reports(self, questions: Sequence[Question], now: datetime) -> list[Report]:
        """Several about the same period."""
        columns = self._columns(questions[0].begin, questions[0].end, now)
        return [report(columns, question, now, self._currency) for question in questions]

    def _detail(self, story: CallStory, now: datetime, closed: Collection[datetime]) -> CallDetail:
        """In a closed hour, what a call has cost was fixed, be it nothing."""
        detail = call_detail(story, now)
        if hour_of(detail.setup_at) in closed:
            return detail
        return priced(detail, story, self._prices, self._currency)

    def _columns(self, begin: datetime, end: datetime, now: datetime) -> Columns:
        """The period's calls, and those of before that reach into it: closed hours as they are kept, others by row."""
        earliest = begin - LONGEST_CALL
        closed = self._queries.which_closed(hour_of(earliest), hour_of(begin))
        parts, unreadable = [], set()
        for kept in self._queries.closed_hours(hour_of(begin), end):
            closed.add(kept.hour)
            try:
                parts.append(unpack(kept.data))
            except NotColumns:
                unreadable.add(kept.hour)  # the rows are still there
        first = self._queries.first_call_at()
        if first is not None:
            for since, until in _open(max(first, earliest), min(end, now + HOUR), closed - unreadable):
                for stories in self._queries.stories_between(since, until):
                    parts.append(columns_of(self._detail(story, now, closed) for story in stories))
        return joined(parts)


def hour_of(at: datetime) -> datetime:
    """The first instant of its hour, in UTC."""
    return at.replace(minute=0, second=0, microsecond=0)


def _open(begin: datetime, end: datetime, closed: Collection[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Stretches of hours that are not closed."""
    since: datetime | None = None
    hour = hour_of(begin)
    while hour < end:
        if hour in closed:
            if since is not None:
                yield since, hour
            since = None
        elif since is None:
            since = hour
        hour += HOUR
    if since is not None:
        yield since, hour
