"""When a webhook is sent again, and when no more. Plain decisions, given the time."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

# After the first attempt, the second, ...: ten attempts in some ten hours.
SCHEDULE_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 10_800.0, 10_800.0)
JITTER = 0.2  # of a pause, up or down: receivers that come back are not asked by everybody at once
GIVE_UP = timedelta(hours=24)  # after the event
LONGEST_AFTER_S = 3600.0  # that a receiver may ask for
REFUSALS = 3  # answers of 410 after which a URL gets nothing more


def next_try(
    attempts: int,
    created: datetime,
    now: datetime,
    asked_s: float,
    uniform: Callable[[float, float], float],
    schedule_s: Sequence[float] = SCHEDULE_S,
) -> datetime | None:
    """After so many attempts that failed; None: never. ``asked_s``: what the receiver's Retry-After says, 0 for
    nothing."""
    if attempts > len(schedule_s) or now - created >= GIVE_UP:
        return None
    pause = schedule_s[attempts - 1] * uniform(1 - JITTER, 1 + JITTER)
    return now + timedelta(seconds=max(pause, min(asked_s, LONGEST_AFTER_S)))


def asked_for(status: int, headers: Mapping[str, str]) -> float:
    """Seconds, of a receiver that is too busy; 0 where it asks for none. A date is not understood."""
    text = headers.get("Retry-After", "")
    return float(text) if status in (429, 503) and text.isdecimal() and len(text) < 8 else 0.0
