"""The wire formats against bytes written by hand from RFC 3550 section 6 and RFC 3611 section 4."""

import random

import pytest

from sipagent.media.rtcp import (
    MAX_PARTS,
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
    is_rtcp,
    middle,
    parse_compound,
)

NTP = 0xE1234567_80000000

SR = "81c8000c 11223344 e1234567 80000000 00003e80 000000fa 00009c40"
SR += "55667788 40fffffe 0001000a 00000010 45678000 00018000"
RR = "81c90007 11223344 55667788 00000003 0001000a 00000010 00000000 00000000"
EMPTY_RR = "80c90001 11223344"
SDES = "81ca0003 11223344 0103 614062 000000"  # a@b
BYE = "81cb0002 11223344 03627965"
METRICS = "07000008 55667788 0c0d5509 00780208 0032003c 7f7f7f10 5d7f2c2b f000002800c800c8"
XR = f"80cf0011 11223344 04000002 e123456780000000 05000003 55667788 45678000 00010000 {METRICS}"

SENDER_REPORT = Report(
    ssrc=0x11223344,
    sender=SenderInfo(ntp=NTP, timestamp=16000, packets=250, octets=40000),
    blocks=(
        ReportBlock(
            ssrc=0x55667788,
            fraction_lost=64,
            lost=-2,
            highest=0x1000A,
            jitter=16,
            last_sr=0x45678000,
            delay=0x18000,
        ),
    ),
)
RECEIVER_REPORT = Report(0x11223344, None, (ReportBlock(0x55667788, 0, 3, 0x1000A, 16),))
DESCRIPTION = Description(((0x11223344, "a@b"),))
GOODBYE = Goodbye((0x11223344,), "bye")
VOIP_METRICS = VoipMetrics(
    ssrc=0x55667788,
    loss_rate=12,
    discard_rate=13,
    burst_density=85,
    gap_density=9,
    burst_duration=120,
    gap_duration=520,
    round_trip=50,
    end_system_delay=60,
    signal_level=127,
    noise_level=127,
    echo_return_loss=127,
    gmin=16,
    r_factor=93,
    external_r_factor=127,
    mos_lq=44,
    mos_cq=43,
    receiver_config=0xF0,
    buffer_nominal=40,
    buffer_maximum=200,
    buffer_absolute_maximum=200,
)
EXTENDED = ExtendedReport(
    0x11223344, (ReferenceTime(NTP), Delays((Delay(0x55667788, 0x45678000, 0x10000),)), VOIP_METRICS)
)


def written(*packets: str) -> bytes:
    return bytes.fromhex("".join(packets))


@pytest.mark.parametrize(
    ("data", "packets"),
    [
        (written(EMPTY_RR), (Report(0x11223344, None, ()),)),
        (written(SR, SDES), (SENDER_REPORT, DESCRIPTION)),
        (written(RR, SDES, XR), (RECEIVER_REPORT, DESCRIPTION, EXTENDED)),
        (written(RR, SDES, BYE), (RECEIVER_REPORT, DESCRIPTION, GOODBYE)),
    ],
)
def test_literal_compounds(data, packets):
    assert parse_compound(data) == packets
    assert compound(packets) == data


@pytest.mark.parametrize(
    "packet",
    [
        Description(((1, "ab"), (2, ""), (3, "x" * 255))),  # a name that ends on a word needs a whole word of zeros
        Description(()),
        Goodbye((1, 2, 3)),
        Goodbye((), "x" * 255),
        Report(1, None, tuple(ReportBlock(n, n, n, n, n, n, n) for n in range(31))),
        ExtendedReport(1, ()),
        ExtendedReport(1, (Delays(()), Delays((Delay(1, 2, 3), Delay(4, 5, 6))))),
    ],
)
def test_what_is_built_is_parsed(packet: Packet):
    first = Report(1, None, (ReportBlock(2, 255, -(2**23), 0xFFFFFFFF, 0xFFFFFFFF),))
    assert parse_compound(compound([first, packet])) == (first, packet)


def test_unknown_packets_items_and_blocks_are_skipped():
    app = "80cc0002 11223344 6e616d65"
    feedback = "81cd0002 11223344 55667788"
    described = "81ca0004 11223344 0803707269 010161 06000000"  # PRIV, CNAME "a", TOOL of no bytes
    extended = "80cf0006 11223344 63000001 00000000 04000002 e123456780000000"
    assert parse_compound(written(RR, app, feedback, described, extended)) == (
        RECEIVER_REPORT,
        Description(((0x11223344, "a"),)),
        ExtendedReport(0x11223344, (ReferenceTime(NTP),)),
    )


def test_a_profiles_extension_of_a_report_is_skipped():
    assert parse_compound(written("80c90003 11223344 deadbeef deadbeef")) == (Report(0x11223344, None, ()),)


