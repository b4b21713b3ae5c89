import pytest

from sipagent.media.telephone_event import EventPayload, EventReceiver, Press, PressLimit

MS = 1_000_000


class Line:
    """Feeds packets to a receiver 20 ms apart."""

    def __init__(self):
        self.receiver = EventReceiver()
        self.now = 0
        self.pressed: list[Press] = []

    def packet(self, event, timestamp, duration, *, end=False, after_ms=20):
        self.now += after_ms * MS
        payload = EventPayload(event, end, 10, duration)
        assert EventPayload.parse(bytes(payload)) == payload
        self.pressed += self.receiver.receive(payload, timestamp, self.now)

    def press(self, event, timestamp, *, lose=()):
        packets = [(160 * n, False) for n in range(1, 6)] + [(800, True)] * 3
        for number, (duration, end) in enumerate(packets):
            if number not in lose:
                self.packet(event, timestamp, duration, end=end)

    def silence(self, ms):
        self.now += ms * MS
        self.pressed += self.receiver.expire(self.now)


@pytest.fixture
def line():
    return Line()


def test_end_thrice_counts_once(line):
    line.press(5, 1000)
    assert line.pressed == [Press("5", 100)]
    assert not line.receiver.active


@pytest.mark.parametrize("lose", [(0,), (0, 1, 2), (5, 6), (0, 1, 2, 3, 4, 6, 7)])
def test_lost_packets_do_not_matter_while_an_end_comes(line, lose):
    line.press(11, 0xFFFFFF00, lose=lose)
    assert line.pressed == [Press("#", 100)]


def test_all_ends_lost_is_completed_by_time(line):
    line.press(1, 1000, lose=(5, 6, 7))
    line.silence(200)
    assert line.pressed == []
    line.silence(100)
    assert line.pressed == [Press("1", 100)]
    line.packet(1, 1000, 800, end=True)  # it comes after all
    assert line.pressed == [Press("1", 100)]


def test_all_ends_lost_is_completed_by_the_next_press(line):
    line.press(1, 1000, lose=(5, 6, 7))
    line.press(1, 3000)
    assert line.pressed == [Press("1", 100), Press("1", 100)]


def test_the_same_key_twice(line):
    line.press(7, 1000)
    line.press(7, 2600)
    assert [press.digit for press in line.pressed] == ["7", "7"]


def test_straggler_of_an_older_press_is_ignored(line):
    line.press(1, 1000)
    line.packet(2, 4000, 160)
    line.packet(1, 1000, 800, end=True)
    line.packet(2, 4000, 320, end=True)
    assert line.pressed == [Press("1", 100), Press("2", 40)]


def test_timestamps_wrap(line):
    line.press(1, 0xFFFFFFF0)
    line.press(2, 2000)
    assert [press.digit for press in line.pressed] == ["1", "2"]


def test_long_press_goes_on_in_a_second_segment(line):
    line.packet(3, 1000, 0xFFFF)
    line.packet(3, 1000 + 0xFFFF, 1600)
    line.packet(3, 1000 + 0xFFFF, 3200, end=True)
    assert line.pressed == [Press("3", (0xFFFF + 3200) // 8)]


def test_every_key_and_nothing_else(line):
    for event in range(20):
        line.press(event, 10_000 * (event + 1))
    assert "".join(press.digit for press in line.pressed) == "0123456789*#ABCD"


def test_short_payload_is_refused():
    with pytest.raises(ValueError, match="telephone-event truncated: need 4 bytes, got 3"):
        EventPayload.parse(b"\x01\x0a\x00")


def test_no_more_than_twenty_presses_in_any_second():
    limit = PressLimit()
    assert [limit.admits(n * 10 * MS) for n in range(30)] == [True] * 20 + [False] * 10
    assert not limit.admits(999 * MS)
    assert limit.admits(1000 * MS) and not limit.admits(1005 * MS) and limit.admits(1010 * MS)


def test_the_fastest_dialler_is_not_limited():
    limit = PressLimit()
    assert all(limit.admits(n * 80 * MS) for n in range(200))  # 40 ms on, 40 ms off
