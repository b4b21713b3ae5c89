"""Which way a call goes, and what makes it go on."""

import pytest

from sipagent.core.states import RegistrationState, TrunkState
from sipagent.sip.routing import MAX_ATTEMPTS, candidates, cost, fails_over
from sipagent.sip.servers import Server, in_order
from sipagent.sip.settings import FAILOVER_ON, TrunkSettings
from sipagent.sip.trunk_state import ANSWER_S, TrunkHealth, TrunkView

A, B = Server("192.0.2.1", 5060, "udp", 1, 10), Server("192.0.2.2", 5070, "tcp", 2, 0)


def trunk(name: str, **settings) -> TrunkSettings:
    return TrunkSettings(name=name, domain=f"{name}.example", **settings)


def view(name: str, state: TrunkState = TrunkState.UP, *usable: Server) -> TrunkView:
    return TrunkView(trunk=name, state=state, reason="", since=0.0, usable=usable)


def names(number: str, trunks, states=()) -> list[str]:
    known = {state.trunk: state for state in states}
    return [way.trunk.name for way in candidates(number, trunks, known, lambda: 0.5)]


def test_priority_then_cost_then_order() -> None:
    dear = trunk("dear", rates={"+": 0.2, "+49": 0.03})
    cheap = trunk("cheap", rates={"+49": 0.01})
    spare = trunk("spare", priority=5)
    first = trunk("first", priority=-1, rates={"+1": 0.0})
    every = [spare, dear, cheap, first]
    assert names("+4930123456", every) == ["cheap", "dear", "spare"]
    assert names("+442079460000", every) == ["dear", "spare"]
    assert names("+12125550100", every) == ["first", "dear", "spare"]
    assert names("+4930123456", [trunk("b"), trunk("a")]) == ["b", "a"]
    assert names("+4930123456", [TrunkSettings(name="peer", peers=["192.0.2.1"])]) == [], "it places no calls"


def test_cost_is_the_longest_prefixs() -> None:
    priced = trunk("t", country_code="49", rates={"+49": 0.02, "+4915": 0.1, "+": 0.5})
    assert cost("0151 1234567", priced) == 0.1
    assert cost("030 1234567", priced) == 0.02
    assert cost("+33123456789", priced) == 0.5
    assert cost("100", priced) is None


def test_a_trunk_that_is_down_comes_last_and_is_tried_all_the_same() -> None:
    every = [trunk("first"), trunk("second", priority=1)]
    assert names("+4930123456", every, [view("first", TrunkState.DOWN)]) == ["second", "first"]
    assert names("+4930123456", every, [view("first", TrunkState.DEGRADED, A)]) == ["first", "second"]


def test_servers_of_a_trunk_come_in_their_order_and_the_number_as_it_wants_it() -> None:
    german = trunk("de", country_code="49", number_format="national", transport="tcp", outbound_proxy="sbc.example")
    first, second = candidates("+49301234567", [german], {"de": view("de", TrunkState.UP, B, A)}, lambda: 0.5)
    assert (first.server, second.server) == (A, B)
    assert first.uri == "sip:0301234567@de.example;transport=tcp"
    assert first.route == [A.route, "sip:sbc.example;transport=tcp;lr"]
    assert A.route == "sip:192.0.2.1:5060;transport=udp;lr;hide"


def test_the_number_of_attempts_is_bounded() -> None:
    servers = [Server(f"192.0.2.{n}", 5060, "udp") for n in range(8)]
    every = [trunk(f"t{n}") for n in range(9)]
    states = {t.name: view(t.name, TrunkState.UP, *servers) for t in every}
    assert len(candidates("+4930123456", every, states, lambda: 0.5)) == MAX_ATTEMPTS


def test_weights_spread_the_load() -> None:
    heavy, light, last = Server("h", 1, "udp", 1, 30), Server("l", 1, "udp", 1, 10), Server("z", 1, "udp", 2, 99)
    draws = [in_order([last, light, heavy], lambda n=n: n / 100) for n in range(100)]  # type: ignore[misc]
    assert all(draw[2] is last for draw in draws)
    assert sum(draw[0] is heavy for draw in draws) == 75
    assert in_order([Server("a", 1, "udp"), Server("b", 1, "udp")], lambda: 0.0)  # all weights 0


