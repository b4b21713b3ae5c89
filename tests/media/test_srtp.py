"""SRTP against libsrtp used directly, and two sessions against each other."""

import random
import struct

import pytest
from pylibsrtp import Policy, Session

from sipagent.media.protocol import Crypto
from sipagent.media.srtp import MAX_STREAMS, RTP_OVERHEAD, Progress, Refused, SrtpSession

OURS, THEIRS = bytes(range(30)), bytes(range(100, 130))
SUITES = ("AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32")
PAYLOAD = bytes(range(160))


def rtp(sequence: int, ssrc: int = 7) -> bytes:
    return struct.pack(">BBHII", 0x80, 0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc) + PAYLOAD


def report(ssrc: int = 7) -> bytes:
    return struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, 1, 2, 3, 4, 5)


def pair(suite: str = SUITES[0], ours: Progress | None = None) -> tuple[SrtpSession, SrtpSession]:
    """We and the peer."""
    return (
        SrtpSession(Crypto(suite=suite, local_key=OURS, remote_key=THEIRS), ours),
        SrtpSession(Crypto(suite=suite, local_key=THEIRS, remote_key=OURS)),
    )


def libsrtp_sender(key: bytes = THEIRS) -> Session:
    return Session(Policy(key, Policy.SSRC_ANY_OUTBOUND))


def reason(session: SrtpSession, packet: bytes) -> str:
    with pytest.raises(Refused) as caught:
        session.unprotect(packet)
    return caught.value.reason


@pytest.mark.parametrize(("suite", "tag"), [(SUITES[0], 10), (SUITES[1], 4)])
def test_both_directions_and_both_suites(suite: str, tag: int) -> None:
    we, peer = pair(suite)
    for sequence in range(65530, 65545):
        sealed = we.protect(rtp(sequence))
        assert len(sealed) == len(rtp(sequence)) + tag <= len(rtp(sequence)) + RTP_OVERHEAD
        assert PAYLOAD[:16] not in sealed
        assert peer.unprotect(sealed) == rtp(sequence)
        assert we.unprotect(peer.protect(rtp(sequence, 9))) == rtp(sequence, 9)
    assert peer.unprotect_rtcp(we.protect_rtcp(report())) == report()
    assert we.unprotect_rtcp(peer.protect_rtcp(report(9))) == report(9)


def test_the_test_vector_of_rfc_3711_b2_and_b3_holds_for_the_library() -> None:
    # B.3's master key and salt; the packet is that of libsrtp's own validation of them.
    key = bytes.fromhex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6")
    plain = bytes.fromhex("800f1234decafbadcafebabe" + "ab" * 16)
    sealed = bytes.fromhex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb")
    session = SrtpSession(Crypto(suite=SUITES[0], local_key=key, remote_key=key))
    assert session.protect(plain) == sealed
    assert session.unprotect(sealed) == plain


def test_a_packet_changed_on_the_way_is_refused_and_the_stream_goes_on() -> None:
    we, peer = pair()
    sealed = peer.protect(rtp(1))
    for place in range(len(sealed)):
        broken = bytearray(sealed)
        broken[place] ^= 1
        assert reason(we, bytes(broken)) in ("auth", "malformed")
    assert we.unprotect(sealed) == rtp(1)


def test_a_stranger_is_refused() -> None:
    we, _ = pair()
    assert reason(we, libsrtp_sender(bytes(30)).protect(rtp(1))) == "auth"
    assert reason(we, rtp(1)) == "auth"
    assert we.progress == Progress()


def test_replay_is_refused_and_reordering_is_not() -> None:
    we, peer = pair()
    sealed = [peer.protect(rtp(sequence)) for sequence in range(65500, 65500 + 200)]
    for place in (1, 0, 3, 2):
        we.unprotect(sealed[place])
    for place in range(4):
        assert reason(we, sealed[place]) == "replay"
    we.unprotect(sealed[199])
    assert reason(we, sealed[10]) == "replay"  # older than the window can tell
    again = peer.protect_rtcp(report())
    we.unprotect_rtcp(again)
    with pytest.raises(Refused, match="replay"):
        we.unprotect_rtcp(again)


@pytest.mark.parametrize("packet", [b"", b"\x80", b"\x80" * 12, b"\x9f" + b"\xff" * 40, bytes(1501), bytes(70_000)])
def test_what_is_no_packet(packet: bytes) -> None:
    we, _ = pair()
    assert reason(we, packet) in ("auth", "malformed")
    with pytest.raises(Refused):
        we.unprotect_rtcp(packet)


