"""`sipagent report`: what came of the calls of a period."""

import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec
from rich.table import Table

from sipagent.cli import show
from sipagent.cli.options import config_option, load
from sipagent.core import clock
from sipagent.core.errors import SetupError
from sipagent.core.states import Direction
from sipagent.reports import page, periods
from sipagent.reports.reading import Reports
from sipagent.reports.report import ALL_BY, Question, Report
from sipagent.reports.tables import details_csv, report_csv
from sipagent.state_folder import database_url
from sipagent.store import engine
from sipagent.store.report_queries import ReportQueries

# In a table 80 columns wide there is room for these.
_SHORT = ("calls", "asr_percent", "ner_percent", "acd_s", "billable_min", "abandoned_percent", "containment_percent")
_MORE = ("transfers", "latency_p50_ms", "latency_p95_ms", "mos_p5", "peak", "cost")


@click.command()
@click.option(
    "--from", "since", default="today", show_default=True, help="2026-03-01, 2026-03, 2026-03-29T14:30, today."
)
@click.option("--to", "until", default="", help="The day or month is included [default: now].")
@click.option("--by", type=click.Choice(ALL_BY), help="Add up by this [default: hour, day or month, by length].")
@click.option("--zone", default="", help='Time zone, such as "Europe/Berlin" [default: [reports] time_zone].')
@click.option("--direction", type=click.Choice([each.value for each in Direction]), help="Only such calls.")
@click.option("--trunk", help="Only calls by this trunk.")
@click.option("--number", help="Only calls of this number of ours.")
@click.option("--agent", help="Only calls of this agent.")
@click.option("--cdr", is_flag=True, help="Each call in detail instead of sums; as JSON lines, or CSV.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "html"]),
    help="[default: by the name of --output, else table]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@config_option
def report(
    since: str,
    until: str,
    by: str | None,
    zone: str,
    direction: str | None,
    trunk: str | None,
    number: str | None,
    agent: str | None,
    cdr: bool,
    form: str | None,
    as_json: bool,
    output: Path | None,
    config_path: Path | None,
) -> None:
    """Answer-seizure ratio, durations, peaks, abandonment, containment, latency, quality and costs of a period's calls.

    docs/reports.md defines every figure.

    \b
      sipagent report                                  today by hour
      sipagent report --from 2026-03 --to 2026-03 --by trunk
      sipagent report --from 2026-03 -o march.html     one file with charts
      sipagent report --from yesterday --cdr -o calls.csv
    """
    config, state = load(config_path)
    url = database_url(config, state)
    if engine.current(url) is None:
        raise SetupError("there is no record yet: start `sipagent serve` (or name its configuration with -c) first")
    now = clock.now().wall
    where = _zone(zone or config.reports.time_zone)
    begin, end = _moment(since, where, now), _moment(until, where, now, end=True) if until else now
    if begin >= end:
        raise click.UsageError("--from is not before --to")
    question = msgspec.convert(
        {
            "begin": begin,
            "end": end,
            "by": by or periods.fitting(begin, end),
            "zone": where.key,
            "direction": direction,
            "trunk": trunk,
            "number": number,
            "agent": agent,
        },
        Question,
    )
    form = "json" if as_json else form or _by_name(output)
    queries = ReportQueries(url)
    try:
        reports = Reports(queries, config.prices, config.reports.currency)
        if cdr:
            _write(_details(reports, question, form, now), output)
        elif form == "html":
            _write(page.page(reports.reports(page.questions(question), now)), output)
        else:
            _show(reports.report(question, now), form, output)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    finally:
        queries.close()


def _details(reports: Reports, question: Question, form: str, now: datetime) -> str:
    if form in ("html", "table"):
        form = "json"
    calls = (
        call
        for call in reports.details_between(question.begin, question.end, now)
        if question.direction in (None, call.direction)
        and question.trunk in (None, call.trunk)
        and question.agent in (None, call.agent)
        and question.number in (None, call.to_number if call.direction is Direction.INBOUND else call.from_number)
    )
    if form == "csv":
        return "".join(details_csv(calls))
    return "".join(msgspec.json.encode(call).decode() + "\n" for call in calls)


def _show(found: Report, form: str, output: Path | None) -> None:
    if form == "csv":
        _write(report_csv(found), output)
    elif form == "json":
        _write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n", output)
    else:
        console = show.console()
        zone = ZoneInfo(found.zone)
        span = (
            f"{found.begin.astimezone(zone):%Y-%m-%d %H:%M} to {found.end.astimezone(zone):%Y-%m-%d %H:%M} {found.zone}"
        )
        only = "".join(f", {name} {value}" for name, value in found.filters.items())
        console.print(show.plain(f"calls from {span}{only}"))
        console.print(_total(found, zone))
        if found.rows:
            console.print(_table(found, wide=console.width >= 120))


def _total(found: Report, zone: ZoneInfo) -> Table:
    of = partial(page.shown, found.total)
    peak_at = f", first at {found.total.peak_at.astimezone(zone):%m-%d %H:%M:%S}" if found.total.peak_at else ""
    told = {
        "calls": f"{of('calls')}, {of('answered')} answered, {of('up')} still up; "
        f"at most {of('peak')} at one time{peak_at}",
        "network": f"ASR {of('asr_percent', 1, ' %')}, NER {of('ner_percent', 1, ' %')}, ACD {of('acd_s', 0, ' s')}, "
        f"{of('billable_min', 1)} min, PDD p50 {of('pdd_p50_ms')} ms, p95 {of('pdd_p95_ms')} ms",
        "callers": f"{of('abandoned_percent', 1, ' %')} of {of('inbound')} inbound abandoned, "
        f"{of('containment_percent', 1, ' %')} of {of('with_agent')} contained",
        "transfers": f"{of('transferred')} of {of('transfers')} reached somebody",
        "latency": f"p50 {of('latency_p50_ms')} ms, p90 {of('latency_p90_ms')}, p95 {of('latency_p95_ms')}, "
        f"p99 {of('latency_p99_ms')}, of {of('turns')} turns, {of('interrupted')} interrupted",
        "MOS": f"p5 {of('mos_p5', 2)}, p50 {of('mos_p50', 2)}",
        "cost": f"{of('cost', 2)} {found.currency}" if found.total.cost else "",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in told.items():
        if text:
            table.add_row(name, text)
    return table


def _table(found: Report, *, wide: bool) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    fields = [*_SHORT, *_MORE] if wide else [*_SHORT, "latency_p95_ms", "peak"]
    columns = {column.field: column for column in page.COLUMNS}
    table.add_column(found.by, no_wrap=True)
    for field in fields:
        if field != "cost" or found.total.cost:
            head = "latency p95" if field == "latency_p95_ms" and not wide else columns[field].head
            table.add_column(head, justify="right")
    for row in found.rows:
        if row.calls or row.seizures or row.peak:
            cells = [page.in_column(row, columns[field]) for field in fields if field != "cost" or found.total.cost]
            table.add_row(show.plain(row.key), *cells)
    return table


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        # Numbers may stand in it: for its owner only.
        with os.fdopen(
            os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline=""
        ) as out:
            out.write(text)
    except OSError as error:
        raise SetupError(f"{output} cannot be written: {error.strerror}") from error
    click.echo(f"written to {output}", err=True)


def _by_name(output: Path | None) -> str:
    known = {".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}
    return known.get(output.suffix.lower(), "json") if output is not None else "table"


def _zone(name: str) -> ZoneInfo:
    try:
        return periods.zone_named(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _moment(text: str, zone: ZoneInfo, now: datetime, *, end: bool = False) -> datetime:
    try:
        return periods.moment(text, zone, now.astimezone(UTC), end=end)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
