from datetime import UTC, datetime, timedelta

import pytest

from sipagent.web.retries import SCHEDULE_S, asked_for, next_try

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def pause(attempts: int, *, asked_s: float = 0.0, age_s: float = 0.0, luck: float = 0.5) -> float | None:
    after = next_try(
        attempts, NOW - timedelta(seconds=age_s), NOW, asked_s, lambda low, high: low + luck * (high - low)
    )
    return (after - NOW).total_seconds() if after is not None else None


def test_pauses_grow_until_it_is_given_up():
    assert [pause(i + 1) for i in range(len(SCHEDULE_S))] == list(SCHEDULE_S)
    assert pause(len(SCHEDULE_S) + 1) is None
    assert pause(1, age_s=24 * 3600) is None


def test_pauses_are_spread():
    assert pause(2, luck=0.0) == pytest.approx(24.0) and pause(2, luck=1.0) == pytest.approx(36.0)


def test_what_a_receiver_asks_for_is_kept_within_reason():
    assert pause(1, asked_s=60) == 60 and pause(1, asked_s=1) == 5 and pause(1, asked_s=10**6) == 3600


@pytest.mark.parametrize(
    ("status", "text", "seconds"),
    [
        (503, "7", 7.0),
        (429, "120", 120.0),
        (500, "7", 0.0),
        (503, "soon", 0.0),
        (503, "-1", 0.0),
        (503, "9" * 400, 0.0),
    ],
)
def test_retry_after(status, text, seconds):
    assert asked_for(status, {"Retry-After": text}) == seconds
