"""Burst and gap figures against RFC 3611, ratings against ITU-T G.107 written out in full."""

import random
from dataclasses import fields
from math import exp, log2, log10, sqrt

import pytest

from sipagent.core.events import CallQuality
from sipagent.media.quality import (
    GMIN,
    ROBUSTNESS_BARE,
    LossCounts,
    LossPattern,
    QualityFigures,
    conversational_rating,
    delay_impairment,
    listening_rating,
    loss_impairment,
    mos,
)

# RFC 3611 section 4.7.2: 1 received, 0 lost, X discarded; gaps of 23 and 29 packets, a burst of 12 between them.
EXAMPLE = "11110111111111111111111" + "X111X1011110" + "111111111111111111" + "X1111111111"


def play(pattern: LossPattern, outcomes: str) -> LossPattern:
    """Tells it runs, as the engine does."""
    position = 0
    while position < len(outcomes):
        kind = outcomes[position]
        end = position
        while end < len(outcomes) and outcomes[end] == kind:
            end += 1
        {"1": pattern.received, "0": pattern.lost, "X": pattern.discarded}[kind](end - position)
        position = end
    return pattern


def test_the_rfcs_example():
    counts = play(LossPattern(), EXAMPLE).counts()
    assert (counts.expected, counts.lost, counts.discarded) == (64, 3, 3)
    assert (int(256 * counts.loss_rate), int(256 * counts.discard_rate)) == (12, 12)
    assert counts.burst_length * 10 == 120
    assert counts.burst_density == pytest.approx(4 / 12)
    assert counts.gap_length * 10 == 520
    assert counts.gap_density == pytest.approx(2 / 52)


@pytest.mark.parametrize(
    ("outcomes", "bursts", "burst_packets", "gap_packets"),
    [
        ("", 0, 0, 0),
        ("1" * 100, 0, 0, 100),
        ("0" + "1" * 100, 0, 0, 101),  # the first packet follows a gap
        ("00" + "1" * 100, 1, 2, 100),
        ("1" * 50 + "0" + "1" * 16 + "0" + "1" * 50, 0, 0, 118),  # two lone losses
        ("1" * 50 + "0" + "1" * 15 + "0" + "1" * 50, 1, 17, 100),
        ("1" * 20 + "0X0", 1, 3, 20),  # not over yet
        ("1" * 20 + "00" + "1" * 15, 1, 2, 35),
        ("00" + "1" * 16 + "00" + "1" * 16, 2, 4, 32),
    ],
)
def test_bursts_and_gaps(outcomes, bursts, burst_packets, gap_packets):
    counts = play(LossPattern(), outcomes).counts()
    assert (counts.bursts, counts.burst_packets, counts.gap_packets) == (bursts, burst_packets, gap_packets)
    assert counts.expected == len(outcomes)


def appendix_a2(outcomes: str) -> dict[str, float]:
    """The estimate of RFC 3611 A.2 in its own names, in packets; the state before the first packet is a gap."""
    c11 = c13 = c14 = c22 = c23 = c33 = packets = 0
    lost = 1
    for outcome in outcomes:
        if outcome == "1":
            packets += 1
            continue
        if packets >= GMIN:
            if lost == 1:
                c14 += 1
            else:
                c13 += 1
            lost, c11 = 1, c11 + packets
        else:
            lost += 1
            if packets == 0:
                c33 += 1
            else:
                c23, c22 = c23 + 1, c22 + packets - 1
        packets = 0
    p32 = c23 / (c13 + c23 + c33)
    p23 = 1 - c22 / (c22 + c23)
    total = c11 + c14 + c13 + c22 + c23 + c13 + c23 + c33
    gap = (c11 + c14 + c13) / c13
    return {"density": p23 / (p23 + p32), "burst": total / c13 - gap, "gap": gap, "gap_density": c14 / (c11 + c14)}


@pytest.mark.parametrize(("seed", "worsens", "recovers"), [(1, 0.01, 0.3), (2, 0.005, 0.1), (3, 0.03, 0.5)])
def test_agrees_with_the_appendix_on_long_bursty_streams(seed, worsens, recovers):
    rng = random.Random(seed)
    outcomes, bad = ["1"] * 20, False
    for _ in range(50_000):
        bad = rng.random() > recovers if bad else rng.random() < worsens
        outcomes.append(rng.choice("0X") if bad else "1")
    text = "".join(outcomes) + "1" * 20 + "0"  # the loss lets the appendix count what was before
    counts, estimate = play(LossPattern(), text).counts(), appendix_a2(text)
    assert counts.bursts > 100
    assert counts.burst_density == pytest.approx(estimate["density"], rel=0.02)
    assert counts.burst_length == pytest.approx(estimate["burst"], rel=0.02)
    assert counts.gap_length == pytest.approx(estimate["gap"], abs=1.5)  # it counts a packet a burst twice
    assert counts.gap_density == pytest.approx(estimate["gap_density"], abs=0.002)


