"""When offers of ours go out, and digits in INFO bodies."""

import pytest

from sipagent.sip import info
from sipagent.sip.offers import PENDING, Offers

SECOND = 1_000_000_000


@pytest.mark.parametrize(("chose", "wait_s"), [(True, 2.1 + 0.95), (False, 1.0)])
def test_after_both_sides_offered_each_waits_another_time(chose: bool, wait_s: float) -> None:
    offers = Offers(chose_call_id=chose, chance=lambda: 0.5)
    offers.want()
    assert offers.due(0)
    offers.sent(0)
    assert not offers.due(SECOND) and offers.on_its_way
    assert offers.answered(PENDING, SECOND) == "again"
    assert not offers.due(SECOND + int((wait_s - 0.01) * SECOND))
    assert offers.due(SECOND + int((wait_s + 0.01) * SECOND))


def test_an_offer_that_always_crosses_is_given_up() -> None:
    offers = Offers(chose_call_id=False)
    offers.want()
    outcomes = []
    for now in range(0, 100 * SECOND, 10 * SECOND):
        if not offers.due(now):
            break
        offers.sent(now)
        outcomes.append(offers.answered(PENDING, now))
    assert outcomes == ["again"] * 3 + ["refused"]


def test_what_is_wanted_meanwhile_goes_out_afterwards() -> None:
    offers = Offers(chose_call_id=True)
    offers.want()
    offers.sent(1)
    offers.want()
    assert not offers.due(2)
    assert offers.answered(200, 3) == "accepted" and offers.due(3)
    offers.sent(4)
    assert not offers.expired(39 * SECOND) and offers.expired(42 * SECOND)
    assert offers.answered(408, 5) == "refused" and not offers.wanted


@pytest.mark.parametrize(
    ("kind", "body", "pressed"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", ("5", 160)),
        ("Application/DTMF-Relay; charset=x", "duration = 250\nsignal= *\n", ("*", 250)),
        ("application/dtmf-relay", "Signal=11\r\n", ("#", 0)),
        ("application/dtmf-relay", "Signal=a\r\nDuration=999999\r\n", ("A", 10_000)),
        ("application/dtmf-relay", "Signal=5\r\nDuration=x\r\n", ("5", 0)),
        ("application/dtmf", "7\r\n", ("7", 0)),
        ("application/dtmf", "Signal=7", ("7", 0)),
        ("application/dtmf", "77", None),
        ("application/dtmf-relay", "Duration=160", None),
        ("application/dtmf", "", None),
        ("text/plain", "5", None),
    ],
)
def test_digits_in_a_body(kind: str, body: str, pressed: tuple[str, int] | None) -> None:
    assert info.digit_of(kind, body) == pressed


def test_digits_we_write_are_read_alike() -> None:
    for digit in info.DIGITS:
        assert info.digit_of(info.RELAY, info.relay_body(digit, 100)) == (digit, 100)
    with pytest.raises(ValueError, match="not one of the keys"):
        info.relay_body("12", 100)
