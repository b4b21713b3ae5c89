"""Call-detail records and reports of a node's record, and the hours it closes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from sipagent.core import clock
from sipagent.core.errors import SipagentError, where
from sipagent.reports import page
from sipagent.reports.cdr import CallDetail
from sipagent.reports.closing import close_hours
from sipagent.reports.reading import DetailPage, Reports
from sipagent.reports.report import Question, Report
from sipagent.reports.settings import PriceSettings, ReportSettings
from sipagent.reports.tables import details_csv
from sipagent.store.records import CallFilter
from sipagent.store.report_queries import HourWriter, ReportQueries

log = logging.getLogger(__name__)

LONGEST_DAYS = 3660
MOST_IN_CSV = 10_000
CLOSE_EVERY_S = 600.0
CLOSE_ON_S = 5.0  # between rounds while there is more to close
HOURS_A_ROUND = 12

_Answer = TypeVar("_Answer")


class LiveReports:
    """`api.reports.backend.ReportsBackend` on a node's record. One report at a time, in a thread of its own: a second
    one would only make both slower."""

    def __init__(self, url: str, settings: ReportSettings, prices: Sequence[PriceSettings]) -> None:
        self._url = url
        self._settings = settings
        self._prices = prices
        self._queries = ReportQueries(url)
        self._reports = Reports(self._queries, prices, settings.currency)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reports")
        self._closing: asyncio.Task[None] | None = None

    @property
    def time_zone(self) -> str:
        return self._settings.time_zone

    def start(self) -> None:
        """Hours are closed from now on, where the settings want that."""
        if self._settings.close_hours:
            self._closing = asyncio.create_task(self._close_hours(), name="hours of calls")

    async def close(self) -> None:
        """What is under way is broken off."""
        if self._closing is not None:
            self._closing.cancel()
            await asyncio.wait([self._closing])
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._queries.close)

    async def report(self, question: Question) -> Report:
        _check(question.begin, question.end)
        return await self._run(lambda: self._reports.report(question, clock.now().wall))

    async def page(self, question: Question) -> str:
        _check(question.begin, question.end)
        asked = page.questions(question)
        return await self._run(lambda: page.page(self._reports.reports(asked, clock.now().wall)))

    async def details(self, wanted: CallFilter) -> DetailPage:
        return await self._run(lambda: self._reports.details(wanted, clock.now().wall))

    async def details_csv(self, begin: datetime, end: datetime) -> str:
        def work() -> str:
            calls: list[CallDetail] = []
            for call in self._reports.details_between(begin, end, clock.now().wall):
                if len(calls) == MOST_IN_CSV:
                    raise ValueError(f"the period has more than {MOST_IN_CSV} calls: take a shorter one, or pages")
                calls.append(call)
            return "".join(details_csv(calls))

        return await self._run(work)

    async def _run(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _close_hours(self) -> None:
        """Reports wait for at most one round of it."""
        while True:
            more = 0
            try:
                more = await self._run(self._close_some)
            except SipagentError as error:
                log.warning("hours of calls were not closed", extra={"error": str(error)})
            except Exception as error:
                log.error("hours of calls were not closed", extra={"error": where(error)})
            await asyncio.sleep(CLOSE_ON_S if more else CLOSE_EVERY_S)

    def _close_some(self) -> int:
        writer = HourWriter(self._url)
        try:
            return close_hours(
                self._queries, writer, self._prices, self._settings.currency, clock.now().wall, HOURS_A_ROUND
            )
        finally:
            writer.close()


def _check(begin: datetime, end: datetime) -> None:
    if (end - begin).days > LONGEST_DAYS:
        raise ValueError(f"the period is longer than {LONGEST_DAYS} days")
