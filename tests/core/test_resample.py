import numpy as np
import pytest

from sipagent.core.resample import resample, to_float, to_int16


def tone(hz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def gain_db(audio: np.ndarray) -> float:
    middle = audio[len(audio) // 4 : -len(audio) // 4]
    return float(20 * np.log10(np.sqrt(np.mean(middle.astype(np.float64) ** 2)) * np.sqrt(2) + 1e-12))


@pytest.mark.parametrize("hz", [4000, 4050, 4400, 5000, 6500, 8000, 9500, 11_000])
def test_nothing_above_4_khz_folds_into_the_telephone_band(hz: int) -> None:
    assert gain_db(resample(tone(hz, 22_050), 22_050, 8000)) < -60


@pytest.mark.parametrize("hz", [100, 300, 1000, 2000, 3000, 3400, 3600])
def test_the_telephone_band_passes_unchanged(hz: int) -> None:
    assert abs(gain_db(resample(tone(hz, 22_050), 22_050, 8000))) < 0.1


@pytest.mark.parametrize("hz", [100, 1000, 3400])
def test_the_line_is_raised_to_16_khz_without_images(hz: int) -> None:
    raised = resample(tone(hz, 8000), 8000, 16_000)
    spectrum = np.abs(np.fft.rfft(raised * np.hanning(len(raised))))
    hertz = np.fft.rfftfreq(len(raised), 1 / 16_000)
    assert abs(gain_db(raised)) < 0.1
    assert 20 * np.log10(spectrum[hertz > 4200].max() / spectrum.max()) < -60


@pytest.mark.parametrize("source", [8000, 16_000, 22_050, 22_050 * 0.85, 22_050 * 1.2])
def test_length_follows_the_ratio(source: float) -> None:
    assert len(resample(np.zeros(22_050, np.float32), source, 8000)) == pytest.approx(22_050 * 8000 / source, rel=1e-3)


def test_integers_survive_the_way_to_floats_and_back() -> None:
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert np.abs(to_int16(to_float(samples)).astype(int) - samples).max() <= 1
    assert list(to_int16(np.array([-2.0, 2.0], np.float32))) == [-32768, 32767]
