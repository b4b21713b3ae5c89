import pytest

from sipagent.media.telephone_event import (
    EventPayload,
    EventReceiver,
    EventSender,
    Press,
    PressLimit,
    UnnegotiatedEvents,
    fits_telephone_event,
)

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


def test_a_stream_that_starts_over_with_older_timestamps_is_heard(line):
    line.press(1, 0x40000000)
    line.silence(6000)
    line.press(1, 1000)  # a new sender after a transfer: its timestamps are random
    assert line.pressed == [Press("1", 100), Press("1", 100)]


def test_an_end_that_comes_seconds_late_does_not_count_again(line):
    line.press(1, 1000, lose=(5, 6, 7))
    line.silence(300)
    line.silence(10_000)  # the network stood still
    line.packet(1, 1000, 800, end=True)
    assert line.pressed == [Press("1", 100)]


def test_second_segment_without_the_first(line):
    line.packet(3, 1000 + 0xFFFF, 1600)
    line.packet(3, 1000 + 0xFFFF, 3200, end=True)
    assert line.pressed == [Press("3", 400)]


# Sending


def sent(sender, ticks, timestamp=1000):
    """What goes out in so many ticks of 20 ms: a list of packets or None each."""
    return [sender.packets((timestamp + 160 * tick) & 0xFFFFFFFF, 101) for tick in range(ticks)]


def reports(packets):
    return [EventPayload.parse(packet.payload) for packet in packets]


def test_one_key_is_updates_and_three_ends():
    sender = EventSender()
    sender.queue("5", 100)
    ticks = sent(sender, 8)
    packets = [packet for tick in ticks if tick is not None for packet in tick]
    assert [len(tick or []) for tick in ticks] == [1, 1, 1, 1, 1, 1, 1, 0]
    assert [(each.duration, each.end) for each in reports(packets)] == [
        (160, False),
        (320, False),
        (480, False),
        (640, False),
        (800, True),
        (800, True),
        (800, True),
    ]
    assert {each.event for each in reports(packets)} == {5}
    assert [packet.marker for packet in packets] == [True] + [False] * 6
    assert {(packet.timestamp, packet.payload_type) for packet in packets} == {(1000, 101)}
    assert sender.completed == 1 and not sender.active


def test_duration_need_not_be_whole_packets():
    sender = EventSender()
    sender.queue("#", 90)
    durations = [each.duration for tick in sent(sender, 7) for each in reports(tick or [])]
    assert durations == [160, 320, 480, 640, 720, 720, 720]


def test_audio_goes_out_between_keys():
    sender = EventSender()
    sender.queue("12", 40, 80)
    silent = [tick is None for tick in sent(sender, 10)]
    #        key 1: 40 ms, two more ends, 40 ms of audio; then key 2
    assert silent == [False] * 4 + [True] * 2 + [False] * 4
    assert sender.completed == 2


def test_comma_is_half_a_second_of_audio():
    sender = EventSender()
    sender.queue(",1", 40, 40)
    ticks = sent(sender, 30)
    assert ticks[:25] == [None] * 25 and ticks[25] is not None
    assert ticks[25][0].timestamp == 1000 + 25 * 160 and ticks[25][0].marker


def test_long_key_is_sent_in_segments():
    sender = EventSender()
    sender.queue("7", 9000)  # 72,000 units
    packets = [packet for tick in sent(sender, 460, 0xFFFFFF00) for packet in tick or []]
    full = [packet for packet in packets if EventPayload.parse(packet.payload).duration == 0xFFFF]
    assert len(full) == 3 and not any(EventPayload.parse(packet.payload).end for packet in full)
    assert {packet.timestamp for packet in packets} == {0xFFFFFF00, 0xFFFFFF00 + 0xFFFF - 2**32}
    assert [packet.marker for packet in packets].count(True) == 1
    timestamps = [packet.timestamp for packet in packets]
    assert timestamps.index(0xFEFF) == timestamps.count(0xFFFFFF00)  # never an older one again
    assert [(each.duration, each.end) for each in reports(packets)[-3:]] == [(72_000 - 0xFFFF, True)] * 3


def test_cancel_releases_the_key():
    sender = EventSender()
    sender.queue("123", 100)
    sent(sender, 2)
    sender.cancel()
    ends = [each for tick in sent(sender, 5, 1320) for each in reports(tick or [])]
    assert [(each.event, each.duration, each.end) for each in ends] == [(1, 320, True)] * 3
    assert not sender.active and sender.completed == 1


