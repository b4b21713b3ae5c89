"""Call-detail records and reports: as JSON, and where a person reads them as CSV or HTML."""

from datetime import datetime
from zoneinfo import ZoneInfo

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import field_error
from sipagent.api.http import json_answer, read_parameters
from sipagent.api.reports.types import AskReport, DetailsPage, ListDetails, Period
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared
from sipagent.core import clock
from sipagent.reports import periods
from sipagent.reports.report import Question, Report
from sipagent.reports.tables import report_csv
from sipagent.store.records import CallFilter


class ReportHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._reports = backend.reports

    async def report(self, request: web.Request) -> web.Response:
        return json_answer(await self._report(self._question(request)))

    async def report_csv(self, request: web.Request) -> web.Response:
        return web.Response(text=report_csv(await self._report(self._question(request))), content_type="text/csv")

    async def report_html(self, request: web.Request) -> web.Response:
        question = self._question(request)
        try:
            return web.Response(text=await self._reports.page(question), content_type="text/html")
        except ValueError as error:
            raise field_error("from", str(error)) from error

    async def list_details(self, request: web.Request) -> web.Response:
        asked = read_parameters(request, ListDetails)
        if asked.cursor_after is not None and asked.cursor_before is not None:
            raise field_error("cursor_after", "cannot be used together with cursor_before")
        zone, now = self._zone(asked.zone), clock.now().wall
        wanted = CallFilter(
            created_after=None if asked.since is None else _moment("from", asked.since, zone, now),
            created_before=None if asked.to is None else _moment("to", asked.to, zone, now),
            direction=asked.direction,
            trunk=asked.trunk,
            agent=asked.agent,
            from_number=asked.from_number,
            to_number=asked.to_number,
            limit=asked.limit,
            cursor_after=asked.cursor_after,
            cursor_before=asked.cursor_before,
        )
        page = await self._reports.details(wanted)
        return json_answer(
            DetailsPage(
                data=page.calls,
                next_cursor=page.next_cursor,
                previous_cursor=page.previous_cursor,
                has_more=page.has_more,
            )
        )

    async def details_csv(self, request: web.Request) -> web.Response:
        begin, end, _ = self._period(read_parameters(request, Period))
        try:
            return web.Response(text=await self._reports.details_csv(begin, end), content_type="text/csv")
        except ValueError as error:
            raise field_error("from", str(error)) from error

    async def _report(self, question: Question) -> Report:
        try:
            return await self._reports.report(question)
        except ValueError as error:
            raise field_error("by", str(error)) from error

    def _question(self, request: web.Request) -> Question:
        asked = read_parameters(request, AskReport)
        begin, end, zone = self._period(asked)
        return Question(
            begin=begin,
            end=end,
            by=asked.by or periods.fitting(begin, end),
            zone=zone.key,
            direction=asked.direction,
            trunk=asked.trunk,
            number=asked.number,
            agent=asked.agent,
        )

    def _period(self, asked: Period) -> tuple[datetime, datetime, ZoneInfo]:
        zone, now = self._zone(asked.zone), clock.now().wall
        begin = _moment("from", asked.since, zone, now)
        end = now if asked.to is None else _moment("to", asked.to, zone, now)
        if begin >= end:
            raise field_error("from", "is not before the end of the period")
        return begin, end, zone

    def _zone(self, name: str) -> ZoneInfo:
        try:
            return periods.zone_named(name or self._reports.time_zone)
        except ValueError as error:
            raise field_error("zone", str(error)) from error


def _moment(field: str, text: str, zone: ZoneInfo, now: datetime) -> datetime:
    try:
        return periods.moment(text, zone, now, end=field == "to")
    except ValueError as error:
        raise field_error(field, str(error)) from error


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/reports",
        handler=ReportHandlers.report,
        summary="Calls of a period, added up by hour, day, trunk, number, agent or cause",
        query=AskReport,
        answers={200: Report},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/reports.csv",
        handler=ReportHandlers.report_csv,
        summary="A report as CSV",
        query=AskReport,
        answers={200: None},
        media="text/csv",
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/reports.html",
        handler=ReportHandlers.report_html,
        summary="A report as one HTML file with charts",
        query=AskReport,
        answers={200: None},
        media="text/html",
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/cdrs",
        handler=ReportHandlers.list_details,
        summary="Calls in detail with their legs, newest first",
        query=ListDetails,
        answers={200: DetailsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/cdrs.csv",
        handler=ReportHandlers.details_csv,
        summary="Calls of a period in detail as CSV, a line for each leg",
        query=Period,
        answers={200: None},
        media="text/csv",
        refusals=(422, 503),
    ),
)
