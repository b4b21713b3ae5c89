import numpy as np
import pytest

from sipagent.media.jitter import JitterBuffer
from sipagent.media.reception import Reception
from sipagent.media.rings import Counter, len_of

SLOT = 1


class Stream:
    """Feeds sequence numbers of one slot to a reception of three."""

    def __init__(self):
        self.counters = np.zeros((3, len_of(Counter)), np.int64)
        self.reception = Reception(3, self.counters)
        self.reception.reset(SLOT)

    def start(self, sequence, ssrc=7):
        self.reception.start(SLOT, ssrc, sequence)
        return self.take(sequence)

    def take(self, *sequences):
        """For each whether it was fresh."""
        fresh = []
        for sequence in sequences:
            fresh.append(self.reception.accept(SLOT, sequence & 0xFFFF).fresh)
        return fresh

    def count(self, counter):
        self.reception.publish(np.array([SLOT]))
        assert not self.counters[[0, 2]].any()
        return int(self.counters[SLOT, counter])


@pytest.fixture
def stream():
    return Stream()


def test_nothing_received_nothing_lost(stream):
    assert stream.count(Counter.LOST) == 0


@pytest.mark.parametrize("first", [0, 1, 65530, 65535])
def test_in_order_over_the_wrap(stream, first):
    assert all(stream.start(first))
    assert all(stream.take(*range(first + 1, first + 200)))
    assert [stream.count(c) for c in (Counter.LOST, Counter.DUPLICATE, Counter.REORDERED)] == [0, 0, 0]


def test_loss_is_expected_minus_received(stream):
    stream.start(65530)
    stream.take(*(n for n in range(65531, 65632) if n % 10))
    assert stream.count(Counter.LOST) == 10


def test_a_late_packet_is_reordered_not_lost(stream):
    stream.start(10)
    assert stream.take(11, 13, 14, 12) == [True] * 4
    assert stream.count(Counter.REORDERED) == 1
    assert stream.count(Counter.LOST) == 0


def test_duplicates_are_found_and_hide_no_loss(stream):
    stream.start(10)
    assert stream.take(10, 11, 11, 14, 12, 12, 14) == [False, True, False, True, True, False, False]
    assert stream.count(Counter.DUPLICATE) == 4
    assert stream.count(Counter.LOST) == 1


def test_packets_before_the_first_belong_to_it(stream):
    stream.start(10)
    stream.take(9, 11)
    assert stream.count(Counter.LOST) == 0
    assert stream.count(Counter.REORDERED) == 1


def test_a_jump_needs_a_second_packet(stream):
    stream.start(10)
    stream.take(11, 12)
    assert stream.take(40_000, 13) == [False, True]  # a stray one changes nothing
    assert stream.count(Counter.RESYNCS) == 0
    assert stream.take(50_000, 50_001, 50_002) == [False, True, True]
    assert stream.count(Counter.RESYNCS) == 1
    assert stream.count(Counter.LOST) == 0


def test_losses_of_earlier_streams_stay(stream):
    stream.start(10)
    stream.take(13)
    stream.start(900, ssrc=8)
    stream.take(902)
    assert stream.count(Counter.LOST) == 3


def test_nothing_is_lost_while_nobody_listens(stream):
    stream.start(10)
    stream.reception.stop(SLOT)
    stream.start(500)
    assert stream.count(Counter.LOST) == 0


def play_stream(stream, buffer, count, first_ns=1_000_000_000):
    """So many packets of 20 ms into the buffer, every second one 10 ms late; looks at them every 100 ms."""
    stream.start(0)
    for n in range(count):
        arrival = first_ns + n * 20_000_000 + (n % 2) * 10_000_000
        buffer.insert(SLOT, 0xFFFFFF60 + 160 * n & 0xFFFFFFFF, np.zeros(160, np.int16), True, arrival)
        buffer.position[SLOT] = buffer.end[SLOT]  # it has been played
        if n % 5 == 4:
            stream.reception.measure(np.arange(3), buffer)


def test_jitter_is_that_of_the_rfc(stream):
    """A.8 by hand: transit changes of 10 ms each way give J(n) = J + (80 - J) / 16."""
    play_stream(stream, JitterBuffer(3, 8000, 20, 400, stream.counters), 50)
    expected = 0.0
    for _ in range(1, 50):
        expected += (80 - expected) / 16
    assert stream.count(Counter.JITTER_US) == pytest.approx(expected * 125, abs=1)


def test_arrivals_of_the_call_before_are_no_jitter(stream):
    buffer = JitterBuffer(3, 8000, 20, 400, stream.counters)
    play_stream(stream, buffer, 50)
    stream.reception.reset(SLOT)
    buffer.reset(SLOT)
    stream.reception.measure(np.arange(3), buffer)  # the next call is up, and silent
    assert stream.count(Counter.JITTER_US) == 0


def test_what_follows_simply_and_what_was_left_out_are_told(stream):
    stream.start(10)
    accept = stream.reception.accept
    assert accept(SLOT, 11) == (True, True, False, 0)
    assert accept(SLOT, 14) == (True, False, False, 2)
    assert accept(SLOT, 12) == (True, False, False, 0)
    assert accept(SLOT, 15) == (True, True, False, 0)


def test_a_successor_goes_on_from_the_figures_published_before(stream):
    stream.start(10)
    stream.take(14)
    stream.reception._jitter[SLOT] = 2_000_000.0
    assert stream.count(Counter.LOST) == 3
    stream.reception = Reception(3, stream.counters)
    stream.reception.reset(SLOT)
    stream.reception.resume(SLOT)
    assert (stream.count(Counter.LOST), stream.count(Counter.JITTER_US)) == (3, 2000)
    stream.start(40)  # what was lost while there was no engine is told as a gap, not here
    stream.take(42)
    assert stream.count(Counter.LOST) == 4