def test_nothing_to_send_is_audio():
    sender = EventSender()
    assert not sender.active and sent(sender, 3) == [None] * 3


@pytest.mark.parametrize("lose", [(), (0,), (0, 1, 2, 3), (5, 6), (4, 5)])
def test_what_we_send_is_what_we_hear(line, lose):
    sender = EventSender()
    sender.queue("0123456789*#abcd", 100)
    timestamp, number = 0xFFFFF000, 0
    while sender.active:
        for packet in sender.packets(timestamp, 101) or []:
            payload = EventPayload.parse(packet.payload)
            if number % 7 not in lose:  # every key is seven packets
                line.packet(payload.event, packet.timestamp, payload.duration, end=payload.end)
            number += 1
        timestamp = (timestamp + 160) & 0xFFFFFFFF
    assert line.pressed == [Press(digit, 100) for digit in "0123456789*#ABCD"]


@pytest.mark.parametrize(
    "digits, duration_ms, gap_ms, message",
    [
        ("12x", 100, 80, r"digits are 0-9, \*, #, A-D and a comma for a pause, not 'X'"),
        ("", 100, 80, "digits are .* not ''"),
        ("²", 100, 80, "not '²'"),
        ("1", 39, 80, "the duration of a digit is 40 to 30000 ms, not 39"),
        ("1", 100, 30_001, "the gap of a digit is 40 to 30000 ms, not 30001"),
        ("1" * 129, 100, 80, "129 digits more are too many: 0 wait, 128 may"),
    ],
)
def test_digits_that_cannot_be_sent_are_refused(digits, duration_ms, gap_ms, message):
    sender = EventSender()
    with pytest.raises(ValueError, match=message):
        sender.queue(digits, duration_ms, gap_ms)
    assert not sender.active


# Payload types nobody negotiated


@pytest.mark.parametrize(
    "payload, fits",
    [
        (bytes(EventPayload(11, False, 10, 160)), True),
        (bytes(EventPayload(0, False, 0, 0)), True),
        (bytes(EventPayload(0, True, 0, 0)), False),  # over before it began
        (bytes(EventPayload(16, False, 10, 160)), False),  # flash is no key
        (bytes(EventPayload(1, False, 60, 160)), False),  # too faint
        (b"\x01\x4a\x00\xa0", False),  # reserved bit
        (b"\x01\x0a\x00", False),
        (b"\x01\x0a\x00\xa0" * 2, False),
        (b"", False),
        (b"\xff" * 160, False),
    ],
)
def test_what_may_be_a_telephone_event(payload, fits):
    assert fits_telephone_event(payload) is fits


def report(duration, *, event=1, end=False):
    return bytes(EventPayload(event, end, 10, duration))


def test_the_only_payload_type_that_fits_is_found():
    events = UnnegotiatedEvents()
    assert not events.observe(101, report(160), 1000)
    assert events.payload_type == -1
    assert events.observe(101, report(320), 1000)
    assert events.payload_type == 101
    assert events.observe(101, report(160, event=2), 5000)


def test_repeated_ends_are_enough():
    events = UnnegotiatedEvents()
    assert [events.observe(96, report(800, end=True), 1000) for _ in range(3)] == [False, True, True]


def test_two_payload_types_that_fit_are_none():
    events = UnnegotiatedEvents()
    for duration in (160, 320):
        events.observe(101, report(duration), 1000)
    assert not events.observe(102, report(160), 9000)
    assert events.payload_type == -1
    assert not events.observe(101, report(480), 1000)


def test_what_fits_by_chance_is_not_believed():
    events = UnnegotiatedEvents()
    assert not events.observe(101, report(160), 1000)
    assert not events.observe(101, report(160), 1160)  # another timestamp every time: a codec's small frames
    assert not events.observe(101, report(320, event=3), 1160)
    assert not events.observe(101, b"\x07" * 20, 1320)
    for duration in (160, 320):
        assert not events.observe(101, report(duration), 2000)  # it was something else before


def test_static_payload_types_are_never_events():
    events = UnnegotiatedEvents()
    for duration in (160, 320, 480):
        assert not events.observe(13, report(duration), 1000)
    assert events.payload_type == -1