def test_what_cannot_be_sealed() -> None:
    we, _ = pair()
    for seal in (we.protect, we.protect_rtcp):
        for packet in (b"", b"\x80" * 4, bytes(1400)):
            with pytest.raises(Refused, match="malformed"):
                seal(packet)
    we.protect(rtp(5))
    with pytest.raises(Refused, match="replay"):
        we.protect(rtp(5))  # the same key stream twice


def test_another_ssrc_needs_nothing_and_many_are_too_many() -> None:
    we, _ = pair()
    sender = libsrtp_sender()
    for ssrc in range(MAX_STREAMS):
        assert we.unprotect(sender.protect(rtp(65535, ssrc))) == rtp(65535, ssrc)
    assert reason(we, sender.protect(rtp(1, MAX_STREAMS))) == "malformed"
    assert we.unprotect(sender.protect(rtp(65536, 3))) == rtp(65536, 3)
    assert (we.progress.received_ssrc, we.progress.received_index) == (3, 65536)


def test_several_wraps_without_a_break() -> None:
    we, peer = pair()
    for sequence in range(60_000, 60_000 + 3 * 65_536, 1_000):
        assert peer.unprotect(we.protect(rtp(sequence))) == rtp(sequence)
        assert we.unprotect(peer.protect(rtp(sequence, 9))) == rtp(sequence, 9)
    assert we.progress == Progress(7, sequence, 0, 9, sequence)


@pytest.mark.parametrize("start", [0, 40_000, 65_535])
@pytest.mark.parametrize("packets", [1, 20_000, 70_000, 500_000])
def test_a_session_built_anew_goes_on_where_the_old_one_was(start: int, packets: int) -> None:
    we, peer = pair()
    last = 0
    for sequence in range(start, start + packets, 10_000):
        last = sequence
        peer.unprotect(we.protect(rtp(sequence)))
        we.unprotect(peer.protect(rtp(sequence, 9)))
    for _ in range(3):
        peer.unprotect_rtcp(we.protect_rtcp(report()))
    heard = peer.protect(rtp(last + 1, 9))
    we.unprotect(heard)
    progress = we.progress
    assert progress == Progress(7, last, 3, 9, last + 1)
    anew, _ = pair(ours=progress)
    assert anew.progress == progress._replace(reports=11)
    with pytest.raises(Refused, match="replay"):
        anew.protect(rtp(last))
    assert reason(anew, heard) == "replay"
    # Some 30 s of both streams were missed.
    assert peer.unprotect(anew.protect(rtp(last + 1_500))) == rtp(last + 1_500)
    assert anew.unprotect(peer.protect(rtp(last + 1_500, 9))) == rtp(last + 1_500, 9)
    assert peer.unprotect_rtcp(anew.protect_rtcp(report())) == report()
    assert anew.progress.reports == 12


def test_a_progress_that_is_a_little_old() -> None:
    we, peer = pair()
    for sequence in range(65_000, 66_000, 500):
        peer.unprotect(we.protect(rtp(sequence)))
    progress = we.progress
    for sequence in range(66_000, 95_000, 1_000):
        peer.unprotect(we.protect(rtp(sequence)))
    for _ in range(8):
        peer.unprotect_rtcp(we.protect_rtcp(report()))
    anew, _ = pair(ours=progress)
    assert peer.unprotect(anew.protect(rtp(95_000))) == rtp(95_000)
    assert peer.unprotect_rtcp(anew.protect_rtcp(report())) == report()


def test_keys_are_checked_and_never_shown() -> None:
    crypto = Crypto(suite=SUITES[0], local_key=OURS, remote_key=THEIRS)
    assert repr(crypto) == "Crypto(AES_CM_128_HMAC_SHA1_80)" == str(crypto)
    with pytest.raises(ValueError, match="no SRTP suite"):
        SrtpSession(Crypto(suite="NULL", local_key=OURS, remote_key=THEIRS))
    with pytest.raises(ValueError, match="30 bytes") as caught:
        SrtpSession(Crypto(suite=SUITES[0], local_key=OURS[:-1], remote_key=THEIRS))
    assert "\\x" not in str(caught.value)


def test_rubbish_raises_nothing_else() -> None:
    chance = random.Random(3)
    we, peer = pair()
    good = [peer.protect(rtp(sequence)) for sequence in range(50)] + [peer.protect_rtcp(report()) for _ in range(50)]
    for _ in range(20_000):
        packet = bytearray(chance.choice(good))
        for _ in range(chance.randrange(4)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        cut = bytes(packet[: chance.randrange(len(packet) + 1)]) + chance.randbytes(chance.randrange(3))
        for take in (we.unprotect, we.unprotect_rtcp):
            try:
                take(cut)
            except Refused:
                pass
