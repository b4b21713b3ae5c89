"""Figures of a report, against the same ones reckoned call by call."""

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from sipagent.core.states import Direction, TransferState
from sipagent.reports.cdr import CallDetail, Charge, call_detail, nearest_rank
from sipagent.reports.columns import NotColumns, columns_of, joined, our_number, pack, unpack
from sipagent.reports.periods import boundaries, label
from sipagent.reports.report import ALL_BY, MAX_GROUPS, OTHERS, By, Figures, Question, Report, report

from .calls import NOW, START, many, story

BERLIN = ZoneInfo("Europe/Berlin")
DETAILS = [call_detail(each, NOW) for each in many(300)]
# From an hour after the first calls began until some are yet to come.
BEGIN, END = START + timedelta(hours=1), START + timedelta(hours=10)


def asked(by: By = "total", calls: list[CallDetail] = DETAILS, **filters) -> Report:
    question = Question(begin=BEGIN, end=END, by=by, zone="Europe/Berlin", **filters)
    return report(columns_of(calls), question, NOW, "EUR")


def percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None


def reckoned(calls: list[CallDetail], legs_fit: Callable[[object], bool] = lambda leg: True) -> dict[str, object]:
    """Call by call; of calls that began in the period."""
    legs = [leg for call in calls for leg in call.legs if legs_fit(leg)]
    known = [leg for leg in legs if leg.answered_at or leg.ended_at]
    over = [leg for leg in known if leg.answered_at and leg.ended_at]
    inbound = [call for call in calls if call.direction is Direction.INBOUND]
    served = [c for c in calls if c.answered_at and c.agent and not c.abandoned and c.ended_at]
    latencies = sorted(ms for call in calls for ms in call.latencies_ms)
    mos = sorted(leg.mos_cq for leg in legs if leg.mos_cq is not None)
    transfers = [transfer for call in calls for transfer in call.transfers]
    done = [transfer for transfer in transfers if transfer.state is TransferState.COMPLETED]
    delays = sorted(
        (leg.ringing_at - leg.setup_at).total_seconds() * 1000
        for leg in legs
        if leg.ringing_at is not None and leg.direction is Direction.OUTBOUND
    )
    return {
        "calls": len(calls),
        "up": sum(call.ended_at is None for call in calls),
        "answered": sum(call.answered_at is not None for call in calls),
        "billable_min": round(sum(call.billable_s for call in calls) / 60, 3),
        "seizures": len(known),
        "asr_percent": percent(sum(leg.answered_at is not None for leg in known), len(known)),
        "ner_percent": percent(sum(leg.effective for leg in known), len(known)),
        "acd_s": round(sum(leg.billable_s for leg in over) / len(over), 1) if over else None,
        "pdd_p95_ms": round(nearest_rank(delays, 95)) if delays else None,
        "inbound": len(inbound),
        "abandoned": sum(call.abandoned for call in calls),
        "abandoned_percent": percent(sum(call.abandoned for call in calls), len(inbound)),
        "with_agent": len(served),
        "contained": sum(not call.human for call in served),
        "containment_percent": percent(sum(not call.human for call in served), len(served)),
        "transfers": len(transfers),
        "transferred": len(done),
        "turns": sum(call.turns for call in calls),
        "latency_p50_ms": round(nearest_rank(latencies, 50)) if latencies else None,
        "latency_p99_ms": round(nearest_rank(latencies, 99)) if latencies else None,
        "mos_p5": round(nearest_rank(mos, 5), 2) if mos else None,
    }


def peak(things, begin: datetime, end: datetime) -> int:
    """The most that were up at one time."""
    spans = [(max(it.setup_at, begin), min(it.ended_at or NOW, end, NOW)) for it in things]
    spans = [(since, until) for since, until in spans if since < until]
    return max((sum(a <= since < b for a, b in spans) for since, _ in spans), default=0)


def same(found: Figures, expected: dict[str, object]) -> None:
    for name, value in expected.items():
        got = getattr(found, name)
        assert got == (pytest.approx(value, abs=0.006) if isinstance(value, float) else value), name


INSIDE = [call for call in DETAILS if BEGIN <= call.setup_at < END]


def test_the_total_is_that_of_all_calls() -> None:
    total = asked().total
    same(total, reckoned(INSIDE))
    assert total.peak == peak(DETAILS, BEGIN, END)
    assert total.peak_at is not None and BEGIN <= total.peak_at < END
    up = [call for call in DETAILS if call.setup_at <= total.peak_at and (call.ended_at or NOW) > total.peak_at]
    assert len(up) == total.peak


def test_by_hour_of_the_night_in_which_clocks_change() -> None:
    rows = asked("hour").rows
    edges = boundaries(BEGIN, END, BERLIN, "hour")
    assert [row.key for row in rows] == [label(at, BERLIN, "hour") for at in edges[:-1]]
    assert not any(" 02:" in row.key for row in rows)
    for row, since, until in zip(rows, edges, edges[1:], strict=False):
        same(row, reckoned([call for call in INSIDE if since <= call.setup_at < until]))
        assert row.begins_at == since
        assert row.peak == peak(DETAILS, max(since, BEGIN), min(until, END)), row.key
    assert sum(row.calls for row in rows) == len(INSIDE)


