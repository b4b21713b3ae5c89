"""Identifiers, states, time."""

import pytest

from sipagent.core import clock, ids
from sipagent.core.errors import ProviderError, where
from sipagent.core.states import IllegalTransition, LegState, advance
from sipagent.core.termination import EndedBy, from_sip_status


def test_identifiers_sort_by_creation_and_do_not_repeat():
    made = [ids.new_call_id() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(len(name) == len("call_") + 26 for name in made)


def test_identifiers_survive_a_clock_that_is_set_back(monkeypatch):
    before = ids.new_leg_id()
    monkeypatch.setattr(ids, "wall_ms", lambda: 1_000)
    assert ids.new_leg_id() > before


def test_legs_move_by_the_table():
    assert advance(LegState.SETUP, LegState.RINGING) is LegState.RINGING
    with pytest.raises(IllegalTransition, match="from ended to ringing"):
        advance(LegState.ENDED, LegState.RINGING)


def test_stamps_carry_both_clocks():
    now = clock.now()
    earlier = now.at_mono(now.mono - 1_500_000_000)
    assert now.ms_since(earlier) == 1500
    assert (now.wall - earlier.wall).total_seconds() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("status", "disposition", "cause"),
    [(486, "busy", "busy"), (603, "rejected", "refused"), (487, "cancelled", "cancelled"), (500, "failed", "refused")],
)
def test_what_a_final_status_means(status, disposition, cause):
    termination = from_sip_status(status, EndedBy.CALLEE)
    assert (termination.disposition, termination.cause, termination.sip_status) == (disposition, cause, status)


def test_where_tells_the_place_and_not_the_message():
    try:
        raise ExceptionGroup("group", [ProviderError("a caller's secret", retryable=True)])
    except ExceptionGroup as error:
        told = where(error)
    assert told.startswith("ProviderError") and "secret" not in told
