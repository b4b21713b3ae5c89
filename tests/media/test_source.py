import pytest

from sipagent.media.rtp import RtpPacket
from sipagent.media.source import MAX_CANDIDATES, SourceRule, Verdict

SDP = ("192.0.2.1", 4000)
NAT = ("198.51.100.7", 50123)
THIRD = ("203.0.113.9", 666)
S = 1_000_000_000


def rtp(sequence, payload_type=0, ssrc=1):
    return RtpPacket(payload_type=payload_type, sequence=sequence, timestamp=sequence * 160, ssrc=ssrc, payload=b"\xff")


@pytest.fixture
def rule():
    rule = SourceRule()
    rule.expect(SDP, frozenset({0, 101}))
    return rule


def learn(rule, sender=NAT):
    assert rule.judge(sender, rtp(1), -1, 0, 0).verdict is Verdict.WAIT
    assert rule.judge(sender, rtp(2), -1, 0, 5).verdict is Verdict.LEARNED


def test_before_anything_is_heard_the_sdp_counts(rule):
    assert rule.target == SDP and rule.learned is None


def test_two_consecutive_packets_make_the_source_and_none_is_lost(rule):
    assert rule.judge(NAT, rtp(65535), -1, 0, 10).packets == ()
    learned = rule.judge(NAT, rtp(0), -1, 0, 20)
    assert learned.verdict is Verdict.LEARNED
    assert [(packet.sequence, came) for packet, came in learned.packets] == [(65535, 10), (0, 20)]
    assert rule.target == NAT


@pytest.mark.parametrize("second", [rtp(3), rtp(1), rtp(2, ssrc=9), rtp(2, payload_type=8)])
def test_inconsistent_packets_make_no_source(rule, second):
    rule.judge(NAT, rtp(1), -1, 0, 0)
    rule.judge(NAT, second, -1, 0, 0)
    assert rule.learned is None


def test_two_senders_at_once_do_not_hinder_one_another(rule):
    rule.judge(THIRD, rtp(1), -1, 0, 0)
    rule.judge(NAT, rtp(7), -1, 0, 0)
    assert rule.judge(NAT, rtp(8), -1, 0, 0).verdict is Verdict.LEARNED


def test_payload_types_nobody_negotiated_are_not_the_peer(rule):
    for sequence in range(3):
        assert rule.judge(THIRD, rtp(sequence, payload_type=18), -1, 0, 0).verdict is Verdict.IGNORE


def test_a_third_party_is_foreign_while_the_source_speaks(rule):
    learn(rule)
    for sequence in range(3, 60):
        assert rule.judge(THIRD, rtp(sequence), 1, heard_ns=5 * S, now_ns=6 * S - 1).verdict is Verdict.FOREIGN
    assert rule.judge(NAT, rtp(3), 1, 5 * S, 6 * S).verdict is Verdict.ACCEPT


def test_the_same_stream_may_move_when_its_source_is_silent(rule):
    learn(rule)
    assert rule.judge(THIRD, rtp(3), 1, heard_ns=0, now_ns=S).verdict is Verdict.WAIT
    assert rule.judge(THIRD, rtp(4), 1, heard_ns=0, now_ns=S).verdict is Verdict.LEARNED
    assert rule.target == THIRD


def test_another_stream_may_not_take_over_a_silent_source(rule):
    learn(rule)
    for sequence in range(10):
        assert rule.judge(THIRD, rtp(sequence, ssrc=2), 1, heard_ns=0, now_ns=60 * S).verdict is Verdict.FOREIGN
    assert rule.target == NAT


def test_a_new_address_in_the_sdp_starts_over_and_the_same_one_does_not(rule):
    learn(rule)
    assert not rule.expect(SDP, frozenset({0}))
    assert rule.target == NAT
    assert rule.expect(THIRD, frozenset({0}))
    assert rule.target == THIRD and rule.learned is None


def test_a_flood_of_addresses_is_not_remembered(rule):
    for number in range(1000):
        rule.judge(("203.0.113.1", number), rtp(1), -1, 0, 0)
    assert len(rule._candidates) == MAX_CANDIDATES
    learn(rule)


def test_the_signalled_address_takes_over_whoever_was_faster_and_with_any_stream(rule):
    learn(rule, THIRD)
    now = 20_000_000
    assert not rule.bars(SDP, heard_ns=now, now_ns=now)
    assert rule.judge(SDP, rtp(700, ssrc=2), 1, heard_ns=now, now_ns=now).verdict is Verdict.WAIT
    assert rule.judge(THIRD, rtp(3), 1, now, now).verdict is Verdict.ACCEPT  # until there are two
    taken = rule.judge(SDP, rtp(701, ssrc=2), 1, heard_ns=now, now_ns=now)
    assert taken.verdict is Verdict.LEARNED and len(taken.packets) == 2
    assert rule.target == SDP
    assert rule.bars(THIRD, heard_ns=now, now_ns=now)
    assert rule.judge(THIRD, rtp(4), 2, heard_ns=now, now_ns=60 * S).verdict is Verdict.FOREIGN


@pytest.mark.parametrize("second", [rtp(3, ssrc=2), rtp(2, ssrc=3), rtp(2, ssrc=2, payload_type=18)])
def test_the_signalled_address_too_needs_two_packets_that_agree(rule, second):
    learn(rule)
    rule.judge(SDP, rtp(1, ssrc=2), 1, 0, 0)
    rule.judge(SDP, second, 1, 0, 0)
    assert rule.target == NAT


def test_packets_in_flight_from_the_old_address_do_not_lock_out_the_new_one(rule):
    learn(rule, SDP)
    rule.expect(NAT, frozenset({0}))
    for sequence in range(3, 6):
        rule.judge(SDP, rtp(sequence), 1, 0, 0)
    assert rule.target == SDP
    rule.judge(NAT, rtp(100, ssrc=2), 1, 0, 0)
    assert rule.judge(NAT, rtp(101, ssrc=2), 1, 0, 0).verdict is Verdict.LEARNED


def test_with_no_stream_the_host_of_the_source_may_have_another_port(rule):
    """After hold, or in a new engine, no SSRC is known by which a new binding of the NAT could show itself."""
    learn(rule)
    moved = (NAT[0], NAT[1] + 1)
    assert rule.judge(moved, rtp(1, ssrc=5), -1, heard_ns=0, now_ns=S - 1).verdict is Verdict.FOREIGN
    assert rule.judge(THIRD, rtp(1, ssrc=5), -1, heard_ns=0, now_ns=S).verdict is Verdict.FOREIGN
    assert rule.judge(moved, rtp(1, ssrc=5), -1, heard_ns=0, now_ns=S).verdict is Verdict.WAIT
    assert rule.judge(moved, rtp(2, ssrc=5), -1, heard_ns=0, now_ns=S).verdict is Verdict.LEARNED
    assert rule.target == moved


def test_a_flood_of_addresses_does_not_push_out_the_signalled_one(rule):
    rule.judge(SDP, rtp(1), -1, 0, 0)
    for number in range(10):
        rule.judge(("203.0.113.1", number), rtp(1), -1, 0, 0)
    assert len(rule._candidates) == MAX_CANDIDATES
    assert rule.judge(SDP, rtp(2), -1, 0, 0).verdict is Verdict.LEARNED