def test_one_at_a_time_is_the_same_as_in_runs():
    rng = random.Random(7)
    outcomes = "".join(rng.choices("10X", (20, 2, 1), k=2_000))
    single = LossPattern()
    for outcome in outcomes:
        play(single, outcome)
    assert single.counts() == play(LossPattern(), outcomes).counts()


def test_a_packet_told_as_lost_that_comes_late_is_discarded():
    pattern = play(LossPattern(), "1" * 50 + "000")
    pattern.came_late(2)
    counts = pattern.counts()
    assert (counts.lost, counts.discarded, counts.expected, counts.burst_packets) == (1, 2, 53, 3)
    pattern.came_late(9)
    assert (pattern.counts().lost, pattern.counts().discarded) == (0, 3)


def test_a_packet_out_of_order_leaves_no_trace():
    pattern = play(LossPattern(), "1" * 50 + "0" + "1" * 3)
    pattern.came_in_time()
    assert pattern.counts() == play(LossPattern(), "1" * 54).counts()
    play(pattern, "1" * 5 + "00" + "1" * 5)
    assert pattern.counts() == play(LossPattern(), "1" * 59 + "00" + "1" * 5).counts()
    pattern.came_in_time(3)
    assert pattern.counts() == play(LossPattern(), "1" * 66).counts()


def test_a_packet_out_of_order_beside_a_burst_does_not_lengthen_it():
    for before in ("1" * 20 + "00" + "1" * 5, "1" * 20 + "00" + "1" * 30, ""):
        pattern = play(LossPattern(), before + "0" + "1" * 3)
        pattern.came_in_time()
        assert pattern.counts() == play(LossPattern(), before + "1" * 4).counts()
        play(pattern, "1" * 12 + "00")
        assert pattern.counts() == play(LossPattern(), before + "1" * 16 + "00").counts()


def test_of_a_burst_some_packets_come_out_of_order():
    pattern = play(LossPattern(), "1" * 50 + "000" + "1" * 3)
    pattern.came_in_time()
    counts = pattern.counts()
    assert (counts.lost, counts.bursts, counts.burst_packets, counts.burst_losses) == (2, 1, 3, 2)
    pattern.came_in_time()
    counts = pattern.counts()
    assert (counts.lost, counts.bursts, counts.gap_packets, counts.gap_losses, counts.loss_runs) == (1, 0, 56, 1, 1)


def test_a_very_late_straggler_was_a_lone_loss():
    pattern = play(LossPattern(), "1" * 50 + "0" + "1" * 50 + "X" + "1" * 50)
    pattern.came_in_time()
    counts = pattern.counts()
    assert (counts.received, counts.lost, counts.discarded, counts.expected) == (151, 0, 1, 152)
    assert counts.gap_packets == 152 and counts.burst_packets == 0


def test_every_packet_is_in_a_burst_or_in_a_gap_whatever_is_told():
    rng = random.Random(8)
    for _ in range(200):
        pattern = LossPattern()
        for _ in range(200):
            tell = rng.choice(
                (pattern.received, pattern.lost, pattern.discarded, pattern.came_late, pattern.came_in_time)
            )
            tell(rng.choice((0, 1, 1, 2, 20)))
            counts = pattern.counts()
            assert min(counts) >= 0
            assert counts.burst_packets + counts.gap_packets == counts.expected
            assert counts.burst_losses + counts.gap_losses == counts.missing
            assert counts.burst_losses <= counts.burst_packets and counts.gap_losses <= counts.gap_packets


def test_an_interval_is_a_difference():
    pattern = play(LossPattern(), "1" * 100 + "0")
    before = pattern.counts()
    counts = play(pattern, "10" + "1" * 100).counts().since(before)
    assert (counts.received, counts.lost, counts.bursts, counts.burst_packets) == (101, 1, 1, 3)
    assert counts.gap_losses == 0  # the lone loss turned out to begin the burst


def test_burst_ratio():
    assert LossCounts().burst_ratio == 1
    assert play(LossPattern(), "1" * 98 + "00").counts().burst_ratio == pytest.approx(2 * 0.98)
    assert play(LossPattern(), ("1" * 49 + "0") * 2).counts().burst_ratio == 1