@pytest.mark.parametrize(
    ("status", "policy", "on"),
    [
        (408, FAILOVER_ON, True),
        (500, FAILOVER_ON, True),
        (503, FAILOVER_ON, True),
        (480, FAILOVER_ON, False),
        (480, ("480",), True),
        (486, FAILOVER_ON, False),
        (404, FAILOVER_ON, False),
        (603, FAILOVER_ON, False),
        (487, ("4xx",), True),
        (0, (), True),
        (200, ("2xx", "5xx"), False),
        (183, ("1xx",), False),
    ],
)
def test_what_fails_over(status: int, policy: tuple[str, ...], on: bool) -> None:
    assert fails_over(status, policy) is on


def test_two_silent_options_make_a_server_bad_and_one_answer_good() -> None:
    health = TrunkHealth("t", options_s=30.0)
    health.located([A, B], "", now=0.0)
    token = 0

    def ask(now: float, *answering: Server, status: int = 200) -> TrunkView:
        nonlocal token
        for server in health.due(now):
            token += 1
            health.asked(server, token, now)
            if server in answering:
                health.answered(token, status, True, now)
        health.passes(now + ANSWER_S)
        return health.view()

    assert ask(0.0, A, B).state is TrunkState.UP
    assert health.due(10.0) == []
    assert ask(30.0, A).state is TrunkState.UP, "one OPTIONS may be lost"
    seen = ask(40.0, A)
    assert (seen.state, seen.usable) == (TrunkState.DEGRADED, (A,))
    assert "192.0.2.2:5070 over TCP does not answer OPTIONS" in seen.reason
    ask(60.0)
    seen = ask(70.0)
    assert (seen.state, seen.usable) == (TrunkState.DOWN, ())
    assert health.servers() == [A, B], "all of them, when none is up"
    seen = ask(80.0, A, B, status=404)
    assert (seen.state, seen.reason) == (TrunkState.UP, "")
    ask(110.0, A, B, status=503)
    assert ask(116.0, A, B, status=503).state is TrunkState.DOWN, "a 503 says that it takes no calls"


def test_a_late_answer_and_one_of_nobody_do_not_count() -> None:
    health = TrunkHealth("t", options_s=30.0)
    health.located([A], "", now=0.0)
    for now in (0.0, 10.0):
        health.asked(A, int(now) + 1, now)
        health.passes(now + ANSWER_S)
    assert health.view().state is TrunkState.DOWN
    health.answered(11, 408, False, 42.0)  # PJSIP's own, 32 s later
    assert health.view().state is TrunkState.DOWN
    health.asked(A, 99, 50.0)
    health.answered(98, 200, True, 50.1)
    assert health.view().state is TrunkState.DOWN


def test_a_registration_that_is_lost_degrades_and_a_name_that_is_not_there_takes_down() -> None:
    health = TrunkHealth("t", options_s=0.0)
    health.located([A], "", now=0.0)
    health.registration(RegistrationState.REFUSED, "check the password", now=1.0)
    assert (health.view().state, health.view().reason) == (TrunkState.DEGRADED, "check the password")
    health.registration(RegistrationState.REGISTERED, "", now=2.0)
    assert health.view().state is TrunkState.UP
    health.located([], "t.example has no address", now=3.0)
    assert health.view().state is TrunkState.UP, "what was known still holds"
    other = TrunkHealth("u", options_s=30.0)
    other.located([], "u.example has no address", now=0.0)
    assert (other.view().state, other.view().reason) == (TrunkState.DOWN, "u.example has no address")


def test_a_call_that_found_nobody_counts_like_an_options() -> None:
    health = TrunkHealth("t", options_s=30.0)
    health.located([A], "", now=0.0)
    health.call_failed(A, 1.0)
    assert health.due(1.0) == [A]
    health.call_failed(A, 2.0)
    assert health.view().state is TrunkState.DOWN
