"""G.722 as a caller hears it. Reference values come from FFmpeg's codec, another implementation of ITU-T G.722."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sipagent.core.resample import resample, to_float, to_int16
from sipagent.media.g722 import RATE, Decoder, Encoder
from tests.speech.prompts import prompts

FRAME = 320
DELAY = 22  # samples: the two quadrature mirror filters (ITU-T G.722, clauses 3.1 and 4.4)


def tone(hz: float, seconds: float = 1.0, amplitude: float = 8000.0) -> NDArray[np.int16]:
    return np.rint(amplitude * np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)).astype(np.int16)


def framed(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    return pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME)


def coded(pcm: NDArray[np.int16]) -> list[bytes]:
    encoder = Encoder()
    return [encoder.encode(frame) for frame in framed(pcm)]


def decoded(packets: list[bytes]) -> NDArray[np.int16]:
    decoder = Decoder()
    return np.concatenate([decoder.decode(packet) for packet in packets])


def snr_db(sent: NDArray[np.int16], heard: NDArray[np.int16], *, skip: int = RATE // 10) -> float:
    """Behind `skip` samples, in which the codec adapts."""
    length = min(len(sent), len(heard)) - DELAY
    signal = sent[skip:length].astype(np.float64)
    return float(10 * np.log10((signal**2).sum() / ((heard[skip + DELAY : length + DELAY] - signal) ** 2).sum()))


def wide_speech() -> NDArray[np.int16]:
    """Recorded speech with some of its band mirrored above 4 kHz, where the recordings have nothing."""
    low = np.concatenate([prompt.pcm for prompt in prompts(4)])
    wide = resample(to_float(low), 8000, RATE)
    images = np.repeat(to_float(low), 2) * np.tile(np.array([1, -1], np.float32), len(low))
    return to_int16(wide[: len(images)] + np.float32(0.05) * images)


# Below 4 kHz the lower band's six bits work, above it the upper band's two.
@pytest.mark.parametrize(
    ("hz", "least_db"),
    [(50, 50), (300, 50), (1000, 40), (2000, 40), (3400, 30), (4500, 20), (5000, 18), (6000, 18), (7000, 18)],
)
def test_tones_up_to_7_khz_pass(hz: int, least_db: float) -> None:
    assert snr_db(tone(hz), decoded(coded(tone(hz)))) > least_db


def test_speech_passes_with_its_upper_band() -> None:
    speech = wide_speech()
    heard = decoded(coded(speech))
    assert snr_db(speech, heard) > 30
    spectra = [np.abs(np.fft.rfft(pcm[: len(heard)])) for pcm in (speech, heard)]
    upper = slice(len(spectra[0]) * 5 // 8, len(spectra[0]) * 7 // 8)  # 5 to 7 kHz
    lost_db = 10 * np.log10((spectra[0][upper] ** 2).sum() / (spectra[1][upper] ** 2).sum())
    assert abs(lost_db) < 2


def test_values_are_those_of_ffmpeg() -> None:
    encoder, decoder = Encoder(), Decoder()
    assert encoder.encode(tone(1000, 0.02))[:24].hex() == "fa9425882191a0a060afc8c6d1def0ebee7bd4d0d3beb0ec"
    payload = bytes(range(0, 256, 16))
    # fmt: off
    assert decoder.decode(payload).tolist() == [
        0, 0, -1, -1, 0, -1, -1, 0, -1, -3, 1, 1, -4, -29, -2, 35,
        61, 13, 24, 3, -19, -88, -3, 128, 198, 81, 58, 43, -74, -232, -33, 438,
    ]
    # fmt: on


def test_how_frames_are_cut_does_not_matter() -> None:
    speech = framed(wide_speech())[:50].ravel()
    whole = Encoder().encode(speech)
    assert whole == b"".join(coded(speech))
    decoder = Decoder()
    in_pieces = [decoder.decode(whole[i : i + 80]) for i in range(0, len(whole), 80)]
    assert np.array_equal(np.concatenate(in_pieces), Decoder().decode(whole))


def test_calls_do_not_disturb_each_other() -> None:
    alone = coded(tone(1000))
    one, another = Encoder(), Encoder()
    beside = []
    for frame, noise in zip(framed(tone(1000)), framed(tone(3333, amplitude=30_000)), strict=True):
        beside.append(one.encode(frame))
        another.encode(noise)
    assert beside == alone


@pytest.mark.parametrize("lost", [1, 3, 10])
def test_a_second_after_lost_packets_nothing_is_left_of_them(lost: int) -> None:
    """The decoder keeps its state over the gap; both sides forget by the same rule what they had adapted to."""
    packets = coded(wide_speech())
    whole = decoded(packets)
    gap = len(packets) // 2
    decoder = Decoder()
    before = np.concatenate([decoder.decode(packet) for packet in packets[:gap]])
    after = np.concatenate([decoder.decode(packet) for packet in packets[gap + lost :]])
    assert np.array_equal(before, whole[: gap * FRAME])
    assert np.array_equal(after[RATE:], whole[(gap + lost) * FRAME + RATE :])


def test_a_second_after_noise_nothing_is_left_of_it() -> None:
    packets = coded(wide_speech())
    decoder = Decoder()
    decoder.decode(np.random.default_rng(1).integers(0, 256, 80_000, np.uint8).tobytes())
    after = np.concatenate([decoder.decode(packet) for packet in packets])
    assert np.array_equal(after[RATE:], decoded(packets)[RATE:])


def test_full_scale_is_taken() -> None:
    loud = np.where(np.arange(RATE) // 20 % 2, 32767, -32768).astype(np.int16)
    heard = decoded(coded(loud))
    assert np.abs(heard.astype(int)).max() > 20_000


@pytest.mark.parametrize("shape", [(1,), (319,), (1, 320)])
def test_only_pairs_of_samples_are_coded(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pairs of samples"):
        Encoder().encode(np.zeros(shape, np.int16))


def test_samples_may_lie_apart_or_in_another_byte_order() -> None:
    pcm = tone(1000, 0.02)
    expected = Encoder().encode(pcm)
    assert Encoder().encode(np.repeat(pcm, 2)[::2]) == expected
    assert Encoder().encode(pcm.astype(">i2")) == expected
