"""What the ringing tones sound like, and the music: by their spectrum."""

import numpy as np
import pytest

from sipagent.media.melody import hold_music
from sipagent.media.ringback import RINGBACK
from sipagent.media.tones import ringback


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(("country", "hz"), [("DE", {425}), ("GB", {400, 450}), ("US", {440, 480})])
def test_the_frequencies_and_the_cadence_are_the_countrys(country, hz, rate):
    pcm = ringback(country, rate).astype(float)
    on, off = RINGBACK[country].cadence[:2]
    burst = pcm[: round(on * rate)]
    power = np.abs(np.fft.rfft(burst, rate)) ** 2
    loud = {int(place) for place in np.argsort(power)[-len(hz) :]}
    assert loud == hz
    silence = pcm[round(on * rate) : round((on + off) * rate)]
    assert not silence.any() and len(silence) == round(off * rate)


@pytest.mark.parametrize("country", RINGBACK)
def test_every_tone_is_as_loud_as_the_others_and_whole_frames_long(country):
    for rate in (8000, 16000):
        pcm = ringback(country, rate)
        assert len(pcm) == round(sum(RINGBACK[country].cadence) * rate)
        burst = pcm[: round(RINGBACK[country].cadence[0] * rate)].astype(float)
        dbm0 = 20 * np.log10(np.sqrt(2 * np.mean(burst**2)) / 22_303)
        assert dbm0 == pytest.approx(-15, abs=0.5)
        assert np.abs(np.diff(np.concatenate([pcm, pcm]).astype(int))).max() < 6000, "no click where it repeats"


def test_the_beat_of_a_modulated_tone_is_heard():
    burst = ringback("IN", 8000)[:3200].astype(float)
    envelope = np.abs(burst).reshape(-1, 20).max(axis=1)  # 2.5 ms
    power = np.abs(np.fft.rfft(envelope - envelope.mean()))
    assert np.argmax(power) * 400 / len(envelope) == pytest.approx(25, abs=2.5)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_hold_music_is_quiet_music_for_a_telephone_without_a_seam(rate):
    pcm = hold_music(rate)
    assert len(pcm) == 19.2 * rate and len(pcm) % (rate // 50) == 0
    assert 20 * np.log10(np.sqrt(np.mean(pcm.astype(float) ** 2)) / 32768) == pytest.approx(-24, abs=0.1)
    assert np.abs(pcm).max() < 16384
    power = np.abs(np.fft.rfft(pcm.astype(float))) ** 2
    hz = np.fft.rfftfreq(len(pcm), 1 / rate)
    assert power[(hz > 250) & (hz < 3400)].sum() > 0.97 * power.sum()
    steps = np.abs(np.diff(np.concatenate([pcm[-800:], pcm[:800]]).astype(int)))
    assert steps[799] < np.percentile(steps, 90)
