"""When a main process is taken for hung, and when it is not."""

import pytest

from sipagent.cli.heart import Heart, Look, Pulse


def looks(*rows: tuple[float, int, str, float]) -> list[bool]:
    pulse = Pulse()
    return [pulse.hangs(Look(at, beats, 3.0, state, cpu)) for at, beats, state, cpu in rows]


@pytest.mark.parametrize(
    ("state", "cpu_each", "hung"),
    [
        ("S", 0.0, True),  # it waits for something
        ("R", 1.0, True),  # it computes without end
        ("R", 0.1, False),  # others have the processors
        ("D", 0.0, False),  # a slow disk
        ("T", 0.0, False),  # stopped
        ("t", 0.0, False),  # a debugger
    ],
)
def test_only_who_could_have_beaten_and_did_not_hangs(state: str, cpu_each: float, hung: bool):
    rows = [(float(second), 5, state, second * cpu_each) for second in range(20)]
    assert looks(*rows) == [hung and second >= 3 for second in range(20)]


def test_a_beat_begins_anew_and_a_pause_of_the_machine_is_no_silence():
    assert looks((0, 1, "S", 0), (1, 1, "S", 0), (2, 2, "S", 0), (3, 2, "S", 0), (4, 2, "S", 0), (5, 2, "S", 0))[-1]
    assert looks((0, 1, "S", 0), (100, 1, "S", 0), (101, 2, "S", 0)) == [False, False, False]


def test_who_has_never_beaten_is_not_watched():
    assert not any(looks(*((float(second), 0, "S", 0.0) for second in range(100))))


def test_the_heart_is_shared_and_starts_anew_with_each_main():
    heart = Heart()
    heart.beat(60.0)
    heart.beat(10.0)
    assert heart.state == (2, 10.0)
    heart.reset()
    assert heart.state == (0, 0.0)
