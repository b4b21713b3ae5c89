"""A report: calls of a period, added up by one thing. docs/reports.md defines every figure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from sipagent.core.states import Direction
from sipagent.reports.causes import NAMES
from sipagent.reports.columns import NEVER, UP, Array, Columns, instant, microseconds
from sipagent.reports.periods import boundaries, label

By = Literal[
    "total", "hour", "day", "month", "trunk", "number", "agent", "direction", "cause", "disposition", "q850", "sip"
]
TIMES = ("hour", "day", "month")
OF_LEGS = ("trunk", "cause", "disposition", "q850", "sip")  # a leg has its own; else it has its call's
MAX_GROUPS = 500
OTHERS = "(others)"
PERCENTILES = (50, 90, 95, 99)


class Question(msgspec.Struct, kw_only=True, frozen=True):
    """Calls that were set up from `begin` until before `end`; only those that fit every filter that is given."""

    begin: datetime
    end: datetime
    by: By = "day"
    zone: str = "UTC"
    direction: Direction | None = None
    trunk: str | None = None
    number: str | None = None
    agent: str | None = None


class Figures(msgspec.Struct, kw_only=True, frozen=True):
    """None: there is nothing to tell it from."""

    calls: int
    up: int  # not ended yet
    answered: int
    billable_min: float
    # legs: seizures of trunks
    seizures: int
    asr_percent: float | None
    ner_percent: float | None
    acd_s: float | None
    pdd_p50_ms: float | None
    pdd_p95_ms: float | None
    # what callers met
    inbound: int
    abandoned: int
    abandoned_percent: float | None
    with_agent: int
    contained: int
    containment_percent: float | None
    transfers: int
    transferred: int
    transferred_percent: float | None
    # the conversation and the line
    turns: int
    interrupted: int
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    mos_p5: float | None
    mos_p50: float | None
    peak: int  # calls at one time; legs where the report is by trunk
    peak_at: datetime | None
    cost: float


class Row(Figures, kw_only=True, frozen=True):
    key: str
    begins_at: datetime | None = None  # of a period


class Report(msgspec.Struct, kw_only=True, frozen=True):
    begin: datetime
    end: datetime
    by: By
    zone: str
    filters: dict[str, str]
    made_at: datetime
    currency: str
    total: Figures
    rows: list[Row]


class Groups(msgspec.Struct, frozen=True):
    """To which group each call and each leg belongs."""

    keys: list[str]
    of_calls: Array
    of_legs: Array
    edges: Array | None = None  # of periods, one more than keys


def report(columns: Columns, question: Question, now: datetime, currency: str) -> Report:
    """`columns` may have calls of before the period: those that were up in it count for peaks. Raises ValueError for
    too many periods."""
    begin, end = microseconds(question.begin), microseconds(question.end)
    at = microseconds(now)
    fits = _fits(columns, question)
    inside = fits & (columns.calls["setup"] >= begin) & (columns.calls["setup"] < end)
    total = Groups(["total"], np.zeros(len(columns.calls), int), np.zeros(len(columns.legs), int))
    groups = total if question.by == "total" else _groups(columns, question, inside)
    spans = _Spans(begin, min(end, max(at, begin)), at)
    return Report(
        begin=question.begin,
        end=question.end,
        by=question.by,
        zone=question.zone,
        filters=_filters(question),
        made_at=now,
        currency=currency,
        total=msgspec.convert(_figures(columns, total, fits, inside, spans, currency, legs=False)[0], Figures),
        rows=[] if question.by == "total" else _rows(columns, groups, fits, inside, spans, currency, question),
    )


def _filters(question: Question) -> dict[str, str]:
    given = {name: getattr(question, name) for name in ("direction", "trunk", "number", "agent")}
    return {name: str(value) for name, value in given.items() if value is not None}


class _Spans(msgspec.Struct, frozen=True):
    begin: int
    end: int
    now: int


def _rows(
    columns: Columns, groups: Groups, fits: Array, inside: Array, spans: _Spans, currency: str, question: Question
) -> list[Row]:
    figures = _figures(columns, groups, fits, inside, spans, currency, legs=question.by == "trunk")
    edges = groups.edges
    starts = [None] * len(groups.keys) if edges is None else [instant(int(us)) for us in edges[:-1]]
    rows = [
        msgspec.convert({"key": key, "begins_at": starts_at} | values, Row)
        for key, starts_at, values in zip(groups.keys, starts, figures, strict=True)
    ]
    if edges is not None:
        return rows
    return sorted(
        (row for row in rows if row.calls or row.seizures), key=lambda row: (row.key == OTHERS, -row.seizures, row.key)
    )


def _fits(columns: Columns, question: Question) -> Array:
    calls = columns.calls
    fits = np.ones(len(calls), bool)
    if question.direction is not None:
        fits &= calls["inbound"] == (question.direction is Direction.INBOUND)
    for name in ("trunk", "number", "agent"):
        wanted = getattr(question, name)
        if wanted is not None:
            at = columns.words.index(wanted) if wanted in columns.words else -1
            fits &= calls[f"word_{name}"] == at
    return fits


# --- groups ---------------------------------------------------------------------------------------------------


def _groups(columns: Columns, question: Question, inside: Array) -> Groups:
    calls, legs, by = columns.calls, columns.legs, question.by
    if by in TIMES:
        zone = ZoneInfo(question.zone)
        begins = boundaries(question.begin, question.end, zone, by)
        edges = np.array([microseconds(at) for at in begins], "i8")
        keys = [label(at, zone, by) for at in begins[:-1]]
        found = np.clip(np.searchsorted(edges, calls["setup"], "right") - 1, 0, len(keys) - 1)
        return Groups(keys, found, found[legs["call"]], edges)
    if by == "direction":
        of_calls = calls["inbound"].astype(int)
        return Groups([Direction.OUTBOUND, Direction.INBOUND], of_calls, of_calls[legs["call"]])
    if by in ("q850", "sip"):
        return _most_used(calls[by].astype(int), legs[by].astype(int), inside, columns, lambda code: _code(by, code))
    of_calls = calls[f"word_{by}"]
    of_legs = legs[f"word_{by}"] if by in OF_LEGS else of_calls[legs["call"]]
    return _most_used(of_calls, of_legs, inside, columns, lambda word: columns.words[word] or _NONE.get(by, "(none)"))


_NONE = {"cause": "(still up)", "disposition": "(still up)", "agent": "(no agent)", "trunk": "(no trunk)"}


def _code(by: str, code: int) -> str:
    if code == 0:
        return "(none)"
    return f"{code} {NAMES[code]}" if by == "q850" and code in NAMES else str(code)


def _most_used(of_calls: Array, of_legs: Array, inside: Array, columns: Columns, name: Any) -> Groups:
    """The MAX_GROUPS with the most legs and calls; the others are one."""
    legs_inside = inside[columns.legs["call"]] if len(columns.legs) else np.zeros(0, bool)
    values, counts = np.unique(np.concatenate([of_calls[inside], of_legs[legs_inside]]), return_counts=True)
    kept = values[np.argsort(-counts, kind="stable")[:MAX_GROUPS]]
    size = int(max(of_calls.max(initial=0), of_legs.max(initial=0))) + 1
    place = np.full(size, len(kept))
    place[kept] = np.arange(len(kept))
    return Groups([*(name(int(value)) for value in kept), OTHERS], place[of_calls], place[of_legs])


# --- figures --------------------------------------------------------------------------------------------------


def _figures(
    columns: Columns, groups: Groups, fits: Array, inside: Array, spans: _Spans, currency: str, *, legs: bool
) -> list[dict[str, Any]]:
    """Of each group, by the names of Figures."""
    size = len(groups.keys)
    calls, of_calls = _only(columns.calls, inside), _only(groups.of_calls, inside)
    leg_inside = inside[columns.legs["call"]] if len(columns.legs) else np.zeros(0, bool)
    lines, of_lines = _only(columns.legs, leg_inside), _only(groups.of_legs, leg_inside)

    def total(values: Array) -> Array:
        return np.bincount(of_calls, values, minlength=size)

    def count(values: Array) -> Array:
        return total(values).astype(int)

    answered = calls["answered"] != NEVER
    spoken = np.where(answered, np.minimum(calls["end"], spans.now) - calls["answered"], 0) / 6e7
    with_agent = answered & (calls["word_agent"] != 0) & ~calls["abandoned"] & (calls["end"] != UP)
    same_money = calls["word_currency"] == (columns.words.index(currency) if currency in columns.words else -1)
    sums: dict[str, Array] = {
        "calls": np.bincount(of_calls, minlength=size),
        "up": count(calls["end"] == UP),
        "answered": count(answered),
        "billable_min": np.round(total(np.maximum(spoken, 0)), 3),
        "inbound": count(calls["inbound"]),
        "abandoned": count(calls["abandoned"]),
        "with_agent": count(with_agent),
        "contained": count(with_agent & ~calls["human"]),
        "transfers": count(calls["transfers"]),
        "transferred": count(calls["transferred"]),
        "interrupted": count(calls["interrupted"]),
        "turns": count(calls["turns"]),
        "cost": np.round(total(np.where(same_money, calls["cost"], 0.0)), 6),
    }
    sums |= _of_legs(lines, of_lines, size)
    sums["abandoned_percent"] = _ratio(sums["abandoned"], sums["inbound"])
    sums["containment_percent"] = _ratio(sums["contained"], sums["with_agent"])
    sums["transferred_percent"] = _ratio(sums["transferred"], sums["transfers"])
    turns = columns.turns
    turn_inside = inside[turns["call"]] if len(turns) else np.zeros(0, bool)
    turns = _only(turns, turn_inside)
    of_turns = groups.of_calls[turns["call"]] if len(turns) else np.zeros(0, int)
    for percent, values in _percentiles(turns["ms"], of_turns, size, PERCENTILES).items():
        sums[f"latency_p{percent}_ms"] = values
    peaks = _peaks(columns, groups, fits, spans, legs=legs)
    return [
        {name: _plain(values[group]) for name, values in sums.items()} | {"peak": peak, "peak_at": peak_at}
        for group, (peak, peak_at) in enumerate(peaks)
    ]


def _only(table: Array, where: Array) -> Array:
    """Those rows; without a copy where it is all of them, as it is of a report without filters over whole hours."""
    return table if where.all() else table[where]


def _of_legs(legs: Array, of: Array, size: int) -> dict[str, Array]:
    """Ratios of seizures; legs that neither were answered nor have ended tell nothing yet."""
    answered = legs["answered"] != NEVER
    over = legs["end"] != UP
    known = answered | over
    seizures = np.bincount(of[known], minlength=size)
    answers = np.bincount(of[answered], minlength=size)
    effective = np.bincount(of[legs["effective"] & known], minlength=size)
    ended = answered & over
    seconds = np.bincount(of[ended], (legs["end"] - legs["answered"])[ended] / 1e6, minlength=size)
    rang = (legs["ringing"] != NEVER) & ~legs["inbound"]
    delays = _percentiles((legs["ringing"] - legs["setup"])[rang] / 1e3, of[rang], size, (50, 95))
    heard = ~np.isnan(legs["mos"])
    mos = _percentiles(legs["mos"][heard], of[heard], size, (5, 50), digits=2)
    return {
        "seizures": seizures,
        "asr_percent": _ratio(answers, seizures),
        "ner_percent": _ratio(effective, seizures),
        "acd_s": np.round(_divided(seconds, np.bincount(of[ended], minlength=size)), 1),
        "pdd_p50_ms": delays[50],
        "pdd_p95_ms": delays[95],
        "mos_p5": mos[5],
        "mos_p50": mos[50],
    }


def _percentiles(values: Array, of: Array, size: int, percents: Sequence[int], digits: int = 0) -> dict[int, Array]:
    """By nearest rank, for each group; NaN for a group without values. Values are not negative."""
    scale = 10**digits
    ordered = np.clip(np.rint(values.astype("f8") * scale), 0, 2**31 - 1).astype("i4")
    if size > 1:
        # Groups and rounded values in one number: sorting those takes a tenth of sorting by two keys.
        keys = of.astype("i8") << 32 | ordered
        keys.sort()
        ordered = keys & (2**32 - 1)
    else:
        ordered.sort()
    counts = np.bincount(of, minlength=size)
    first = np.cumsum(counts) - counts
    found = {}
    for percent in percents:
        rank = first + np.maximum(-(-counts * percent // 100), 1) - 1
        picked = np.full(size, np.nan)
        picked[counts > 0] = ordered[rank[counts > 0]] / scale
        found[percent] = picked
    return found


def _peaks(
    columns: Columns, groups: Groups, fits: Array, spans: _Spans, *, legs: bool
) -> list[tuple[int, datetime | None]]:
    """The most calls (legs) that were up at one time within the period, and since when; of each group."""
    if legs:
        fits_legs = fits[columns.legs["call"]] if len(columns.legs) else np.zeros(0, bool)
        table, of = _only(columns.legs, fits_legs), _only(groups.of_legs, fits_legs)
    else:
        table, of = _only(columns.calls, fits), _only(groups.of_calls, fits)
    starts = np.maximum(table["setup"], spans.begin)
    ends = np.minimum(table["end"], spans.end)
    up = starts < ends
    starts, ends, of = starts[up], ends[up], of[up]
    if groups.edges is not None:
        return _peaks_of_periods(starts, ends, groups.edges, spans)
    of, at, level = _levels(starts, ends, of, spans)  # of each group it comes back to 0
    found: list[tuple[int, datetime | None]] = [(0, None)] * len(groups.keys)
    firsts = np.searchsorted(of, np.arange(len(groups.keys) + 1))
    for group, (first, last) in enumerate(zip(firsts[:-1], firsts[1:], strict=True)):
        if first < last:
            highest = first + int(np.argmax(level[first:last]))
            found[group] = int(level[highest]), instant(int(at[highest]))
    return found


def _levels(starts: Array, ends: Array, of: Array, spans: _Spans) -> tuple[Array, Array, Array]:
    """Group, instant and how many are up from then on, of every beginning and end; group after group."""
    span = spans.end - spans.begin
    bits = span.bit_length() + 1
    # Group, instant, and 1 for a beginning in one number: who hangs up makes room for who comes in the same instant.
    keys = np.concatenate([(starts - spans.begin) << 1 | 1, (ends - spans.begin) << 1])
    keys |= np.concatenate([of, of]).astype("i8") << bits
    keys.sort()
    return keys >> bits, (keys >> 1 & (1 << bits - 1) - 1) + spans.begin, np.cumsum((keys & 1) * 2 - 1)


def _peaks_of_periods(starts: Array, ends: Array, edges: Array, spans: _Spans) -> list[tuple[int, datetime | None]]:
    """A call that is up over several periods is up in each of them."""
    _, at, level = _levels(starts, ends, np.zeros(len(starts), "i8"), spans)
    found: list[tuple[int, datetime | None]] = []
    places = np.searchsorted(at, edges, "left")
    for edge, first, last in zip(edges[:-1], places[:-1], places[1:], strict=True):
        before = int(level[first - 1]) if first else 0
        highest = first + int(np.argmax(level[first:last])) if first < last else -1
        if highest >= 0 and level[highest] > before:
            found.append((int(level[highest]), instant(int(at[highest]))))
        else:
            found.append((before, instant(int(edge)) if before else None))
    return found


def _divided(part: Array, whole: Array) -> Array:
    found: Array = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found


def _ratio(part: Array, whole: Array) -> Array:
    found: Array = np.round(100 * _divided(part.astype(float), whole.astype(float)), 2)
    return found


def _plain(value: Any) -> int | float | None:
    number = value.item()
    return None if number != number else number


ALL_BY: tuple[By, ...] = get_args(By)
