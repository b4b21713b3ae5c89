"""RTCP of a line between two sessions, and against bytes of a peer who lies, repeats itself or is somebody else."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from sipagent.media.quality import LossCounts, LossPattern
from sipagent.media.reporting import (
    INTERVAL_NS,
    MAX_PER_SECOND,
    SILENCE_NS,
    LineQuality,
    RtcpSession,
    StreamStats,
    voip_metrics,
)
from sipagent.media.rtcp import (
    Delay,
    Delays,
    Description,
    ExtendedReport,
    Goodbye,
    Packet,
    ReferenceTime,
    Report,
    ReportBlock,
    SenderInfo,
    VoipMetrics,
    compound,
    middle,
    parse_compound,
)

MS = 1_000_000
OURS, THEIRS = 0x11223344, 0x55667788
EPOCH = 0xE1234567_00000000

QUIET = StreamStats(
    packets_sent=0,
    octets_sent=0,
    timestamp=0,
    peer_ssrc=None,
    highest=0,
    received=0,
    lost=0,
    jitter=0.0,
    losses=LossCounts(),
    concealed_ms=0,
    playout_delay_ms=40.0,
    playout_max_ms=200,
)
TALKING = replace(
    QUIET,
    packets_sent=250,
    octets_sent=40_000,
    timestamp=41_000,
    peer_ssrc=THEIRS,
    highest=0x1000A,
    received=245,
    lost=5,
    jitter=16.7,
    losses=LossCounts(received=243, lost=5, discarded=2, loss_runs=7, gap_packets=250, gap_losses=7),
    concealed_ms=140,
)


def ntp(now_ns: int, offset_s: int = 0) -> int:
    return EPOCH + (offset_s << 32) + (now_ns << 32) // 1_000_000_000


def session(ssrc: int = OURS, seed: int = 1) -> RtcpSession:
    return RtcpSession(ssrc, "agent@192.0.2.9", 0, random.Random(seed))


def from_peer(
    *blocks: ReportBlock, ssrc: int = THEIRS, sr_ntp: int | None = None, more: tuple[Packet, ...] = ()
) -> bytes:
    sender = None if sr_ntp is None else SenderInfo(sr_ntp, 16_000, 250, 40_000)
    return compound([Report(ssrc, sender, blocks), Description(((ssrc, "peer"),)), *more])


def of_us(lost: int = 3, last_sr: int = 0, delay: int = 0, fraction: int = 64) -> ReportBlock:
    return ReportBlock(OURS, fraction, lost, 0x1000A, 16, last_sr, delay)


# --- what we send ---------------------------------------------------------------------------------------------


def test_a_senders_report():
    report, description, extended = parse_compound(session().report(TALKING, 2_000 * MS, ntp(2_000 * MS)))
    assert isinstance(report, Report) and isinstance(extended, ExtendedReport)
    assert report.ssrc == extended.ssrc == OURS
    assert report.sender == SenderInfo(ntp(2_000 * MS), 41_000, 250, 40_000)
    [block] = report.blocks
    assert block == ReportBlock(THEIRS, fraction_lost=5, lost=5, highest=0x1000A, jitter=16)  # 256 * 5 / 250
    assert description == Description(((OURS, "agent@192.0.2.9"),))
    [metrics] = extended.blocks
    assert isinstance(metrics, VoipMetrics)
    assert (metrics.ssrc, metrics.loss_rate, metrics.discard_rate, metrics.gmin) == (THEIRS, 5, 2, 16)
    assert (metrics.burst_duration, metrics.gap_duration, metrics.gap_density) == (0, 5000, 7)
    assert (metrics.end_system_delay, metrics.buffer_nominal, metrics.buffer_maximum) == (60, 40, 200)
    assert (metrics.mos_lq, metrics.mos_cq, metrics.receiver_config) == (42, 41, 0xB0)
    assert 80 <= metrics.r_factor <= 84


def test_who_hears_nothing_and_sends_nothing_reports_that():
    report, _, extended = parse_compound(session().report(QUIET, 0, ntp(0)))
    assert report == Report(OURS, None, ())
    assert extended == ExtendedReport(OURS, (ReferenceTime(ntp(0)),))


def test_sr_goes_on_for_two_reports_after_the_last_packet():
    line, kinds = session(), []
    for number, sent in enumerate((0, 250, 250, 250, 251)):
        stats = replace(QUIET, packets_sent=sent)
        [report, *_] = parse_compound(line.report(stats, number * INTERVAL_NS, ntp(number * INTERVAL_NS)))
        assert isinstance(report, Report)
        kinds.append(report.sender is not None)
    assert kinds == [False, True, True, False, True]


def test_fraction_lost_is_of_the_interval():
    line = session()
    line.report(TALKING, 0, ntp(0))
    told = []
    for received, lost in ((344, 105), (443, 103), (443, 103), (444, 103)):
        [report, *_] = parse_compound(line.report(replace(TALKING, received=received, lost=lost), 1, ntp(1)))
        assert isinstance(report, Report)
        told.append([(block.fraction_lost, block.lost) for block in report.blocks])
    assert told == [[(int(256 * 100 / 199), 105)], [(0, 103)], [], [(0, 103)]]


def test_loss_of_an_earlier_stream_is_not_the_new_ones():
    line = session()
    line.report(TALKING, 0, ntp(0))
    after = replace(TALKING, peer_ssrc=77, received=345, lost=6)
    [report, *_] = parse_compound(line.report(after, 1, ntp(1)))
    assert isinstance(report, Report)
    assert [(block.ssrc, block.lost) for block in report.blocks] == [(77, 1)]


def test_figures_out_of_range_are_cut():
    wild = replace(
        TALKING,
        packets_sent=2**32 + 1,
        octets_sent=2**33,
        timestamp=2**32 + 5,
        highest=2**32 + 7,
        lost=2**30,
        jitter=1e12,
        playout_delay_ms=1e9,
        losses=LossCounts(lost=2**40, loss_runs=1, burst_packets=2**40, burst_losses=2**40, bursts=1),
    )
    [report, _, extended] = parse_compound(session().report(wild, 0, ntp(0)))
    assert isinstance(report, Report) and isinstance(extended, ExtendedReport)
    assert report.sender == SenderInfo(ntp(0), 5, 1, 0)
    assert report.blocks == (ReportBlock(THEIRS, 255, 0x7FFFFF, 7, 0xFFFFFFFF),)
    [report, *_] = parse_compound(session().report(replace(TALKING, lost=-(2**30)), 0, ntp(0)))
    assert isinstance(report, Report)
    assert [(block.fraction_lost, block.lost) for block in report.blocks] == [(0, -0x800000)]


def test_a_bye_is_the_last_report_and_says_so():
    packets = parse_compound(session().bye(TALKING, 0, ntp(0)))
    assert isinstance(packets[0], Report) and packets[0].sender is not None
    assert packets[-1] == Goodbye((OURS,))


def test_nobody_says_bye_who_never_said_anything():
    line = session()
    assert line.bye(QUIET, 0, ntp(0)) == b""
    line.report(QUIET, 0, ntp(0))
    assert parse_compound(line.bye(QUIET, 1, ntp(1)))[-1] == Goodbye((OURS,))


# --- when -----------------------------------------------------------------------------------------------------


def test_intervals_are_random_within_bounds_and_five_seconds_on_average():
    least, most = 0.5 / 1.21828, 1.5 / 1.21828
    firsts = [session(seed=seed).due_ns / INTERVAL_NS for seed in range(2_000)]
    assert least / 2 <= min(firsts) and max(firsts) <= most / 2
    assert sum(firsts) / len(firsts) == pytest.approx(0.5, rel=0.03)
    line, dues = session(), []
    for _ in range(2_000):
        line.report(QUIET, line.due_ns, 0)
        dues.append(line.due_ns)
    gaps = [(b - a) / INTERVAL_NS for a, b in pairwise(dues)]
    assert least <= min(gaps) and max(gaps) <= most
    assert sum(gaps) / len(gaps) == pytest.approx(1.0, rel=0.03)


def test_a_late_report_moves_the_schedule():
    line = session()
    line.report(QUIET, 100 * INTERVAL_NS, 0)
    assert line.due_ns > 100 * INTERVAL_NS


# --- what the peer says ---------------------------------------------------------------------------------------


def test_the_peers_report_of_us():
    line = session()
    assert line.peer is None
    others = ReportBlock(99, 255, 9, 9, 9)
    assert line.receive(from_peer(others, of_us()), 7 * MS)
    assert line.peer is not None
    assert (line.peer.at_ns, line.peer.fraction_lost, line.peer.lost, line.peer.jitter) == (7 * MS, 0.25, 3, 16)
    assert line.receive(from_peer(of_us(lost=-4)), 8 * MS)
    assert line.peer.lost == 0


def test_round_trip_between_two_senders():
    """Clocks of either side differ; 30 ms one way, 2 s at the peer."""
    us, them = session(), session(THEIRS, seed=2)
    as_seen_by_them = replace(TALKING, peer_ssrc=OURS)
    assert them.receive(us.report(TALKING, 1_000 * MS, ntp(1_000 * MS)), 1_030 * MS)
    assert us.receive(them.report(as_seen_by_them, 3_030 * MS, ntp(3_030 * MS, offset_s=-3600)), 3_060 * MS)
    assert us.round_trip_ms == pytest.approx(60, abs=0.1)
    assert us.peer_clock is not None and us.peer_clock.timestamp == 41_000
    assert them.receive(us.report(replace(TALKING, received=400), 5_000 * MS, ntp(5_000 * MS)), 5_025 * MS)
    assert them.round_trip_ms == pytest.approx(55, abs=0.1)
    assert us.peer_metrics is not None and us.peer_metrics.ssrc == OURS


def test_reports_go_on_when_ntp_starts_over():
    us, them, last = session(), session(THEIRS, seed=2), 0xFFFFFFFF << 32
    talking_to_us = replace(TALKING, peer_ssrc=OURS)
    for second in range(3):
        at_ns = (10 + second) * 1_000 * MS
        assert them.receive(us.report(replace(TALKING, packets_sent=second), at_ns, last + (second << 32)), at_ns)
        answer = them.report(
            replace(talking_to_us, received=second + 1, packets_sent=second + 1), at_ns, last + (second << 32)
        )
        assert us.receive(answer, at_ns + 30 * MS)
    assert us.round_trip_ms == pytest.approx(30, abs=0.1)
    assert us.peer_clock is not None and us.peer_clock.ntp == 1 << 32


def test_round_trip_without_sending():
    us, them = session(), session(THEIRS, seed=2)
    listening = replace(TALKING, packets_sent=0)
    assert them.receive(us.report(listening, 1_000 * MS, ntp(1_000 * MS)), 1_040 * MS)
    answer = them.report(replace(TALKING, peer_ssrc=OURS), 2_040 * MS, ntp(2_040 * MS))
    extended = parse_compound(answer)[2]
    assert isinstance(extended, ExtendedReport)
    assert extended.blocks[0] == Delays((Delay(OURS, middle(ntp(1_000 * MS)), 65536),))
    assert us.receive(answer, 2_070 * MS)
    assert us.round_trip_ms == pytest.approx(70, abs=0.1)
    again = parse_compound(them.report(replace(TALKING, peer_ssrc=OURS), 3_040 * MS, ntp(3_040 * MS)))[2]
    assert isinstance(again, ExtendedReport) and isinstance(again.blocks[0], VoipMetrics)  # answered once


@pytest.mark.parametrize(
    ("last_sr", "delay"),
    [
        (0, 0),
        (0xDEADBEEF, 65536),  # nothing we sent
        (middle(ntp(1_000 * MS)), 65536 * 10),  # held longer than it was away
        (middle(ntp(1_000 * MS)), 0xFFFFFFFF),
    ],
)
def test_bogus_echoes_give_no_round_trip(last_sr, delay):
    line = session()
    line.report(TALKING, 1_000 * MS, ntp(1_000 * MS))
    assert line.receive(from_peer(of_us(last_sr=last_sr, delay=delay)), 3_000 * MS)
    assert line.round_trip_ms is None
    assert line.peer is not None
    good = of_us(lost=4, last_sr=middle(ntp(1_000 * MS)), delay=65536)
    assert line.receive(from_peer(good), 3_000 * MS)
    assert line.round_trip_ms == pytest.approx(1_000, abs=0.1)


def test_an_echo_after_a_minute_gives_no_round_trip():
    line = session()
    line.report(TALKING, 1_000 * MS, ntp(1_000 * MS))
    assert line.receive(from_peer(of_us(last_sr=middle(ntp(1_000 * MS)))), 61_000 * MS)
    assert line.round_trip_ms is None


def test_a_report_replayed_changes_nothing():
    line = session()
    line.report(TALKING, 1_000 * MS, ntp(1_000 * MS))
    old = from_peer(of_us(lost=3, last_sr=middle(ntp(1_000 * MS)), delay=65536))
    assert line.receive(old, 2_050 * MS)
    line.report(replace(TALKING, packets_sent=500), 6_000 * MS, ntp(6_000 * MS))
    assert line.receive(old, 6_500 * MS)
    assert line.round_trip_ms == pytest.approx(50, abs=0.1)
    assert line.receive(from_peer(of_us(lost=8, last_sr=middle(ntp(6_000 * MS)), delay=65536)), 7_040 * MS)
    line.receive(old, 7_500 * MS)
    assert line.round_trip_ms == pytest.approx(40, abs=0.1)
    assert line.peer is not None and line.peer.lost == 8


def test_a_senders_report_replayed_is_refused():
    line = session()
    first = from_peer(of_us(lost=1), sr_ntp=EPOCH)
    assert line.receive(first, 1_000 * MS)
    assert line.receive(from_peer(of_us(lost=2), sr_ntp=EPOCH + (5 << 32)), 6_000 * MS)
    assert not line.receive(first, 7_000 * MS)
    assert line.peer is not None and line.peer.lost == 2 and line.foreign == 1
    # A peer whose clock was set back, or one locked out by a forgery, is believed again after a silence.
    assert line.receive(first, 7_000 * MS + SILENCE_NS)


def test_peers_without_a_clock_write_zero():
    line = session()
    for number in range(3):
        assert line.receive(from_peer(of_us(lost=number), sr_ntp=0), number * INTERVAL_NS)
    assert line.peer is not None and line.peer.lost == 2


def test_another_ssrc_is_foreign_until_the_peer_is_silent():
    line = session()
    assert line.receive(from_peer(of_us(lost=1)), 0)
    assert not line.receive(from_peer(of_us(lost=2), ssrc=99), 1_000 * MS)
    assert line.foreign == 1 and line.peer is not None and line.peer.lost == 1
    assert line.receive(from_peer(of_us(lost=3), ssrc=99), SILENCE_NS + 1)
    assert line.peer.lost == 3


def test_the_ssrc_of_the_stream_we_hear_is_believed_at_once():
    line = session()
    assert line.receive(from_peer(of_us(lost=1), ssrc=99), 0)
    line.report(TALKING, 1, ntp(1))
    assert line.receive(from_peer(of_us(lost=2)), 2)
    assert not line.receive(from_peer(of_us(lost=3), ssrc=99), 3)


def test_our_own_reports_reflected_are_foreign():
    line = session()
    assert not line.receive(line.report(TALKING, 0, ntp(0)), 1)
    assert line.peer is None and line.foreign == 1


def test_a_bye_is_remembered_until_the_peer_speaks_again():
    line = session()
    assert line.receive(from_peer(more=(Goodbye((THEIRS,)),)), 0)
    assert line.peer_left
    assert line.receive(from_peer(more=(Goodbye((99,)),)), 1)
    assert not line.peer_left


def test_a_flood_is_not_looked_at():
    line, data = session(), from_peer(of_us())
    assert sum(line.receive(data, 1_000 * MS + n) for n in range(10 * MAX_PER_SECOND)) == MAX_PER_SECOND
    assert line.foreign == 9 * MAX_PER_SECOND
    assert line.receive(data, 2_100 * MS)


def test_malformed_is_for_the_caller_to_count():
    with pytest.raises(ValueError, match="truncated"):
        session().receive(b"\x81\xc9\x00\x07", 0)


def test_junk_never_raises_anything_else_and_reports_stay_sound():
    rng = random.Random(6)
    us, them = session(), session(THEIRS, seed=2)
    now_ns = 0
    for number in range(3_000):
        now_ns += 100 * MS
        sent = us.report(replace(TALKING, packets_sent=number, received=number * 9), now_ns, ntp(now_ns))
        data = bytearray(them.report(replace(TALKING, peer_ssrc=OURS, packets_sent=number), now_ns, ntp(now_ns)))
        parse_compound(sent)
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        for session_, input_ in ((us, bytes(data)), (them, sent)):
            try:
                session_.receive(input_, now_ns + 20 * MS)
            except ValueError:
                continue
        if us.round_trip_ms is not None:
            assert 0 <= us.round_trip_ms <= 10_000
    assert them.peer is not None


# --- quality figures ------------------------------------------------------------------------------------------


def test_figures_of_an_interval_and_of_the_call():
    quality, pattern = LineQuality(0), LossPattern()
    pattern.received(250)
    first = replace(TALKING, jitter=16.0, losses=pattern.counts(), concealed_ms=0)
    clean = quality.interval(first, None, INTERVAL_NS)
    assert (clean.packets, clean.lost, clean.lost_percent, clean.discarded) == (250, 0, 0.0, 0)
    assert (clean.jitter_ms, clean.playout_delay_ms, clean.concealed_ms) == (2.0, 40.0, 0)
    assert (clean.mos_lq, clean.round_trip_ms, clean.peer_lost_percent, clean.peer_mos_lq) == (4.41, None, None, None)

    pattern.lost(10)
    pattern.received(235)
    pattern.discarded(5)
    second = replace(first, jitter=32.0, losses=pattern.counts(), concealed_ms=300, playout_delay_ms=80.0)
    bad = quality.interval(second, None, 2 * INTERVAL_NS)
    assert (bad.packets, bad.lost, bad.lost_percent, bad.discarded, bad.discarded_percent) == (240, 10, 4.0, 5, 2.0)
    assert (bad.jitter_ms, bad.concealed_ms, bad.playout_delay_ms) == (4.0, 300, 80.0)
    assert (bad.burst_ms, bad.burst_density_percent) == (150.0, 100.0)  # two bursts of 10 and 5 packets
    assert bad.mos_lq is not None and clean.mos_lq is not None and bad.mos_lq < clean.mos_lq
    assert bad.mos_cq is not None and bad.mos_cq < bad.mos_lq

    whole = quality.final(second, None)
    assert (whole.packets, whole.lost, whole.lost_percent, whole.concealed_ms) == (490, 10, 2.0, 300)
    assert whole.jitter_ms == pytest.approx((2 + 4 + 4) / 3, abs=0.01)
    assert whole.mos_lq is not None and bad.mos_lq < whole.mos_lq < clean.mos_lq


def test_figures_the_peer_reports():
    line, quality = session(), LineQuality(0)
    line.report(TALKING, 1_000 * MS, ntp(1_000 * MS))
    metrics = voip_metrics(TALKING, OURS, None, None)._replace(end_system_delay=100, mos_lq=39, mos_cq=127)
    echo = of_us(lost=50, last_sr=middle(ntp(1_000 * MS)), delay=65536)
    line.receive(from_peer(echo, more=(ExtendedReport(THEIRS, (metrics,)),)), 2_120 * MS)
    figures = quality.interval(TALKING, line, INTERVAL_NS)
    assert figures.round_trip_ms == pytest.approx(120, abs=0.1)
    assert (figures.peer_lost_percent, figures.peer_jitter_ms) == (25.0, 2.0)
    assert (figures.peer_mos_lq, figures.peer_mos_cq) == (3.9, None)  # 127 is no opinion
    assert figures.mos_cq is not None and figures.mos_lq is not None and figures.mos_cq < figures.mos_lq
    final = quality.final(TALKING, line)
    assert final.peer_lost_percent == 20.0 and final.round_trip_ms == pytest.approx(120, abs=0.1)

    later = quality.interval(TALKING, line, 2_120 * MS + SILENCE_NS + 1)
    assert (later.peer_lost_percent, later.peer_jitter_ms, later.peer_mos_lq) == (None, None, None)


def test_an_interval_in_which_nothing_was_due_has_no_score():
    figures = LineQuality(0).interval(QUIET, session(), INTERVAL_NS)
    assert (figures.packets, figures.lost_percent, figures.mos_lq, figures.mos_cq) == (0, 0.0, None, None)


def test_what_an_engine_before_concealed_is_not_of_the_first_interval():
    assert LineQuality(0, concealed_ms=120).interval(TALKING, None, INTERVAL_NS).concealed_ms == 20


def test_intervals_keep_their_schedule_and_skip_what_was_missed():
    quality = LineQuality(0)
    assert quality.due_ns == INTERVAL_NS
    quality.interval(QUIET, None, INTERVAL_NS + 30 * MS)
    assert quality.due_ns == 2 * INTERVAL_NS
    quality.interval(QUIET, None, 7 * INTERVAL_NS)
    assert quality.due_ns == 8 * INTERVAL_NS


def test_absurd_claims_of_the_peer_are_not_figures():
    line = session()
    line.receive(from_peer(ReportBlock(OURS, 255, 0x7FFFFF, 0, 0xFFFFFFFF)), 0)
    figures = LineQuality(0).final(TALKING, line)
    assert (figures.peer_lost_percent, figures.peer_jitter_ms) == (100.0, None)
