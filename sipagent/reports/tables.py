"""Reports and detail records as CSV (RFC 4180, UTF-8, a head line, instants as ISO 8601 in UTC)."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from sipagent.reports.cdr import CallDetail, LegDetail
from sipagent.reports.report import Figures, Report, Row

# A spreadsheet takes such a cell for a formula, and whoever rings chooses what stands in From.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9.])")

_OF_CALL = (
    "id node state direction from_number to_number trunk dialplan route agent setup_at ringing_at answered_at ended_at "
    "billable_s disposition cause ended_by sip_status q850 abandoned human turns interrupted cost"
).split()
_OF_LEG = [name for name in LegDetail.__struct_fields__ if name not in ("effective",)]
CALL_HEAD = [
    *("call_" + name.removeprefix("call_") for name in _OF_CALL),
    *("latency_p50_ms", "latency_p95_ms", "transfers", "transfer_state", "currency"),
    *("leg_" + name for name in _OF_LEG),
]


def report_csv(report: Report) -> str:
    """A line for each row, and one for the total."""
    fields = [name for name in Row.__struct_fields__ if name != "begins_at"]
    fields.insert(1, "begins_at")
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(fields)
    for row in report.rows:
        writer.writerow([_cell(getattr(row, name)) for name in fields])
    total = {"key": "total", "begins_at": None} | msgspec.structs.asdict(report.total)
    writer.writerow([_cell(total[name]) for name in fields])
    return out.getvalue()


def details_csv(calls: Iterable[CallDetail]) -> Iterator[str]:
    """The head, then some lines at a time: one for each leg, one for a call that was refused before it had any."""
    yield _lines([CALL_HEAD])
    for call in calls:
        of_call = [getattr(call, name) for name in _OF_CALL]
        latency, last = call.latency, call.transfers[-1] if call.transfers else None
        of_call += [latency.p50 if latency else None, latency.p95 if latency else None]
        of_call += [
            len(call.transfers),
            last.state if last else None,
            call.charges[0].currency if call.charges else None,
        ]
        legs: Sequence[LegDetail | None] = call.legs or [None]
        yield _lines([*of_call, *(getattr(leg, name, None) for name in _OF_LEG)] for leg in legs)


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> str | int | float:
    match value:
        case None:
            return ""
        case bool():
            return int(value)
        case datetime():
            return value.isoformat()
        case int() | float():
            return value
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) else text


FIGURES = tuple(Figures.__struct_fields__)
