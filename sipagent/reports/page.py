"""A report as one HTML file that needs nothing beside it and prints well."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from html import escape
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from sipagent.reports.charts import Series, bars, lines
from sipagent.reports.periods import boundaries, fitting
from sipagent.reports.report import By, Figures, Question, Report, Row

_HEADINGS = {
    "trunk": "By trunk",
    "number": "By number of ours",
    "agent": "By agent",
    "direction": "By direction",
    "cause": "By cause",
    "disposition": "By outcome",
    "q850": "By cause (Q.850)",
    "sip": "By SIP status",
}
BREAKDOWNS: tuple[By, ...] = ("trunk", "number", "agent", "cause", "q850")
MOST_ROWS = 40
MOST_TIMES = 400


class Column(msgspec.Struct, frozen=True):
    head: str
    field: str
    digits: int = 0
    unit: str = ""
    title: str = ""


COLUMNS = (
    Column("calls", "calls", title="calls that were set up in the period"),
    Column("seizures", "seizures", title="legs that were answered or have ended"),
    Column("answered", "answered", title="calls that were answered"),
    Column("ASR", "asr_percent", 1, " %", "answer-seizure ratio: answered seizures"),
    Column("NER", "ner_percent", 1, " %", "network effectiveness ratio: seizures that reached the user"),
    Column("ACD", "acd_s", 0, " s", "average call duration, from answer to end"),
    Column("minutes", "billable_min", 1, "", "from answer to end, of calls"),
    Column("abandoned", "abandoned_percent", 1, " %", "inbound calls that left before anybody served them"),
    Column("contained", "containment_percent", 1, " %", "calls an agent served that ended without a human"),
    Column("transfers", "transfers", title="transfers that were tried"),
    Column("done", "transferred", title="transfers that reached somebody"),
    Column("latency p50", "latency_p50_ms", 0, " ms", "the caller's last word to the agent's first"),
    Column("p95", "latency_p95_ms", 0, " ms"),
    Column("MOS p5", "mos_p5", 2, "", "19 of 20 legs were at least so good (E-model, conversational)"),
    Column("peak", "peak", title="calls at one time (legs, by trunk)"),
    Column("cost", "cost", 2),
)
DEFINITIONS = (
    ("Seizure", "a leg on a trunk that was answered or has ended; one that still rings tells nothing yet."),
    ("ASR", "answered seizures ÷ seizures (ITU-T E.411)."),
    ("NER", "seizures answered, busy, rung without answer, cancelled or rejected by the user ÷ seizures (E.425)."),
    ("ACD", "mean time from answer to end of the legs that have ended."),
    ("PDD", "post-dial delay: from our INVITE until it rings."),
    ("Abandoned", "inbound, ended by the caller unanswered, or at an agent without a word; ÷ inbound calls."),
    ("Contained", "served by an agent, and no human took part; ÷ calls that an agent served and that have ended."),
    ("Transferred", "transfers that reached somebody ÷ transfers."),
    ("Latency", "from the caller's last speech packet to the agent's first; percentiles by nearest rank."),
    ("MOS", "by the E-model (ITU-T G.107), in conversation; the 5th percentile is what the worst legs were like."),
    ("Peak", "most calls up at one time, those included that began before the period."),
)


def questions(period: Question) -> list[Question]:
    """What the page shows: the period by time, then by one thing after the other."""
    unit: By = period.by if period.by in ("hour", "day", "month") else fitting(period.begin, period.end)
    others = BREAKDOWNS if period.by in (unit, "total", *BREAKDOWNS) else (period.by, *BREAKDOWNS)
    return [msgspec.structs.replace(period, by=by) for by in (unit, *others)]


def page(reports: Sequence[Report]) -> str:
    """The answers to `questions`, as HTML."""
    times, total = reports[0], reports[0].total
    zone = ZoneInfo(times.zone)
    title = f"Calls {_span(times, zone)}"
    about = " · ".join([times.zone, *(f"{name} {value}" for name, value in times.filters.items())])
    made = f"made {times.made_at.astimezone(zone):%Y-%m-%d %H:%M}"
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(about)} · {escape(made)}</p></header>",
        _tiles(total, zone, times.currency),
        _charts(times),
        *(_breakdown(report) for report in reports[1:] if report.rows),
        _times(times),
        _definitions(),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    head += f"<style>{style}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def shown(figures: Figures, field: str, digits: int = 0, unit: str = "") -> str:
    """A figure as a person reads it."""
    value = getattr(figures, field)
    return "–" if value is None else f"{value:,.{digits}f}{unit}"


def in_column(figures: Figures, column: Column) -> str:
    return shown(figures, column.field, column.digits, column.unit)


def _span(report: Report, zone: ZoneInfo) -> str:
    begin, end = report.begin.astimezone(zone), report.end.astimezone(zone)
    whole = begin.time() == end.time() == datetime.min.time()
    if not whole:
        return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    last = boundaries(report.begin, report.end, zone, "day")[-2].astimezone(zone)
    return f"{begin:%Y-%m-%d} to {last:%Y-%m-%d}" if last.date() != begin.date() else f"{begin:%Y-%m-%d}"


def _tiles(total: Figures, zone: ZoneInfo, currency: str) -> str:
    def tile(name: str, value: str, more: str = "") -> str:
        return f"<div><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(more)}</small></div>"

    of = partial(shown, total)
    peak_at = f"at {total.peak_at.astimezone(zone):%Y-%m-%d %H:%M}" if total.peak_at else ""
    tiles = [
        tile("calls", of("calls"), f"{of('answered')} answered, {of('up')} still up"),
        tile("ASR", of("asr_percent", 1, " %"), f"NER {of('ner_percent', 1, ' %')}"),
        tile("ACD", of("acd_s", 0, " s"), f"{of('billable_min', 0)} minutes"),
        tile("at one time", of("peak"), peak_at),
        tile("abandoned", of("abandoned_percent", 1, " %"), f"{of('abandoned')} of {of('inbound')} inbound"),
        tile("contained", of("containment_percent", 1, " %"), f"{of('contained')} of {of('with_agent')}"),
        tile("transfers", of("transfers"), f"{of('transferred')} reached somebody"),
        tile("latency p50", of("latency_p50_ms", 0, " ms"), f"p95 {of('latency_p95_ms', 0, ' ms')}"),
        tile("MOS p5", of("mos_p5", 2), f"p50 {of('mos_p50', 2)}"),
        tile("PDD p50", of("pdd_p50_ms", 0, " ms"), f"p95 {of('pdd_p95_ms', 0, ' ms')}"),
    ]
    if total.cost:
        tiles.append(tile(f"cost, {currency}", of("cost", 2)))
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _charts(times: Report) -> str:
    rows = times.rows
    if not 1 < len(rows) <= MOST_TIMES:
        return ""
    labels = [row.key[5:16] if times.by == "hour" else row.key[5:] if times.by == "day" else row.key for row in rows]

    def series(name: str, field: str, kind: str) -> Series:
        return Series(name, [getattr(row, field) for row in rows], kind)

    missed = Series("not answered", [row.calls - row.answered for row in rows], "c")
    charts = [
        ("Calls", bars(labels, [series("answered", "answered", "a"), missed])),
        ("Calls at one time", bars(labels, [series("peak", "peak", "b")])),
        (
            "ASR and NER",
            lines(labels, [series("ASR", "asr_percent", "a"), series("NER", "ner_percent", "b")], " %", 100),
        ),
        (
            "Response latency",
            lines(labels, [series("p50", "latency_p50_ms", "a"), series("p95", "latency_p95_ms", "c")], " ms"),
        ),
        ("MOS", lines(labels, [series("p50", "mos_p50", "a"), series("p5", "mos_p5", "c")], "", 4.8)),
        (
            "Abandoned and contained",
            lines(
                labels,
                [series("abandoned", "abandoned_percent", "c"), series("contained", "containment_percent", "a")],
                " %",
                100,
            ),
        ),
    ]
    figures = "".join(f"<figure><h2>{name}</h2>{chart}</figure>" for name, chart in charts)
    return f'<section class="charts">{figures}</section>'


def _breakdown(report: Report) -> str:
    rows = report.rows[:MOST_ROWS]
    rest = f"<p>{len(report.rows) - len(rows)} more are not shown.</p>" if len(report.rows) > len(rows) else ""
    return f"<section><h2>{_HEADINGS[report.by]}</h2>{_table(report.by, rows, report.total)}{rest}</section>"


def _times(times: Report) -> str:
    if len(times.rows) > MOST_TIMES:
        return ""
    heading = {"hour": "By hour", "day": "By day", "month": "By month"}[times.by]
    return f"<section><h2>{heading}</h2>{_table(times.by, times.rows, times.total)}</section>"


def _table(by: str, rows: Sequence[Row], total: Figures) -> str:
    columns = [column for column in COLUMNS if column.field != "cost" or total.cost]
    heads = "".join(f'<th title="{escape(column.title)}">{column.head}</th>' for column in columns)
    most = max((row.seizures for row in rows), default=0) or 1
    lines = []
    for row in rows:
        share = f'<i style="width:{100 * row.seizures / most:.0f}%"></i>'
        cells = "".join(f"<td>{in_column(row, column)}</td>" for column in columns)
        lines.append(f"<tr><th>{escape(row.key)}{share}</th>{cells}</tr>")
    cells = "".join(f"<td>{in_column(total, column)}</td>" for column in columns)
    body = "".join(lines)
    return (
        f'<div class="wide"><table><thead><tr><th>{by}</th>{heads}</tr></thead><tbody>{body}</tbody>'
        f"<tfoot><tr><th>all</th>{cells}</tr></tfoot></table></div>"
    )


def _definitions() -> str:
    terms = "".join(f"<dt>{term}</dt><dd>{escape(text)}</dd>" for term, text in DEFINITIONS)
    return f'<section class="terms"><h2>What the figures mean</h2><dl>{terms}</dl></section>'
