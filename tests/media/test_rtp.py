import random

import pytest

from sipagent.media.rtp import RtpPacket, sequence_diff, timestamp_diff

# A PCMU packet with marker, as a phone sends it: sequence 0x1234, timestamp 160, SSRC 0xDEADBEEF.
LITERAL = bytes.fromhex("8080 1234 000000a0 deadbeef ff7f")


def test_literal_packet():
    packet = RtpPacket.parse(LITERAL)
    assert packet == RtpPacket(
        payload_type=0, sequence=0x1234, timestamp=160, ssrc=0xDEADBEEF, payload=b"\xff\x7f", marker=True
    )
    assert bytes(packet) == LITERAL


def test_csrc_extension_and_padding_are_stripped():
    data = bytes.fromhex("b2 08 0001 00000002 00000003 11111111 22222222 bede0001 aabbccdd d5d5d5 000003")
    assert RtpPacket.parse(data).payload == b"\xd5\xd5\xd5"
    assert RtpPacket.parse(data).payload_type == 8


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", "RTP header truncated: need 12 bytes, got 0"),
        ("8000 0001 00000002 000000", "RTP header truncated: need 12 bytes, got 11"),
        ("4000 0001 00000002 00000003", "RTP version is 1, not 2"),
        ("8200 0001 00000002 00000003 11111111", "CSRC list truncated: need 20 bytes, got 16"),
        ("9000 0001 00000002 00000003 be", "header extension truncated: need 16 bytes, got 13"),
        ("9000 0001 00000002 00000003 bede0002 11111111", "header extension truncated: need 24 bytes, got 20"),
        ("a000 0001 00000002 00000003 ffff09", "padding of 9 bytes in 3 bytes of payload"),
        ("a000 0001 00000002 00000003 ff00", "padding of 0 bytes in 2 bytes of payload"),
    ],
)
def test_refusals_say_what_is_wrong(data, sentence):
    with pytest.raises(ValueError) as refused:
        RtpPacket.parse(bytes.fromhex(data))
    assert str(refused.value) == sentence


def test_differences_wrap():
    assert sequence_diff(2, 65534) == 4
    assert sequence_diff(65534, 2) == -4
    assert timestamp_diff(160, 0xFFFFFF60) == 320
    assert timestamp_diff(0xFFFFFF60, 160) == -320


def test_junk_is_refused_or_parsed_never_worse():
    rng = random.Random(3550)
    for _ in range(20_000):
        data = rng.randbytes(rng.randrange(40))
        try:
            packet = RtpPacket.parse(data)
        except ValueError:
            continue
        assert data.find(packet.payload) >= 0
