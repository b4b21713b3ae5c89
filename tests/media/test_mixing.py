"""Who hears whom, tick by tick: the test plays the engine, so every frame is known by its value."""

import os

import numpy as np
import pytest

from sipagent.media.jitter import Played
from sipagent.media.mixing import Mixing
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import Hear
from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Rings, create_memory

CAPACITY = 8


class Ticks:
    """Even and odd slots in turn; slot 3's fifth frame has the value 3005 and so on."""

    def __init__(self, memory, wide=()):
        self.rings = Rings(memory, CAPACITY)
        self.outgoing = Outgoing(self.rings)
        self.mixing = Mixing(self.rings, self.outgoing)
        self.is_wide = np.zeros(CAPACITY, np.bool_)
        self.is_wide[list(wide)] = True
        self.rings.rate[:] = np.where(self.is_wide, 16000, 8000)
        self.slots = np.arange(CAPACITY)
        self.frames = np.zeros(CAPACITY, np.int64)
        self.flags = np.zeros(CAPACITY, np.uint8)
        self.number = 0

    def hear(self, slot, *others, said=(), own=True, keys=False):
        self.mixing.hear(Hear(slot=slot, others=others, said=said, own=own, keys=keys), range(CAPACITY))

    def queue(self, slot, *values):
        ring = self.rings.tx_wide if self.is_wide[slot] else self.rings.tx_pcm
        for value in values:
            ring[slot, int(self.rings.tx_head[slot]) % ring.shape[1]] = value
            self.rings.tx_head[slot] += 1

    def tick(self):
        """What each listener of this tick's phase hears: the value of its first sample."""
        self.mixing.settle()
        phase = self.slots[self.slots % 2 == self.number % 2]
        self.number += 1
        nothing = np.zeros(CAPACITY, np.bool_)
        join = self.mixing.join(phase, self.is_wide, nothing, nothing, nothing)
        if join is None:
            return {}
        self.mixing.say(join.saying, self.is_wide)
        leave = phase[self.outgoing.sending[phase] & (self.rings.tx_head[phase] > self.rings.tx_tail[phase])]
        self.rings.tx_tail[leave] += 1
        for slots, size in ((join.narrow, 160), (join.wide, 320)):
            if len(slots):
                self.frames[slots] += 1
                pcm = np.repeat((1000 * slots + self.frames[slots]).astype(np.int16)[:, None], size, axis=1)
                self.mixing.played(slots, Played(pcm, self.flags[slots], np.zeros(len(slots), np.int64)))
        self.mixing.mix(join)
        heard = {}
        for listeners, size in ((join.narrow_listeners, 160), (join.wide_listeners, 320)):
            for slot in listeners.tolist():
                frame = self.mixing.heard_by(slot, size)
                assert frame is not None
                assert (frame == frame[-1]).all() or self.is_wide.any()
                heard[slot] = int(frame[-1])
        return heard

    def run(self, slot, frames):
        """The next frames that this slot hears."""
        found: list[int] = []
        while len(found) < frames:
            heard = self.tick()
            if slot in heard:
                found.append(heard[slot])
        return found


@pytest.fixture
def memory():
    memory = create_memory(CAPACITY)
    yield memory
    os.close(memory)


@pytest.fixture
def ticks(memory):
    return Ticks(memory)


def test_of_the_same_phase_the_frame_of_the_same_tick_is_heard(ticks):
    ticks.hear(0, 2)
    ticks.hear(2, 0)
    both = [ticks.tick() for _ in range(6)][::2]
    assert [heard[0] for heard in both] == [2001, 2002, 2003]
    assert [heard[2] for heard in both] == [1, 2, 3]


def test_of_the_other_phase_every_frame_is_heard_exactly_once(ticks):
    ticks.hear(0, 3)
    ticks.hear(3, 0)
    assert ticks.run(0, 1) == [0], "the other line has not played yet"
    assert ticks.run(0, 500) == list(range(3001, 3501))
    ticks.number += 1  # this line is not served for a tick of its own: the newest frame is what counts
    ticks.tick()
    assert ticks.run(0, 2)[-1] == ticks.frames[3] + 3000


def test_a_line_that_plays_nothing_is_silent_and_heard_again_afterwards(ticks):
    ticks.hear(0, 3)
    assert ticks.run(0, 3)[-1] == 3002
    odd, ticks.slots = ticks.slots, ticks.slots[ticks.slots % 2 == 0]
    assert ticks.run(0, 3) == [0, 0, 0]
    ticks.slots = odd
    assert ticks.run(0, 3) == [3003, 3004, 3005]


def test_three_hear_the_sum_of_the_other_two(ticks):
    for slot, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        ticks.hear(slot, *others)
    for _ in range(4):
        ticks.tick()
    assert ticks.tick() == {0: 1002 + 2003, 2: 3 + 1002}
    assert ticks.tick() == {1: 3 + 2003}


