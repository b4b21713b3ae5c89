"""A frame gives or takes one period, without a seam."""

import numpy as np
import pytest

from sipagent.media import timescale


def voice(hz, samples, rate):
    time = np.arange(samples) / rate
    return sum(3000 / k * np.sin(2 * np.pi * hz * k * time) for k in range(1, 6)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("hz", [80, 125, 250])
def test_the_lag_is_a_whole_number_of_periods(rate, hz):
    found = timescale.match(voice(hz, rate // 40 + 40, rate)[None], rate)
    periods = found.lag[0] * hz / rate
    assert abs(periods - round(periods)) < 0.05 * max(1, round(periods))
    assert found.likeness[0] > 0.95


def test_lags_stay_below_the_limit():
    window = np.stack([voice(125, 240, 8000)] * 2)
    found = timescale.match(window, 8000, np.array([120, 30]))
    assert found.lag[0] == 64 and found.lag[1] <= 30


@pytest.mark.parametrize("sign", [1, -1])
def test_leaving_out_or_repeating_a_period_keeps_the_voice(sign):
    whole, start, frame = voice(125, 640, 8000), 160, 160
    changed = timescale.crossfade(whole[None], np.array([sign * 64]), frame, start)
    assert np.allclose(changed[0], whole[start : start + frame], atol=1.0)
    follows = whole[start + frame + sign * 64]
    assert abs(changed[0, -1] - follows) < 1.5 * np.abs(np.diff(whole)).max()


def test_rows_shift_each_by_its_own():
    window = np.arange(400, dtype=np.float32)[None].repeat(2, axis=0)
    changed = timescale.crossfade(window, np.array([10, 0]), 160)
    assert changed[0, -1] == 169 and (changed[1] == np.arange(160)).all()
