"""The registration policy on a clock of the test's own."""

import pytest

from sipagent.core.states import RegistrationState as State
from sipagent.sip.registration import RESULT_S, RegistrationPolicy


class Trunk:
    """A policy with a clock: `gets` is an answer now, `waits` lets time pass until the next try."""

    def __init__(self, random: float = 0.0) -> None:
        self.now = 1000.0
        self.policy = RegistrationPolicy("carrier", random=lambda: random)

    def gets(self, status: int, *, expires_s: int = 0, answered: bool = True, retry_after_s: int = 0) -> float:
        """The pause until the next try."""
        self.policy.result(
            status=status,
            reason="test",
            expires_s=expires_s,
            answered=answered,
            retry_after_s=retry_after_s,
            now=self.now,
        )
        return self.policy.view(self.now).next_try_s

    def tries(self) -> None:
        self.now += self.policy.view(self.now).next_try_s
        assert self.policy.due(self.now)
        self.policy.begin(self.now)
        assert not self.policy.due(self.now)

    def is_in(self, state: State) -> bool:
        return self.policy.state is state


def test_granted() -> None:
    trunk = Trunk()
    assert trunk.is_in(State.UNREGISTERED)
    trunk.tries()
    assert trunk.is_in(State.REGISTERING)
    assert trunk.gets(200, expires_s=300) == 225
    view = trunk.policy.view(trunk.now)
    assert (view.state, view.expires_s, view.sip_status) == (State.REGISTERED, 300, 200)
    trunk.tries()
    assert trunk.is_in(State.REGISTERED)  # a refresh does not show
    assert trunk.gets(200, expires_s=12) == 0  # so short a lease is PJSIP's to refresh


def test_unreachable_backs_off_exponentially_to_five_minutes() -> None:
    trunk = Trunk()
    pauses = []
    for _ in range(10):
        trunk.tries()
        pauses.append(trunk.gets(408, answered=False))
        assert trunk.is_in(State.UNREACHABLE)
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_jitter_only_adds() -> None:
    trunk = Trunk(random=0.999)
    trunk.tries()
    assert 2 < trunk.gets(503, answered=False) < 2.4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refused_is_not_hammered(status: int) -> None:
    trunk = Trunk()
    pauses = []
    for _ in range(7):
        trunk.tries()
        pauses.append(trunk.gets(status))
        assert trunk.is_in(State.REFUSED)
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800]
    assert "username" in trunk.policy.view(trunk.now).sentence


def test_trouble_at_the_registrar_is_tried_again_soon() -> None:
    trunk = Trunk()
    trunk.tries()
    assert trunk.gets(500) == 2
    trunk.tries()
    assert trunk.gets(480) == 4
    assert trunk.is_in(State.REFUSED)


def test_retry_after_is_respected_within_reason() -> None:
    trunk = Trunk()
    trunk.tries()
    assert trunk.gets(503, retry_after_s=30) == 30
    trunk.tries()
    assert trunk.gets(503, retry_after_s=1) == 4  # our own pause is longer
    trunk.tries()
    assert trunk.gets(503, retry_after_s=86400) == 3600
    trunk.tries()
    assert trunk.gets(408, answered=False, retry_after_s=30) == 16  # nobody said it


def test_a_failed_refresh_starts_the_pauses_anew() -> None:
    trunk = Trunk()
    for _ in range(3):
        trunk.tries()
        trunk.gets(408, answered=False)
    trunk.tries()
    trunk.gets(200, expires_s=60)
    assert trunk.gets(408, answered=False) == 2  # PJSIP's refresh found nobody
    assert trunk.is_in(State.UNREACHABLE)


@pytest.mark.parametrize(("status", "answered"), [(408, False), (503, True)])
def test_failures_of_another_kind_start_the_pauses_anew(status: int, answered: bool) -> None:
    trunk = Trunk()
    for _ in range(7):
        trunk.tries()
        trunk.gets(status, answered=answered)
    trunk.tries()
    assert trunk.gets(403) == 60
    trunk.tries()
    assert trunk.gets(403) == 120
    trunk.tries()
    assert trunk.gets(status, answered=answered) == 2


def test_silence_of_the_lane_is_noticed() -> None:
    trunk = Trunk()
    trunk.tries()
    assert not trunk.policy.overdue(trunk.now + RESULT_S)
    assert trunk.policy.overdue(trunk.now + RESULT_S + 1)


def test_a_new_lane_registers_at_once_but_does_not_become_a_hammer() -> None:
    trunk = Trunk()
    trunk.tries()
    trunk.gets(200, expires_s=60)
    trunk.policy.lost(trunk.now, "the lane died")
    assert trunk.is_in(State.UNREGISTERED) and trunk.policy.due(trunk.now)
    trunk.tries()
    trunk.gets(403)
    trunk.policy.lost(trunk.now, "the lane died again")
    assert not trunk.policy.due(trunk.now + 59) and trunk.policy.due(trunk.now + 60)


def test_a_grant_of_nothing_is_a_refusal() -> None:
    trunk = Trunk()
    trunk.tries()
    assert trunk.gets(200, expires_s=0) == 60
    assert trunk.is_in(State.REFUSED)


def test_the_end() -> None:
    trunk = Trunk()
    trunk.tries()
    trunk.gets(200, expires_s=60)
    trunk.policy.end()
    assert trunk.is_in(State.UNREGISTERED) and not trunk.policy.due(trunk.now + 1e9)