def test_padding_of_the_last_packet_is_stripped():
    padded = "a1cb0004 11223344 03627965 00000000 00000008"
    assert parse_compound(written(EMPTY_RR, padded))[1] == GOODBYE


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", "RTCP datagram truncated: need 8 bytes, got 0"),
        ("80c90000", "RTCP datagram truncated: need 8 bytes, got 4"),
        (EMPTY_RR + "80c9", "RTCP header truncated: need 4 bytes, got 2"),
        ("40c90001 11223344", "RTCP version is 1, not 2"),
        (EMPTY_RR + "00ca0000", "RTCP version is 0, not 2"),
        (SDES + RR, "RTCP datagram begins with type 202, not with SR or RR"),
        ("81cd0002 11223344 55667788", "RTCP datagram begins with type 205, not with SR or RR"),
        ("80c90002 11223344", "RTCP packet truncated: need 12 bytes, got 8"),
        ("81c90001 11223344", "RR truncated: need 28 bytes, got 4"),
        ("80c80001 11223344", "SR truncated: need 24 bytes, got 4"),
        ("a0c90002 11223344 00000004", "padding in an RTCP packet that is not the last of several"),
        (EMPTY_RR + "a0c90002 11223344 00000004" + SDES, "padding in an RTCP packet that is not the last of several"),
        (EMPTY_RR + "a0c90002 11223344 00000003", "padding of 3 bytes in 8 bytes of RTCP"),
        (EMPTY_RR + "a0c90002 11223344 0000000c", "padding of 12 bytes in 8 bytes of RTCP"),
        (EMPTY_RR + "a0c90001 00000000", "padding of 0 bytes in 4 bytes of RTCP"),
        (EMPTY_RR + "81ca0001 11223344", "SDES chunk truncated: need 8 bytes, got 4"),
        (EMPTY_RR + "81ca0002 11223344 01034061", "SDES item truncated: need 5 bytes, got 4"),
        (EMPTY_RR + "81ca0002 11223344 01024061", "SDES chunk without an end"),
        (EMPTY_RR + "81ca0002 11223344 01014001", "SDES item truncated: need 2 bytes, got 1"),
        (EMPTY_RR + "82cb0001 11223344", "BYE truncated: need 8 bytes, got 4"),
        (EMPTY_RR + "81cb0002 11223344 04627965", "BYE reason truncated: need 5 bytes, got 4"),
        (EMPTY_RR + "80cf0000", "XR truncated: need 4 bytes, got 0"),
        (EMPTY_RR + "80cf0002 11223344 07000008", "XR block truncated: need 32 bytes, got 0"),
        (EMPTY_RR + "80cf0003 11223344 07000001 00000000", "XR block of VoIP metrics has 1 words, not 8"),
        (EMPTY_RR + "80cf0003 11223344 04000001 00000000", "XR block of reference time has 1 words, not 2"),
        (EMPTY_RR + "80cf0003 11223344 05000001 00000000", "XR block of delays has 1 words, no multiple of 3"),
        ("80c9" + "00" * 1500, "RTCP datagram of 1502 bytes is longer than 1500"),
    ],
)
def test_refusals_say_what_is_wrong(data, sentence):
    with pytest.raises(ValueError) as refused:
        parse_compound(bytes.fromhex(data))
    assert str(refused.value) == sentence


def test_a_compound_is_not_built_without_a_report():
    with pytest.raises(ValueError, match="begins with SR or RR"):
        compound([DESCRIPTION])
    with pytest.raises(ValueError, match="at most 31"):
        compound([RECEIVER_REPORT, Goodbye(tuple(range(32)))])


def test_rtcp_is_told_from_rtp_on_one_port():
    assert is_rtcp(written(SR)) and is_rtcp(written(RR))
    assert is_rtcp(bytes.fromhex("80c00000")) and is_rtcp(bytes.fromhex("80df0000"))
    for rtp in ("80 00 0001", "80 80 0001", "80 08 0001", "80 e5 0001", "80 65 0001", "80 bf 0001", "80 e0 0001"):
        assert not is_rtcp(bytes.fromhex(rtp))
    assert not is_rtcp(b"") and not is_rtcp(b"\x80\xc8") and not is_rtcp(bytes.fromhex("00c80000"))


def test_middle_of_ntp():
    assert middle(NTP) == 0x45678000


def test_junk_is_refused_or_parsed_never_worse():
    rng = random.Random(3550)
    for _ in range(20_000):
        body = rng.randbytes(4 * rng.randrange(40) + rng.choice((0, 0, 0, 1, 3)))
        first = bytes((rng.choice((0x80, 0x81, 0xA1)), rng.choice((200, 201, 201)))) + rng.randbytes(2)
        data = rng.choice((body, first + body, written(EMPTY_RR) + body, written(RR, SDES)[:-1] + body))
        _refuses_or_parses(data)


def test_flipped_bits_and_cut_ends_are_refused_or_parsed_never_worse():
    rng = random.Random(3611)
    whole = written(SR, SDES, XR, BYE)
    for length in range(len(whole)):
        _refuses_or_parses(whole[:length])
    parsed = 0
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        parsed += _refuses_or_parses(bytes(data))
    assert parsed > 5_000  # most bits are in values, not in lengths


def test_many_small_parts_are_refused():
    packet, block = "80ca0000", "63000000"
    assert len(parse_compound(written(EMPTY_RR, packet * (MAX_PARTS - 1)))) == MAX_PARTS
    with pytest.raises(ValueError, match="more than 64 packets"):
        parse_compound(written(EMPTY_RR, packet * MAX_PARTS))
    with pytest.raises(ValueError, match="XR of 64 blocks"):
        parse_compound(written(EMPTY_RR, "80cf0041 11223344", block * 64))


def _refuses_or_parses(data: bytes) -> bool:
    try:
        packets = parse_compound(data)
    except ValueError:
        return False
    assert isinstance(packets[0], Report)
    return True
