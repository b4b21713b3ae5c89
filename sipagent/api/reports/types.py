"""Which calls a report or a list of detail records is about."""

from typing import Annotated

import msgspec
from msgspec import Meta

from sipagent.api.types import Cursor, Request, Short
from sipagent.core.states import Direction
from sipagent.reports.cdr import CallDetail
from sipagent.reports.report import By
from sipagent.store.records import MAX_PAGE

Moment = Annotated[str, Meta(min_length=1, max_length=40)]  # "2026-03-29", "2026-03", "2026-03-29T14:30", "today"


class Period(Request, kw_only=True, frozen=True):
    """Calls that were set up in the period. A day or month that `to` names is in it; without `to` it is until now."""

    since: Moment = msgspec.field(name="from", default="today")
    to: Moment | None = None
    zone: Annotated[str, Meta(max_length=64)] = ""  # such as "Europe/Berlin"; "" is the node's


class AskReport(Period, kw_only=True, frozen=True):
    by: By | None = None  # null is hours, days or months, as the period is long
    direction: Direction | None = None
    trunk: Short | None = None
    number: Short | None = None  # of ours
    agent: Short | None = None


class ListDetails(Request, kw_only=True, frozen=True):
    """Newest first. At most one of the cursors."""

    since: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None
    zone: Annotated[str, Meta(max_length=64)] = ""  # as in Period
    direction: Direction | None = None
    trunk: Short | None = None
    agent: Short | None = None
    from_number: Short | None = None
    to_number: Short | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None
    cursor_before: Cursor | None = None


class DetailsPage(msgspec.Struct, kw_only=True, frozen=True):
    data: list[CallDetail]
    next_cursor: str | None  # for `cursor_after`
    previous_cursor: str | None  # for `cursor_before`
    has_more: bool