def test_a_sum_beyond_16_bits_is_clipped(ticks):
    ticks.hear(1, 6, 7, 5, 4, 3, 2)
    assert ticks.run(1, 3)[-1] == 27000 + 6 * 3
    ticks.frames += 10000 - ticks.frames
    assert ticks.run(1, 1) == [32767]


def test_joining_a_third_does_not_disturb_the_two(ticks):
    ticks.hear(0, 3)
    assert ticks.run(0, 3)[-1] == 3002
    ticks.tick()
    ticks.hear(0, 3, 5)
    assert ticks.run(0, 3) == [3003, 3004 + 5001, 3005 + 5002]
    ticks.hear(0, 3)
    assert ticks.run(0, 1) == [3006]


def test_whoever_is_gone_is_heard_no_more_nor_is_the_next_call_in_its_slot(ticks):
    ticks.hear(0, 2, 4)
    ticks.hear(2, 0, own=False)
    ticks.tick()
    ticks.mixing.forget(2)
    assert ticks.run(0, 1) == [4002] and not ticks.mixing.hears[2] and not ticks.mixing.joined[2]
    assert not ticks.outgoing.waiting[2]
    ticks.mixing.forget(4)
    ticks.mixing.settle()
    assert not ticks.mixing.joined.any()


def test_what_is_unknown_is_not_heard(ticks):
    ticks.mixing.hear(Hear(slot=1, others=(1, 2, 99, 3, 3)), {1, 3})
    ticks.tick(), ticks.tick()
    assert ticks.mixing.hears.nonzero()[0].tolist() == [1]
    assert ticks.run(1, 1) == [3002]


def test_keys_go_to_those_who_want_them_and_are_not_heard_as_tones(ticks):
    ticks.hear(0, 2, keys=True)
    ticks.hear(4, 2)
    assert list(ticks.mixing.keys_to(2)) == [0] and list(ticks.mixing.keys_to(0)) == []
    ticks.mixing.muting[0] = True
    ticks.flags[2] = FLAG_DIGIT
    assert ticks.tick() == {0: 0, 4: 2001}
    ticks.flags[2] = 0
    assert ticks.run(0, 1) == [2002]


@pytest.mark.parametrize(("flags", "voiced"), [(0, True), (FLAG_CONCEALED, True), (FLAG_SILENCE, False)])
def test_a_talkspurt_is_what_somebody_says(ticks, flags, voiced):
    ticks.hear(0, 2)
    ticks.flags[2] = flags
    ticks.tick()
    assert bool(ticks.mixing.voiced[0]) is voiced


def test_lines_of_both_rates_hear_each_other(memory):
    ticks = Ticks(memory, wide=(2,))
    ticks.hear(0, 2, 4)
    ticks.hear(2, 0)
    ticks.frames[:] = 3000
    for _ in range(20):
        heard = ticks.tick()
        ticks.tick()
        ticks.frames[:] = 3000
    assert heard[0] == pytest.approx(5001 + 7001, abs=8) and heard[2] == pytest.approx(3001, abs=4)


def test_what_is_said_to_a_caller_is_heard_too_each_frame_once(ticks):
    ticks.outgoing.sending[:] = True
    for listener in (4, 5):
        ticks.hear(listener, 2, said=(2,))
    ticks.flags[:] = FLAG_SILENCE
    ticks.run(5, 1)
    ticks.queue(2, 100, 200, 300)
    ticks.frames[:] = 0
    heard = [ticks.tick() for _ in range(8)]
    assert [each[4] for each in heard[::2]] == [2001 + 100, 2002 + 200, 2003 + 300, 2004]
    assert [each[5] for each in heard[1::2]] == [2001 + 100, 2002 + 200, 2003 + 300, 2004]
    assert [bool(ticks.mixing.voiced[slot]) for slot in (4, 5)] == [False, False]
    ticks.hear(4, said=(2,))
    ticks.queue(2, 7)
    assert ticks.run(4, 2) == [7, 0]


def test_what_waits_is_not_heard_before_it_leaves(ticks):
    ticks.outgoing.sending[:] = True
    ticks.hear(0, said=(2,))
    ticks.hear(2, 4, own=False)
    ticks.queue(2, 100, 200)
    assert ticks.run(0, 3) == [0, 0, 0]
    ticks.hear(2, 4)
    ticks.rings.tx_tail[2] = 0
    assert ticks.run(0, 3) == [100, 200, 0]
    ticks.queue(2, 300)
    ticks.outgoing.sending[2] = False
    assert ticks.run(0, 1) == [0]


def test_what_is_said_at_the_other_rate(memory):
    ticks = Ticks(memory, wide=(2,))
    ticks.outgoing.sending[:] = True
    ticks.hear(0, said=(2,))
    ticks.queue(2, *[5000] * 30)
    assert ticks.run(0, 20)[-1] == pytest.approx(5000, abs=3)
    assert ticks.run(0, 15)[-1] == 0
