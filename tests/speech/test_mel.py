"""The features against scipy's transform and the scale's definition, computed another way."""

import numpy as np
import pytest
import scipy.signal

from sipagent.speech.mel import filters, hz_to_mel, log_mel, mel_to_hz


def reference(audio: np.ndarray, samples: int, n_mels: int) -> np.ndarray:
    padded = np.pad(audio.astype(np.float64), (0, samples - len(audio)))
    window = scipy.signal.get_window("hann", 400)
    _, _, spectrum = scipy.signal.stft(
        padded, window=window, nperseg=400, noverlap=240, boundary="even", padded=False, scaling="spectrum"
    )
    power = np.abs(spectrum * window.sum())[:, : samples // 160] ** 2
    log = np.log10(np.maximum(filters(n_mels).astype(np.float64) @ power, 1e-10))
    return np.asarray((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0)


@pytest.mark.parametrize("length", [100, 1600, 15_999, 40_000])
def test_features_agree_with_scipys_transform(length: int) -> None:
    random = np.random.default_rng(length)
    audio = (0.1 * random.normal(size=length) + 0.3 * np.sin(np.arange(length) * 0.2)).astype(np.float32)
    ours = log_mel(audio, 48_000)
    assert ours.shape == (80, 300) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference(audio, 48_000, 80), atol=2e-4)


def test_silence_has_the_floors_value() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(1600, np.float32), 16_000), -1.5, atol=1e-6)  # (-10 + 4) / 4


def test_the_scale_is_linear_then_logarithmic() -> None:
    hz = np.array([0.0, 200.0, 1000.0, 6400.0])
    np.testing.assert_allclose(hz_to_mel(hz), [0.0, 3.0, 15.0, 42.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, atol=1e-9)


def test_filters_are_triangles_of_unit_area() -> None:
    # The first triangle of 80 up to 8 kHz: apex at one 81st of 45.2 mel, foot at two of them. Bin 1 is at 40 Hz.
    spacing = (15 + 27 * np.log(8) / np.log(6.4)) / 81 * 200 / 3
    assert filters(80)[0, 1] == pytest.approx((2 * spacing - 40) / spacing / spacing, rel=1e-4)
    for n_mels in (80, 128):
        wide = filters(n_mels)[-20:]  # wide enough to be sampled well by bins 40 Hz apart
        np.testing.assert_allclose(wide.sum(axis=1) * 40.0, 1.0, atol=0.02)
