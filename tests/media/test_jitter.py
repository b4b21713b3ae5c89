"""Playout under loss, lateness, reordering and re-timing, with time as an argument."""

import functools

import numpy as np
import pytest

from sipagent.media.jitter import JitterBuffer
from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Counter, len_of

MS = 1_000_000
START = 0xFFFFFF00  # the timestamps wrap in the first packets
SLOT = 2


def ramp(index, samples=160):
    """Samples that tell where they belong."""
    return ((np.arange(samples) + index) % 30_000 + 1).astype(np.int16)


@functools.cache
def speech(seconds, rate=8000, seed=1):
    """Voiced stretches of half a second with pauses as long, a little noise under both."""
    random, time = np.random.default_rng(seed), np.arange(int(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 8))
    return (3000 * voice * (time % 1.0 < 0.5) + random.normal(0, 20, len(time))).astype(np.int16)


class Call:
    """One slot of four at 8 or 16 kHz: packets when told, a frame every 20 ms, `adapt` every 100 ms."""

    def __init__(self, rate=8000, audio=ramp, min_ms=20, max_ms=400, hot=False):
        self.counters = np.zeros((4, len_of(Counter)), np.int64)
        self.buffer = JitterBuffer(4, rate, min_ms, max_ms, self.counters)
        self.rate, self.audio, self.hot = rate, audio, hot
        self.now = 1_000 * MS
        self.frames: list[np.ndarray] = []
        self.flags: list[int] = []
        self.arrivals: list[int] = []
        self.appended = self.taken = 0

    def packet(self, index, samples=160, *, contiguous=True, at=None):
        """The packet whose first sample has this index in the stream; `samples` of the call's rate."""
        timestamp = START + index * 8000 // self.rate & 0xFFFFFFFF
        pcm, at = self.audio(index, samples), self.now if at is None else at
        if self.hot and contiguous and self.appends(timestamp, pcm, at):
            return True
        return self.buffer.insert(SLOT, timestamp, pcm, contiguous, at)

    def appends(self, timestamp, pcm, at):
        """What the engine does of its own, as the buffer documents it."""
        b = self.buffer
        end, ahead = int(b.end[SLOT]), int(b.end[SLOT] - b.position[SLOT])
        if not (b.hot_in[SLOT] and 0 <= ahead <= b.AHEAD and len(pcm) % b.block == 0):
            return False
        if timestamp != b.timestamp_at_end(SLOT):
            return False
        b.pcm[SLOT, np.arange(end, end + len(pcm)) % b.ring] = pcm
        b.pcm[SLOT, b.ring :] = b.pcm[SLOT, : b.frame]
        blocks = np.arange(end // b.block, (end + len(pcm)) // b.block)
        b.arrived[SLOT, blocks % b.arrived.shape[1]] = at
        b.end[SLOT] = b.solid[SLOT] = end + len(pcm)
        self.appended += 1
        return True

    def play(self, frames=1):
        b, slots = self.buffer, np.array([SLOT])
        for _ in range(frames):
            at = int(b.position[SLOT])
            if self.hot and b.hot_out[SLOT] and at + b.frame <= b.solid[SLOT]:
                pcm, flags = b.pcm[SLOT, at % b.ring : at % b.ring + b.frame].copy(), 0
                arrival = int(b.arrived[SLOT, (at + b.frame - 1) // b.block % b.arrived.shape[1]])
                b.position[SLOT] += b.frame
                self.taken += 1
            else:
                played = b.play(slots, self.now)
                pcm, flags, arrival = played.pcm[0].copy(), int(played.flags[0]), int(played.arrival[0])
            self.frames.append(pcm)
            self.flags.append(flags)
            self.arrivals.append(arrival)
            if len(self.frames) % 5 == 0:
                b.adapt(slots, self.now, np.array([self.now]))
            self.now += 20 * MS

    def run(self, arrivals, size=160, ticks=None):
        """Packets of `size` at these times in ms (nan: never), played until all should have been."""
        due = sorted((at, k) for k, at in enumerate(arrivals) if at == at)
        newest, began = -1, self.now
        for _ in range(ticks or len(arrivals) * size * 50 // self.rate):
            while due and began + due[0][0] * MS <= self.now:
                at, k = due.pop(0)
                self.packet(k * size, size, contiguous=k == newest + 1, at=int(began + at * MS))
                newest = max(newest, k)
            self.play()

    def count(self, counter):
        assert not self.counters[[0, 1, 3]].any()
        return int(self.counters[SLOT, counter])

    @property
    def heard(self):
        return np.concatenate(self.frames)

    @property
    def begun(self):
        """The first frame that was not silence."""
        return next(i for i, flag in enumerate(self.flags) if not flag & FLAG_SILENCE)


@pytest.fixture
def call():
    return Call()


def steady(count, ms=20.0):
    return [k * ms for k in range(count)]


def test_before_the_first_packet_there_is_silence(call):
    call.play(3)
    assert call.flags == [FLAG_SILENCE] * 3
    assert not call.heard.any() and call.arrivals == [0, 0, 0]
    assert not call.buffer.anchored(SLOT)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_an_even_stream_is_handed_on_bit_by_bit_with_a_constant_delay(rate):
    call = Call(rate)
    call.run(steady(500), rate // 50)
    begun = call.begun
    assert begun <= 2
    assert (call.heard[begun * rate // 50 :] == ramp(0, (500 - begun) * rate // 50)).all()
    assert call.flags[begun:] == [0] * (500 - begun)
    assert set(np.diff(call.arrivals[begun:])) == {20 * MS}
    assert call.count(Counter.ACCELERATED_MS) == call.count(Counter.CONCEALED_MS) == 0


@pytest.mark.parametrize("samples", [80, 160, 240, 320, 480, 200, 164, 33])
def test_packets_of_any_length(samples):
    call = Call(min_ms=90)
    count = 20_000 // samples
    call.run(steady(count, samples / 8), samples, ticks=120)
    first = call.begun * 160
    assert (call.heard[first:] == ramp(0, len(call.heard) - first)).all()
    assert call.count(Counter.CONCEALED_MS) == 0


def test_lengths_may_change_in_mid_stream():
    call, index = Call(min_ms=90), 0
    for samples in (160, 80, 80, 240, 240, 480, 160, 320, 160, 160):
        call.packet(index, samples, at=1_000 * MS + (index + samples) * MS // 8)
        index += samples
        call.play((index - 160 * len(call.frames)) // 160)
    call.play(8)
    first = call.begun * 160
    assert (call.heard[first : first + index] == ramp(0, index)).all()


def test_reordered_within_the_delay_is_as_good_as_in_order():
    call = Call(min_ms=80)
    arrivals = steady(60)
    for k in range(2, 50, 4):
        arrivals[k] += 31
    call.run(arrivals)
    first = call.begun * 160
    assert (call.heard[first:] == ramp(0, len(call.heard) - first)).all()
    assert call.count(Counter.CONCEALED_MS) == call.count(Counter.LATE) == 0


def test_duplicates_change_nothing(call):
    assert call.packet(0) and call.packet(160)
    assert not call.packet(160, contiguous=False) and not call.packet(0, contiguous=False)
    call.play(3)
    assert (call.heard[call.begun * 160 :][:320] == ramp(0, 320)).all()


def test_a_hole_is_bridged_when_what_follows_is_there(call):
    call = Call(audio=lambda i, n: speech(3)[i + 800 : i + 800 + n], min_ms=80)
    arrivals = steady(20)
    arrivals[8] = float("nan")
    call.run(arrivals)
    lost = call.begun + 8
    assert [i for i, flag in enumerate(call.flags) if flag & FLAG_CONCEALED] == [lost]
    sent = speech(3)[800 + 8 * 160 : 800 + 9 * 160].astype(float)
    invented = call.frames[lost].astype(float)
    assert np.corrcoef(sent, invented)[0, 1] > 0.95
    assert (call.frames[lost + 1] == speech(3)[800 + 9 * 160 :][:160]).all()
    assert call.count(Counter.CONCEALED_MS) == 20


def test_a_packet_for_a_hole_that_was_bridged_already_still_counts():
    call = Call(audio=lambda i, n: speech(3)[i : i + n], min_ms=80)
    arrivals = steady(20)
    arrivals[8] = float("nan")
    arrivals[9] = 8 * 20 + 75
    call.run(arrivals)
    lost = call.begun + 8
    assert [i for i, flag in enumerate(call.flags) if flag & FLAG_CONCEALED] == [lost]
    assert (call.frames[lost + 1][40:] == speech(3)[9 * 160 + 40 : 10 * 160]).all()
    assert call.count(Counter.CONCEALED_MS) == 20 and call.count(Counter.LATE) == 0


def test_concealment_fades_and_the_stream_is_let_go(call):
    call = Call(audio=lambda i, n: speech(3)[i : i + n])
    call.run(steady(10))
    call.play(12)
    begun = call.flags.index(FLAG_CONCEALED)
    power = [float(np.abs(frame.astype(float)).mean()) for frame in call.frames[begun:]]
    assert power[0] > 500 and all(a >= b for a, b in zip(power, power[1:], strict=False))
    assert power[-1] == 0 and call.flags[-1] == FLAG_SILENCE
    assert not call.buffer.anchored(SLOT)
    assert call.count(Counter.CONCEALED_MS) == 0  # perhaps the sender only paused


def test_after_an_outage_the_next_packet_begins_again(call):
    call.run(steady(10))
    call.play(40)
    call.packet(160 * 50, contiguous=False)
    call.packet(160 * 51)
    call.play(4)
    assert call.flags.count(0) >= 11
    assert call.count(Counter.CONCEALED_MS) >= 100


def test_late_audio_is_taken_when_nothing_newer_came_and_the_delay_grows():
    call = Call(audio=lambda i, n: speech(30)[i : i + n])
    late = np.array(steady(100))
    late[50:] += 60
    call.run(np.maximum.accumulate(late).tolist(), ticks=110)
    assert call.count(Counter.LATE) == 0
    assert 0 < call.flags.count(FLAG_CONCEALED) <= 8


def test_late_audio_is_dropped_when_newer_was_played(call):
    call.run([0, 20, 40, float("nan"), 80, 100, 120, 140])
    assert not call.packet(480, contiguous=False)
    assert call.count(Counter.LATE) == 1


@pytest.mark.parametrize("jitter_ms", [10, 30, 60])
def test_the_delay_follows_the_lateness_and_comes_back(jitter_ms):
    random = np.random.default_rng(3)
    late = random.exponential(jitter_ms, 3000)
    late[1500:] = 0
    call = Call(audio=lambda i, n: speech(61)[i : i + n])
    call.run(np.maximum.accumulate(np.array(steady(3000)) + late).tolist())
    assert sum(flag & FLAG_CONCEALED for flag in call.flags[200:]) <= 0.02 * 2800
    ages = np.diff([call.now - 20 * MS, call.arrivals[-1]])
    assert abs(ages[0]) <= 45 * MS
    assert call.count(Counter.ACCELERATED_MS) > 0
    assert call.count(Counter.TARGET_DELAY_US) <= 45_000


@pytest.mark.parametrize("ppm", [200, -200])
def test_skewed_clocks_neither_pile_up_nor_run_dry(ppm):
    call = Call(audio=lambda i, n: np.resize(speech(2), 16_000)[np.arange(i, i + n) % 16_000])
    call.run([k * 20 * (1 - ppm * 1e-6) for k in range(50 * 150)], ticks=50 * 150 - 5)
    ahead = int(call.buffer.end[SLOT] - call.buffer.position[SLOT])
    assert 0 <= ahead <= 50 * 8
    assert call.flags.count(FLAG_CONCEALED) == 0
    moved = call.count(Counter.ACCELERATED_MS) if ppm > 0 else call.count(Counter.EXPANDED_MS)
    assert 10 <= moved <= 80


def test_a_timestamp_jump_without_a_sequence_gap_is_a_pause():
    call = Call(min_ms=80)
    call.packet(0)
    call.packet(160 + 480)
    call.play(10)
    first = call.begun
    assert call.flags[first : first + 5] == [0, *[FLAG_SILENCE] * 3, 0]
    assert not call.heard[(first + 1) * 160 : (first + 4) * 160].any()
    assert call.count(Counter.CONCEALED_MS) == 0


def test_the_same_jump_with_a_sequence_gap_is_loss():
    call = Call(min_ms=80)
    call.packet(0)
    call.packet(160 + 320, contiguous=False)
    call.play(9)
    first = call.begun
    assert call.flags[first : first + 4] == [0, FLAG_CONCEALED, FLAG_CONCEALED, 0]
    assert call.count(Counter.CONCEALED_MS) == 40


def test_a_long_pause_is_no_concealment_and_the_next_talkspurt_begins_with_the_learned_delay(call):
    call.run(steady(50))
    call.play(50)
    call.packet(160 * 100)
    call.play(3)
    assert call.flags[-1] == 0 or call.flags[-2] == 0
    assert call.count(Counter.CONCEALED_MS) == call.count(Counter.RESYNCS) == 0


def test_a_burst_is_skipped_so_that_its_delay_does_not_stay(call):
    for n in range(60):  # 1.2 s at once
        call.packet(160 * n)
    call.play(5)
    assert call.count(Counter.RESYNCS) > 0
    assert call.buffer.end[SLOT] - call.buffer.position[SLOT] <= 400 * 8


@pytest.mark.parametrize("jump", [-800_000, 800_000, 0x7FFFFFFF])
def test_timestamps_that_start_over_are_followed(call, jump):
    call.run(steady(10))
    for n in range(5):
        call.packet(jump + 160 * n, contiguous=n > 0)
        call.play()
    assert call.count(Counter.RESYNCS) == 1
    assert call.flags[-1] == 0


def test_reset_forgets_stream_and_learned_delay(call):
    call.run((np.array(steady(300)) + np.random.default_rng(1).exponential(50, 300)).tolist())
    call.buffer.reset(SLOT)
    assert not call.buffer.anchored(SLOT)
    call.play()
    assert call.flags[-1] == FLAG_SILENCE and not call.frames[-1].any()
    call.frames.clear()
    call.flags.clear()
    call.run(steady(10))
    assert call.begun <= 2


def test_a_pressed_key_is_neither_loss_nor_audio():
    call = Call(min_ms=80)
    call.packet(0)
    call.buffer.mark(SLOT, START + 160 & 0xFFFFFFFF, 320, FLAG_DIGIT, 5)
    call.packet(480)
    call.play(8)
    first = call.flags.index(0)
    assert call.flags[first : first + 4] == [0, FLAG_DIGIT, FLAG_DIGIT, 0]
    assert not call.heard[(first + 1) * 160 : (first + 3) * 160].any()
    assert call.count(Counter.CONCEALED_MS) == 0


def test_comfort_noise_sounds_until_audio_comes(call):
    call.run(steady(10))
    call.buffer.noise(SLOT, START + 1600 & 0xFFFFFFFF, bytes([50]), call.now)
    call.play(20)
    noise = np.concatenate(call.frames[-10:]).astype(float)
    assert set(call.flags[-10:]) == {FLAG_SILENCE}
    assert abs(20 * np.log10(np.sqrt(np.mean(noise**2)) / 32768) + 50) < 1.5
    call.packet(160 * 30)
    call.packet(160 * 31)
    call.play(4)
    assert 0 in call.flags[-4:]
    assert call.count(Counter.CONCEALED_MS) == 0


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_the_hot_path_comes_to_the_same(seed):
    random = np.random.default_rng(seed)
    arrivals = np.maximum.accumulate(np.array(steady(1500)) + random.exponential(6 + 4 * seed, 1500))
    arrivals[random.random(1500) < 0.01 * seed] = float("nan")
    arrivals[:2] = [0, 20]
    calls = [Call(audio=lambda i, n: speech(31)[i : i + n], hot=hot) for hot in (False, True)]
    for each in calls:
        each.run(arrivals.tolist())
    plain, hot = calls
    assert (plain.heard == hot.heard).all()
    assert plain.flags == hot.flags and plain.arrivals == hot.arrivals
    assert (plain.counters == hot.counters).all()
    assert hot.appended > 1000 and hot.taken > 500


@pytest.mark.parametrize("seed", range(8))
def test_any_input_leaves_bounds_and_exact_figures_behind(seed):
    random, call = np.random.default_rng(seed), Call(audio=lambda i, n: np.full(n, 9, np.int16))
    index = 0
    for _ in range(400):
        kind = random.integers(8)
        index += int(random.choice([160, 160, 160, 0, 80, -160, 480, 3000, -3000, 10**6]))
        size = int(random.choice([160, 80, 33, 480, 0, 1, 5000]))
        if kind < 6:
            call.packet(index, size, contiguous=bool(random.integers(2)))
        elif kind == 6:
            call.buffer.mark(SLOT, index & 0xFFFFFFFF, int(random.integers(0, 70_000)), FLAG_DIGIT, call.now)
        else:
            call.buffer.noise(SLOT, index & 0xFFFFFFFF, random.bytes(int(random.integers(0, 40))), call.now)
        call.play(int(random.integers(3)))
        b = call.buffer
        assert b.solid[SLOT] <= b.end[SLOT]
        assert b.end[SLOT] - b.position[SLOT] <= b.ring - b.frame
    assert all(frame.shape == (160,) for frame in call.frames)


def test_calls_in_one_batch_do_not_touch_one_another():
    counters = np.zeros((40, len_of(Counter)), np.int64)
    together = JitterBuffer(40, 8000, 20, 400, counters)
    alone = [JitterBuffer(1, 8000, 20, 400, np.zeros((1, len_of(Counter)), np.int64)) for _ in range(40)]
    random, slots = np.random.default_rng(0), np.arange(40)
    for n in range(300):
        now = n * 20 * MS + 1000 * MS
        for slot in slots:
            if random.random() < 0.9 or n < 2:
                pcm = speech(7, seed=2)[160 * n + slot : 160 * (n + 1) + slot]
                for buffer, at in ((together, slot), (alone[slot], 0)):
                    buffer.insert(int(at), 160 * n, pcm, bool(slot % 2), now)
        played = together.play(slots, now + 5 * MS)
        one = [buffer.play(np.zeros(1, np.int64), now + 5 * MS) for buffer in alone]
        assert (played.pcm == np.concatenate([p.pcm for p in one])).all()
        assert played.flags.tolist() == [int(p.flags[0]) for p in one]
        if n % 5 == 0:
            together.adapt(slots, now + 5 * MS, np.full(len(slots), now + 5 * MS))
            for buffer in alone:
                buffer.adapt(np.zeros(1, np.int64), now + 5 * MS, np.array([now + 5 * MS]))


def test_audio_after_a_key_overrules_what_was_foreseen_of_it():
    buffer = JitterBuffer(1, 8000, 200, 200, np.zeros((1, len_of(Counter)), np.int64))
    ms, ones = 1_000_000, np.ones(160, np.int16)
    buffer.insert(0, 0, ones, True, 1000 * ms)
    buffer.mark(0, 160, 160 + 480, FLAG_DIGIT, 1020 * ms)  # the first report of a key, 20 ms long, and what is foreseen
    buffer.mark(0, 160, 320, FLAG_DIGIT, 1040 * ms)  # its end: 40 ms
    assert buffer.insert(0, 480, ones, True, 1060 * ms)
    frames = [buffer.play(np.array([0]), (1300 + 20 * n) * ms) for n in range(4)]
    assert [int(frame.flags[0]) for frame in frames] == [0, FLAG_DIGIT, FLAG_DIGIT, 0]
    assert frames[3].pcm.all()
