"""Days and hours of a time zone as instants, across changes to and from daylight-saving time."""

import os
import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

MAX_PERIODS = 20_000  # two years of hours

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH = re.compile(r"\d{4}-\d{2}")


def zone_named(name: str) -> ZoneInfo:
    """The zone; "" is the machine's own. Raises ValueError when there is none of this name."""
    wanted = name or _of_machine()
    try:
        return ZoneInfo(wanted)
    except (ValueError, OSError, KeyError) as error:  # KeyError: not found
        raise ValueError(f'there is no time zone {wanted!r}: write it like "Europe/Berlin"') from error


def moment(text: str, zone: ZoneInfo, now: datetime, *, end: bool = False) -> datetime:
    """The instant that a day, a month, a date with time, "today" or "yesterday" begins; with `end`, that it ends.

    A date and time without an offset is the zone's. Raises ValueError for anything else.
    """
    words = {"today": 0, "yesterday": -1}
    if text in words:
        text = (now.astimezone(zone).date() + timedelta(days=words[text])).isoformat()
    try:
        if _DAY.fullmatch(text):
            return midnight(date.fromisoformat(text) + timedelta(days=int(end)), zone)
        if _MONTH.fullmatch(text):
            first = date.fromisoformat(f"{text}-01")
            return midnight(_next_month(first) if end else first, zone)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:40]!r} is no time: write 2026-03-29, 2026-03, 2026-03-29T14:30, today or yesterday"
        ) from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When the day begins, in UTC. Where clocks skip midnight it is the first moment there is."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def boundaries(begin: datetime, end: datetime, zone: ZoneInfo, unit: str) -> list[datetime]:
    """The instants at which periods of the unit ("hour", "day" or "month") begin, from the one that holds `begin`,
    and the end of the last. A day may have 23 or 25 hours; the hour that clocks repeat is there twice.

    Raises ValueError where there would be more than MAX_PERIODS.
    """
    found: list[datetime] = []
    day = begin.astimezone(zone).date()
    if unit == "month":
        day = day.replace(day=1)
    while True:
        following = _next_month(day) if unit == "month" else day + timedelta(days=1)
        at, until = midnight(day, zone), midnight(following, zone)
        while at < until:
            if found and found[-1] < at <= begin:
                found.clear()
            found.append(at)
            if at >= end:
                return found
            if len(found) > MAX_PERIODS:
                raise ValueError(f"that would be more than {MAX_PERIODS} periods: take longer ones, or less time")
            at = min(at + timedelta(hours=1), until) if unit == "hour" else until
        day = following


def fitting(begin: datetime, end: datetime) -> Literal["hour", "day", "month"]:
    """The unit in which a period of this length is shown."""
    days = (end - begin).total_seconds() / 86400
    return "hour" if days <= 3 else "day" if days <= 100 else "month"


def label(at: datetime, zone: ZoneInfo, unit: str) -> str:
    """Of the period that begins then; hours with their offset, since one of them comes twice a year."""
    local = at.astimezone(zone)
    if unit == "month":
        return f"{local:%Y-%m}"
    if unit == "day":
        return f"{local:%Y-%m-%d}"
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M}{offset[:3]}:{offset[3:5]}"


def _next_month(first: date) -> date:
    return (first.replace(day=28) + timedelta(days=4)).replace(day=1)


def _of_machine() -> str:
    """The IANA name of the machine's zone, UTC where it does not tell."""
    named = os.environ.get("TZ", "").lstrip(":")
    if named:
        return named
    try:
        path = Path("/etc/localtime").resolve().as_posix()
    except OSError:
        return "UTC"
    return path.partition("/zoneinfo/")[2] or "UTC"