def g107(delay_ms: float) -> float:
    """R of G.107 (06/2015) section 7: all parameters as in its table 2, but the delay (T = Ta = Tr/2)."""
    slr, rlr, stmr, lstr, ds, telr, wepl = 8, 2, 15, 18, 3, 65, 110
    olr = slr + rlr
    nos = 35 - slr - ds - 100 + 0.004 * (35 - olr - ds - 14) ** 2
    pre = 35 + 10 * log10(1 + 10 ** ((10 - lstr) / 10))
    nor = rlr - 121 + pre + 0.008 * (pre - 35) ** 2
    no = 10 * log10(sum(10 ** (level / 10) for level in (-70, nos, nor, -64 + rlr)))
    ro = 15 - 1.5 * (slr + no)
    xolr = olr + 0.2 * (64 + no - rlr)
    iolr = 20 * ((1 + (xolr / 8) ** 8) ** (1 / 8) - xolr / 8)
    stmro = -10 * log10(10 ** (-stmr / 10) + exp(-delay_ms / 4) * 10 ** (-telr / 10))
    ist = 12 * (1 + ((stmro - 13) / 6) ** 8) ** (1 / 8) - 28 * (1 + ((stmro + 1) / 19.4) ** 35) ** (1 / 35)
    ist += 29 - 13 * (1 + ((stmro - 3) / 33) ** 13) ** (1 / 13)
    g = 1.07 + 0.258 * 37 + 0.0602 * 37**2
    iq = 15 * log10(1 + 10 ** ((ro - 100) / 15 + 46 / 8.4 - g / 9) + 10 ** (46 / 30 - g / 40))
    terv = telr - 40 * log10((1 + delay_ms / 10) / (1 + delay_ms / 150)) + 6 * exp(-0.3 * delay_ms**2)
    difference = -1.5 * (no - rlr) - (80 + 2.5 * (terv - 14))
    idte = (difference / 2 + sqrt(difference**2 / 4 + 100) - 1) * (1 - exp(-delay_ms))
    difference = ro - 10.5 * (wepl + 7) * (2 * delay_ms + 1) ** -0.25
    idle = difference / 2 + sqrt(difference**2 / 4 + 169)
    idd = 0.0
    if delay_ms > 100:
        x = log2(delay_ms / 100)
        idd = 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)
    return float(ro - (iolr + ist + iq) - (idte + idle + idd))


@pytest.mark.parametrize("delay_ms", [0, 1, 20, 50, 99, 101, 150, 200, 250, 300, 400, 500, 2000])
def test_ratings_are_those_of_g107(delay_ms):
    assert conversational_rating(LossCounts(), delay_ms) == pytest.approx(g107(delay_ms), abs=0.001)


def test_known_points_of_the_e_model():
    assert round(conversational_rating(LossCounts(), 0), 1) == 93.2  # G.107: all defaults
    assert listening_rating(LossCounts()) == 93.2
    assert round(mos(93.2), 2) == 4.41
    for rating, score in ((90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58)):  # G.107 table B.1
        assert mos(rating) == pytest.approx(score, abs=0.0061)  # 4.024 is printed as 4.03
    assert (mos(-20), mos(0), mos(3), mos(100), mos(120)) == (1, 1, 1, 4.5, 4.5)


@pytest.mark.parametrize(
    ("percent", "robustness", "impairment"),
    # 95 * Ppl / (Ppl + Bpl) with Bpl of G.113 appendix I: 25.1 with concealment, 4.3 without
    [(1, 25.1, 3.64), (2, 25.1, 7.01), (5, 25.1, 15.78), (10, 25.1, 27.07), (1, 4.3, 17.92), (5, 4.3, 51.08)],
)
def test_random_loss(percent, robustness, impairment):
    counts = LossCounts(received=10_000 - 100 * percent, lost=100 * percent, loss_runs=100 * percent)
    assert loss_impairment(counts, robustness) == pytest.approx(impairment, abs=0.005)


def test_loss_in_runs_and_without_concealment_is_worse():
    scattered = LossCounts(received=970, lost=30, loss_runs=30)
    in_runs = scattered._replace(loss_runs=10)
    assert loss_impairment(in_runs) > loss_impairment(scattered)
    assert loss_impairment(scattered, ROBUSTNESS_BARE) > loss_impairment(scattered)
    late = LossCounts(received=970, discarded=30, loss_runs=30)
    assert loss_impairment(late) == loss_impairment(scattered)


def test_delay_harms_more_the_longer_it_is():
    delays = [delay_impairment(ms) for ms in (-5, 10, 50, 150, 250, 400, 1e6)]
    assert delays == sorted(delays)
    assert mos(conversational_rating(LossCounts(), 1e6)) >= 1


def test_the_event_has_the_figures_by_the_same_names():
    own = {"at", "call_id", "leg_id", "final"}
    assert {field.name for field in fields(CallQuality)} - own == set(QualityFigures.__struct_fields__)
