"""The delay wanted follows how late packets come, slot by slot, and a skewed clock."""

import numpy as np
import pytest

from sipagent.media.lateness import Lateness

MS = 1_000_000
BLOCKS = 100


def learned(late_ms, rate=8000, skew=0.0, most=400):
    """A `Lateness` of two slots that has seen slot 1's packets of 20 ms come so late, and where they end."""
    lateness, frame, block = Lateness(2, rate, 20, most), rate // 50, rate // 100
    arrived, slots = np.zeros((2, BLOCKS), np.int64), np.array([1])
    for k, late in enumerate(late_ms):
        at = 10**9 + int((k * 20 * (1 - skew) + late) * MS)
        if k == 0:
            lateness.due_ns(1, 0, frame, at)
        arrived[1, [2 * k % BLOCKS, (2 * k + 1) % BLOCKS]] = at
        if k % 5 == 4:
            lateness.learn(slots, arrived, np.array([(k + 1) * frame]), 10**9 // rate, block)
    return lateness


@pytest.mark.parametrize("rate", [8000, 16000])
def test_even_packets_want_one_packet_of_delay(rate):
    assert learned([0.0] * 100, rate).target_ns[1] <= 25 * MS


@pytest.mark.parametrize("jitter", [10, 40, 100])
def test_the_target_covers_nearly_all_packets(jitter):
    late = np.random.default_rng(0).uniform(0, jitter, 1000)
    target = learned(late).target_ns[1] / MS - 20
    assert np.quantile(late, 0.97) - 6 <= target <= jitter + 5


def test_the_target_stays_within_its_bounds():
    late = np.random.default_rng(0).uniform(0, 2000, 500)
    assert learned(late, most=120).target_ns[1] <= 120 * MS


def test_old_lateness_is_forgotten():
    late = np.concatenate([np.random.default_rng(0).uniform(0, 200, 500), np.zeros(2500)])
    assert learned(late).target_ns[1] <= 30 * MS


@pytest.mark.parametrize("skew", [2e-4, -2e-4])
def test_a_skewed_clock_is_not_lateness(skew):
    assert learned([0.0] * 6000, skew=skew).target_ns[1] <= 25 * MS


def test_other_slots_and_reset():
    lateness = learned(np.random.default_rng(0).uniform(0, 100, 500))
    assert lateness.target_ns[0] == 30 * MS
    lateness.reset(1)
    assert lateness.target_ns[1] == 30 * MS