@pytest.mark.parametrize("by", ["number", "agent", "direction"])
def test_by_what_a_call_has(by: By) -> None:
    of: dict[str, Callable[[CallDetail], str]] = {
        "number": our_number,
        "agent": lambda call: call.agent or "(no agent)",
        "direction": lambda call: call.direction,
    }
    rows = {row.key: row for row in asked(by).rows}
    assert set(rows) == {of[by](call) for call in INSIDE}
    for key, row in rows.items():
        mine = [call for call in INSIDE if of[by](call) == key]
        same(row, reckoned(mine))
        assert row.peak == peak([call for call in DETAILS if of[by](call) == key], BEGIN, END)


def test_by_trunk_legs_count_where_they_went() -> None:
    """A call that was refused by one trunk and answered by another is a seizure of both."""
    first = call_detail(many(1)[0], NOW).legs[0]
    refused = msgspec.structs.replace(first, id="a", trunk="one", answered_at=None, ended_at=START, effective=False)
    taken = msgspec.structs.replace(first, id="b", trunk="two", answered_at=START, ended_at=NOW, effective=True)
    call = msgspec.structs.replace(DETAILS[0], setup_at=BEGIN, trunk="one", legs=[refused, taken])
    rows = {row.key: row for row in asked("trunk", [call]).rows}
    assert (rows["one"].seizures, rows["one"].asr_percent, rows["one"].ner_percent) == (1, 0.0, 0.0)
    assert (rows["two"].seizures, rows["two"].asr_percent, rows["two"].calls) == (1, 100.0, 0)
    assert asked("total", [call]).total.asr_percent == 50.0


def test_by_cause_and_code() -> None:
    causes = {row.key: row for row in asked("cause").rows}
    assert causes["refused"].ner_percent == 0.0 and causes["busy"].ner_percent == 100.0
    assert causes["(still up)"].calls == sum(call.ended_at is None for call in INSIDE)
    codes = {row.key: row.calls for row in asked("q850").rows}
    assert codes["17 user busy"] == sum(call.q850 == 17 for call in INSIDE)
    assert {row.key for row in asked("sip").rows} >= {"200", "486", "503"}


def test_filters() -> None:
    found = asked("hour", direction=Direction.INBOUND, trunk="carrier", agent="desk", number="100")
    mine = [
        call
        for call in INSIDE
        if (call.direction, call.trunk, call.agent, call.to_number) == (Direction.INBOUND, "carrier", "desk", "100")
    ]
    assert mine
    same(found.total, reckoned(mine))
    assert found.filters == {"direction": "inbound", "trunk": "carrier", "agent": "desk", "number": "100"}
    assert asked(agent="nobody").total.calls == 0


@pytest.mark.parametrize("by", ALL_BY)
def test_nothing_to_tell(by: By) -> None:
    empty = asked(by, [])
    assert empty.total.calls == empty.total.peak == 0 and empty.total.asr_percent is None
    assert all(row.calls == 0 for row in empty.rows)


@pytest.mark.parametrize("by", ALL_BY)
def test_parts_joined_are_the_whole(by: By) -> None:
    parts = [unpack(pack(columns_of(DETAILS[at : at + 37]))) for at in range(0, len(DETAILS), 37)]
    question = Question(begin=BEGIN, end=END, by=by, zone="Europe/Berlin")
    assert report(joined(parts), question, NOW, "EUR") == asked(by)


def test_very_many_groups_are_cut() -> None:
    calls = [
        call_detail(story(f"call_{n}", setup_at=BEGIN, ended_at=END, to_number=str(n)), NOW)
        for n in range(MAX_GROUPS + 20)
    ]
    rows = asked("number", calls).rows
    assert len(rows) == MAX_GROUPS + 1
    assert (rows[-1].key, rows[-1].calls) == (OTHERS, 20)


def test_costs_of_one_currency_are_added() -> None:
    euros, dollars = (
        Charge(kind="call", leg_id="", units=1, unit="call", price=1.5, currency=currency, amount=1.5)
        for currency in ("EUR", "USD")
    )
    calls = [msgspec.structs.replace(INSIDE[0], cost=1.5, charges=[charge]) for charge in (euros, euros, dollars)]
    assert asked("total", calls).total.cost == 3.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"\x02" + data[1:],
        lambda data: data[:-5],
        lambda data: data[:1] + b"\xff" * 16 + data[17:],
        lambda data: data[:17] + bytes(len(data) - 17),
    ],
)
def test_a_spoiled_hour_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(NotColumns):
        unpack(spoil(pack(columns_of(DETAILS))))


def test_no_number_of_a_caller_is_kept() -> None:
    inbound = [call for call in DETAILS if call.direction is Direction.INBOUND]
    assert not {call.from_number for call in inbound} & set(columns_of(inbound).words)
    outbound = [call for call in DETAILS if call.direction is Direction.OUTBOUND]
    assert not {call.to_number for call in outbound} & set(columns_of(outbound).words)
