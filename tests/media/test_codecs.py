import numpy as np
import pytest

from sipagent.media import g711
from sipagent.media.codecs import BYTES_PER_FRAME, CODECS, G722, LONGEST_PAYLOAD, RTP_CLOCK
from sipagent.media.rtp import PCMA, PCMU

EACH = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)


def test_the_table():
    assert {number: (codec.name, codec.rate, codec.frame) for number, codec in CODECS.items()} == {
        PCMU: ("PCMU", 8000, 160),
        PCMA: ("PCMA", 8000, 160),
        G722: ("G722", 16_000, 320),
    }
    assert all(number == codec.payload_type for number, codec in CODECS.items())


@EACH
def test_a_frame_is_160_bytes_of_any_codec(codec):
    coded = codec.encoder().encode(np.zeros(codec.frame, np.int16))
    assert len(coded) == BYTES_PER_FRAME
    assert codec.decoder().decode(coded).shape == (codec.frame,)


@EACH
def test_timestamps_count_8000_a_second(codec):
    second = codec.decoder().decode(bytes(RTP_CLOCK))
    assert len(second) == codec.rate == RTP_CLOCK * codec.samples_per_tick


@EACH
def test_the_byte_of_silence_is_silent(codec):
    heard = codec.decoder().decode(bytes([codec.silence]) * LONGEST_PAYLOAD)
    assert np.abs(heard).max() <= 8


@EACH
@pytest.mark.parametrize("length", [0, 1, 3, 159, 161, LONGEST_PAYLOAD, 1500])
def test_payloads_of_any_length_and_content_decode(codec, length):
    decoder = codec.decoder()
    payload = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    for _ in range(20):
        pcm = decoder.decode(payload)
        assert pcm.dtype == np.int16 and len(pcm) == length * codec.samples_per_tick


@pytest.mark.parametrize("payload_type", [PCMU, PCMA])
def test_g711_is_the_table(payload_type):
    codec = CODECS[payload_type]
    codes = bytes(range(256))
    pcm = codec.decoder().decode(codes)
    assert np.array_equal(pcm, g711.decode(payload_type, np.frombuffer(codes, np.uint8)))
    strided = np.repeat(pcm, 2)[::2]
    assert codec.encoder().encode(strided) == g711.encode(payload_type, pcm).tobytes()
