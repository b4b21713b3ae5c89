"""When the keys that a caller was asked to press are complete."""

import pytest

from sipagent.calls.gathering import Gathering
from sipagent.conversation.interfaces import DigitsWanted

S = 1_000_000_000
WANTED = DigitsWanted(least=1, most=4, first_s=8, between_s=3, limit_s=20)


def over_at(gathering: Gathering, after: float) -> float:
    """Seconds at which it is over, in steps of 0.1, when nothing more is pressed."""
    tenths = round(after * 10)
    while not gathering.over(tenths * S // 10):
        tenths += 1
    return tenths / 10


def test_the_last_key_ends_it_at_once():
    gathering = Gathering(WANTED, 0)
    for at, digit in enumerate("1234", 1):
        gathering.pressed(digit, at * S)
    assert gathering.over(4 * S) and gathering.digits == "1234"
    gathering.pressed("5", 4 * S)
    assert gathering.digits == "1234"


def test_the_end_key_ends_it_and_is_none_of_them():
    gathering = Gathering(WANTED, 0)
    gathering.pressed("7", S)
    assert not gathering.over(S)
    gathering.pressed("#", 2 * S)
    assert gathering.over(2 * S) and gathering.digits == "7"


@pytest.mark.parametrize(("pressed", "over"), [([], 8.0), ([2.0], 5.0), ([2.0, 4.5], 7.5)])
def test_silence_ends_it(pressed, over):
    gathering = Gathering(WANTED, 0)
    for at in pressed:
        gathering.pressed("1", int(at * S))
    assert over_at(gathering, pressed[-1] if pressed else 0.0) == over


def test_the_callers_time_begins_when_the_agent_is_silent():
    gathering = Gathering(WANTED, 0)
    gathering.asking(6 * S)
    assert over_at(gathering, 6.0) == 14.0


def test_it_ends_however_long_the_agent_speaks():
    gathering = Gathering(WANTED, 0)
    for second in range(20):
        gathering.asking(second * S)
    assert over_at(gathering, 19.0) == 20.0
