"""Days and hours of time zones, where clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipagent.reports.periods import MAX_PERIODS, boundaries, fitting, label, moment, zone_named

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago"]
NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_day_that_is_an_hour_short() -> None:
    begin, end = moment("2026-03-29", BERLIN, NOW), moment("2026-03-29", BERLIN, NOW, end=True)
    assert end - begin == timedelta(hours=23)
    hours = boundaries(begin, end, BERLIN, "hour")
    assert len(hours) == 24 and hours[0] == begin and hours[-1] == end
    assert [label(at, BERLIN, "hour") for at in hours[1:3]] == ["2026-03-29 01:00+01:00", "2026-03-29 03:00+02:00"]


def test_the_hour_that_comes_twice() -> None:
    begin, end = moment("2026-10-25", BERLIN, NOW), moment("2026-10-25", BERLIN, NOW, end=True)
    hours = boundaries(begin, end, BERLIN, "hour")
    assert len(hours) == 26
    assert [label(at, BERLIN, "hour")[11:] for at in hours[2:4]] == ["02:00+02:00", "02:00+01:00"]


def test_days_without_a_midnight() -> None:
    santiago = ZoneInfo("America/Santiago")  # clocks go from 24:00 to 1:00
    begin = moment("2026-09-06", santiago, NOW)
    assert begin == utc("2026-09-06T04:00")
    assert moment("2026-09-06", santiago, NOW, end=True) - begin == timedelta(hours=23)


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
    st.integers(1, 60 * 24 * 40),
    st.sampled_from(ZONES),
    st.sampled_from(["hour", "day", "month"]),
)
def test_periods_follow_one_another(begin: datetime, minutes: int, name: str, unit: str) -> None:
    zone, since = ZoneInfo(name), begin.replace(tzinfo=UTC)
    until = since + timedelta(minutes=minutes)
    edges = boundaries(since, until, zone, unit)
    assert edges[0] <= since < edges[1] and edges[-2] < until <= edges[-1]
    assert all(before < after for before, after in pairwise(edges))
    names = [label(at, zone, unit) for at in edges]
    assert len(set(names)) == len(names)
    if unit != "hour":
        assert all(at.astimezone(zone).hour in (0, 1) for at in edges)


def test_what_people_write() -> None:
    assert moment("2026-03", BERLIN, NOW) == utc("2026-02-28T23:00")
    assert moment("2026-03", BERLIN, NOW, end=True) == utc("2026-03-31T22:00")
    assert moment("2026-12", BERLIN, NOW, end=True) == utc("2026-12-31T23:00")
    assert moment("today", BERLIN, NOW) == utc("2026-03-28T23:00")
    assert moment("yesterday", BERLIN, NOW, end=True) == utc("2026-03-28T23:00")
    assert moment("2026-03-29T14:30", BERLIN, NOW) == utc("2026-03-29T12:30")
    assert moment("2026-03-29T14:30-05:00", BERLIN, NOW) == utc("2026-03-29T19:30")
    for text in ("", "soon", "2026-13", "2026-02-30", "29.3.2026", "9999-12-31", "x" * 99):
        with pytest.raises(ValueError, match="is no time"):
            moment(text, BERLIN, NOW, end=True)


def test_zones_and_units() -> None:
    with pytest.raises(ValueError, match="no time zone 'Mars/Base'"):
        zone_named("Mars/Base")
    with pytest.raises(ValueError, match="no time zone"):
        zone_named("../etc/passwd")
    assert zone_named("").key
    assert [fitting(NOW, NOW + timedelta(days=days)) for days in (1, 31, 365)] == ["hour", "day", "month"]
    with pytest.raises(ValueError, match=f"more than {MAX_PERIODS} periods"):
        boundaries(NOW, NOW + timedelta(days=3000), BERLIN, "hour")
