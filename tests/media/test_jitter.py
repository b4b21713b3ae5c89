"""Playout under loss, lateness, reordering and re-timing, with time as an argument."""

import numpy as np
import pytest

from sipagent.media.jitter import JitterBuffer
from sipagent.media.reception import Accepted
from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Counter, len_of

MS = 1_000_000
START = 0xFFFFFF00  # the timestamps wrap in the first packets


def audio(index, samples=160):
    """Samples that tell where they belong: their index in the stream, plus one."""
    return (np.arange(samples) + index + 1).astype(np.int16)


class Call:
    """One slot of four, its packets arriving when told, its frames played every 20 ms from 0 on."""

    def __init__(self, delay_ms=40):
        self.counters = np.zeros((4, len_of(Counter)), np.int64)
        self.buffer = JitterBuffer(4, delay_ms, self.counters)
        self.slot = np.array([2])
        self.now = 0
        self.frames: list[np.ndarray] = []
        self.flags: list[int] = []
        self.arrivals: list[int] = []

    def packet(self, index, samples=160, *, contiguous=True, pcm=None, arrival=None):
        """The packet whose first sample has this index in the stream."""
        n, pcm = START + index & 0xFFFFFFFF, audio(index, samples) if pcm is None else pcm
        accepted = None if contiguous else Accepted(np.array([True]), np.array([False]), np.array([False]))
        arrival = self.now if arrival is None else arrival
        if samples % 80:
            self.buffer.insert_odd(2, n, pcm, contiguous, arrival)
        else:
            self.buffer.insert(self.slot, np.array([n]), pcm[None, :], accepted, arrival)

    def play(self, frames=1):
        for _ in range(frames):
            played = self.buffer.play(self.slot, self.now)
            self.frames.append(played.pcm[0].copy())
            self.flags.append(int(played.flags[0]))
            self.arrivals.append(int(played.arrival[0]))
            self.now += 20 * MS

    def count(self, counter):
        assert not self.counters[[0, 1, 3]].any()
        return int(self.counters[2, counter])

    @property
    def heard(self):
        return np.concatenate(self.frames)


@pytest.fixture
def call():
    return Call()


def test_before_the_first_packet_there_is_silence(call):
    call.play(3)
    assert call.flags == [FLAG_SILENCE] * 3
    assert not call.heard.any() and call.arrivals == [0, 0, 0]


def test_audio_is_handed_on_one_delay_after_it_came(call):
    for n in range(10):
        call.packet(160 * n)
        call.play()
    assert call.flags == [FLAG_SILENCE] * 2 + [0] * 8
    assert (call.heard[320:] == np.arange(1, 8 * 160 + 1)).all()
    assert call.arrivals == [0, 0, *(n * 20 * MS for n in range(8))]


@pytest.mark.parametrize("samples", [80, 160, 240, 320, 480, 200, 164, 33])
def test_packets_of_any_length(call, samples):
    sent = 0
    for frame in range(30):
        while sent < 160 * (frame + 1):
            call.packet(sent, samples)
            sent += samples
        call.play()
    assert call.flags == [FLAG_SILENCE] * 2 + [0] * 28
    assert (call.heard[320:] == np.arange(1, 28 * 160 + 1)).all()


