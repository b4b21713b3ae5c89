"""The circuit breaker, on a fake clock."""

from sipagent.conversation.providers.health import LONGEST_PAUSE_S, Breaker, Standing

S = 1_000_000_000


def test_failures_in_a_row_set_it_aside_and_the_pause_leads_to_a_trial():
    breaker = Breaker(failures=3, pause_s=20)
    for _ in range(2):
        breaker.failed(100 * S)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(100 * S)
    assert breaker.standing(100 * S) is Standing.GOOD
    breaker.failed(100 * S)
    assert breaker.standing(119 * S) is Standing.SET_ASIDE
    assert breaker.standing(121 * S) is Standing.ON_TRIAL
    breaker.succeeded()
    assert breaker.standing(121 * S) is Standing.GOOD


def test_one_trial_at_a_time():
    breaker = Breaker(1, 20)
    breaker.failed(0)
    breaker.trial(21 * S, 2500)
    assert breaker.standing(22 * S) is Standing.SET_ASIDE
    assert breaker.standing(24 * S) is Standing.ON_TRIAL  # it never came back


def test_a_failed_trial_doubles_the_pause_up_to_a_limit():
    breaker = Breaker(3, 20)
    for _ in range(3):
        breaker.failed(0)
    breaker.failed(20 * S)
    assert breaker.standing(59 * S) is Standing.SET_ASIDE
    assert breaker.standing(61 * S) is Standing.ON_TRIAL
    for _ in range(30):
        breaker.failed(100 * S)
    assert breaker.standing(100 * S + int(LONGEST_PAUSE_S * S)) is Standing.ON_TRIAL


def test_a_key_that_is_refused_needs_no_second_try():
    breaker = Breaker(3, 20)
    breaker.failed(0, for_good=True)
    assert breaker.standing(1 * S) is Standing.SET_ASIDE