def test_lengths_may_change_in_mid_stream(call):
    index = 0
    for samples in (160, 80, 80, 240, 240, 480, 160, 320):
        call.packet(index, samples)
        index += samples
    call.play(2 + index // 160)
    assert (call.heard[320:] == np.arange(1, index + 1)).all()
    assert not any(call.flags[2:])


def test_reordered_within_the_delay_is_as_good_as_in_order(call):
    for n in (0, 2, 1, 4, 3, 5):
        call.packet(160 * n, contiguous=False)
    call.play(8)
    assert (call.heard[320:] == np.arange(1, 6 * 160 + 1)).all()
    assert call.count(Counter.CONCEALED_MS) == call.count(Counter.LATE) == 0


def test_a_lost_packet_is_concealed_by_the_frame_before(call):
    call.packet(0)
    call.packet(160, pcm=np.full(160, 1000, np.int16))
    call.packet(480, contiguous=False)
    call.play(7)
    assert call.flags[2:6] == [0, 0, FLAG_CONCEALED, 0]
    assert (call.frames[4][:80] == 1000).all() and (call.frames[4][80:] == 900).all()
    assert (call.frames[5] == audio(480)).all()
    assert call.arrivals[4] == 0
    assert call.count(Counter.CONCEALED_MS) == 20


def test_the_second_half_of_a_frame_is_concealed_alone(call):
    for index in (0, 80, 160, 320, 400):
        call.packet(index, 80, contiguous=index < 320)
    call.play(5)
    assert call.flags[2:] == [0, FLAG_CONCEALED, 0]
    assert (call.frames[3][:80] == audio(160, 80)).all()
    assert (call.frames[3][80:] == audio(80, 80)).all()  # what was good: 80..160 and 160..240, the older half first
    assert call.count(Counter.CONCEALED_MS) == 10


def test_concealment_fades_and_ends(call):
    call.packet(0, pcm=np.full(160, 1000, np.int16))
    call.play(12)
    peaks = [int(frame.max()) for frame in call.frames[2:]]
    assert peaks == [1000, 1000, 700, 300, 0, 0, 0, 0, 0, 0]
    assert call.flags[3:8] == [FLAG_CONCEALED] * 5
    assert call.flags[8:] == [FLAG_SILENCE] * 4  # 100 ms without a packet: nobody is speaking


def test_a_late_packet_is_counted_and_not_played(call):
    for n in (0, 1, 3, 4):
        call.packet(160 * n, contiguous=n != 3)
    call.play(5)
    call.packet(320, contiguous=False)
    call.play(2)
    assert call.count(Counter.LATE) == 1
    assert call.flags[2:] == [0, 0, FLAG_CONCEALED, 0, 0]


def test_a_timestamp_jump_without_a_sequence_gap_is_a_pause(call):
    call.packet(0)
    call.packet(160 + 800)
    call.play(9)
    assert call.flags[2:] == [0, *[FLAG_SILENCE] * 5, 0]
    assert not call.heard[3 * 160 : 8 * 160].any()
    assert call.count(Counter.CONCEALED_MS) == 0


def test_the_same_jump_with_a_sequence_gap_is_loss(call):
    call.packet(0)
    call.packet(160 + 320, contiguous=False)
    call.play(6)
    assert call.flags[2:] == [0, FLAG_CONCEALED, FLAG_CONCEALED, 0]
    assert call.count(Counter.CONCEALED_MS) == 40


def test_a_long_pause_is_not_counted_as_concealment_and_anchors_afresh(call):
    call.packet(0)
    call.play(50)
    call.packet(160 + 8000)
    call.play(4)
    assert call.flags[-4:] == [FLAG_SILENCE, FLAG_SILENCE, 0, FLAG_CONCEALED]
    assert (call.frames[52] == audio(160 + 8000)).all()
    assert call.count(Counter.CONCEALED_MS) == 0


def test_after_an_outage_playout_starts_over_with_the_delay(call):
    call.packet(0)
    call.play(50)
    call.packet(160 * 50, contiguous=False)
    call.packet(160 * 51)
    call.play(4)
    assert call.flags[-4:] == [FLAG_SILENCE, FLAG_SILENCE, 0, 0]
    assert call.count(Counter.CONCEALED_MS) == 100  # until the stream was let go


def test_a_burst_is_skipped_so_that_its_delay_does_not_stay(call):
    for n in range(40):  # 800 ms at once
        call.packet(160 * n)
    call.play(5)
    assert call.count(Counter.RESYNCS) > 0
    behind = 40 * 160 - int(call.frames[-1][-1])
    assert behind <= 300 * 8


def test_timestamps_that_start_over_are_followed(call):
    for n in range(5):
        call.packet(160 * n)
    call.play(4)
    call.packet(-800_000)
    call.packet(-800_000 + 160)
    call.play(4)
    assert call.count(Counter.RESYNCS) == 1
    assert call.flags[-4:] == [FLAG_SILENCE, FLAG_SILENCE, 0, 0]
    assert (call.frames[-2] == audio(-800_000)).all()


def test_a_pressed_key_is_neither_loss_nor_audio(call):
    call.packet(0)
    call.buffer.mark(2, START + 160 & 0xFFFFFFFF, 320, FLAG_DIGIT, 5)
    call.packet(480)
    call.play(6)
    assert call.flags[2:] == [0, FLAG_DIGIT, FLAG_DIGIT, 0]
    assert not call.heard[480:800].any()
    assert call.count(Counter.CONCEALED_MS) == 0


def test_calls_in_one_batch_do_not_touch_one_another():
    counters = np.zeros((3, len_of(Counter)), np.int64)
    buffer, slots = JitterBuffer(3, 40, counters), np.arange(3)
    for n in range(5):
        for slot in slots:
            if n != 3 or slot != 1:
                contiguous = Accepted(np.array([True]), np.array([n != 4 or slot != 1]), np.array([False]))
                one, pcm = np.array([slot]), np.full((1, 160), 100 * slot + n, np.int16)
                buffer.insert(one, np.array([160 * n + 1000 * slot]), pcm, contiguous, 0)
    played = [buffer.play(slots, 40 * MS) for _ in range(5)]
    assert [p.flags.tolist() for p in played] == [[0] * 3] * 3 + [[0, FLAG_CONCEALED, 0]] + [[0] * 3]
    assert [p.pcm[:, 0].tolist() for p in played][4] == [4, 104, 204]
    assert played[3].pcm[1, 0] == 102
