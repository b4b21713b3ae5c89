"""Invented audio carries the past on, meets the future, fades, and works at both rates and for many rows at once."""

import numpy as np
import pytest

from sipagent.media import concealment


def voice(hz, samples, rate, phase=0.0):
    time = np.arange(samples) / rate
    return sum(3000 / k * np.sin(2 * np.pi * hz * k * time + phase) for k in range(1, 6)).astype(np.float32)


def history(rate):
    return concealment.HISTORY_MS * rate // 1000


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("hz", [80, 110, 160, 230, 320])
def test_pitch_is_a_period_or_several(rate, hz):
    found = concealment.pitch(voice(hz, history(rate), rate)[None], rate)
    periods = found.lag[0] * hz / rate
    assert round(periods) >= 1 and abs(periods - round(periods)) < 0.1
    assert found.likeness[0] > 0.9


def test_noise_and_silence_have_no_likeness():
    signal = np.stack([np.random.default_rng(0).normal(0, 1000, 480), np.zeros(480)]).astype(np.float32)
    assert (concealment.pitch(signal, 8000).likeness < 0.6).all()


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_voice_is_carried_on(rate):
    whole = voice(125, history(rate) + rate // 50, rate)
    past, future = whole[None, : history(rate)], whole[history(rate) :]
    lag = concealment.pitch(past, rate).lag
    audio = concealment.extend(past, lag, np.zeros(1, np.int64), rate // 50, rate)
    assert np.corrcoef(audio[0], future)[0, 1] > 0.97
    assert abs(audio[0, 0] - past[0, -1]) < 1500  # no click


def test_carried_on_in_pieces_is_the_same():
    past, lag = voice(140, 480, 8000)[None], np.array([57])
    whole = concealment.extend(past, lag, np.zeros(1, np.int64), 480, 8000)
    pieces = [concealment.extend(past, lag, np.array([start]), 160, 8000) for start in (0, 160, 320)]
    assert np.allclose(whole, np.concatenate(pieces, axis=1), atol=0.5)


def test_rows_do_not_touch_one_another():
    past = np.stack([voice(hz, 480, 8000) for hz in (90, 150, 260)])
    lag, start = concealment.pitch(past, 8000).lag, np.array([0, 33, 200])
    together = concealment.extend(past, lag, start, 160, 8000)
    for row in range(3):
        one = slice(row, row + 1)
        assert np.allclose(together[one], concealment.extend(past[one], lag[one], start[one], 160, 8000), atol=0.5)


def test_the_gain_falls_to_nothing():
    gain = concealment.fade(np.array([0, 400]), 1200, 8000)
    assert gain[0, 0] == 1 and (np.diff(gain[0]) <= 0).all() and gain[0, -1] == 0
    assert gain[1, 0] == gain[0, 400]


@pytest.mark.parametrize("count", [80, 160, 320])
def test_a_hole_is_bridged_without_clicks(count):
    whole = voice(125, 960 + count, 8000)
    past, future = whole[None, :480], whole[None, 480 + count :]
    audio = concealment.bridge(past, future, np.zeros(1, np.int64), count, 8000)
    assert np.corrcoef(audio[0], whole[480 : 480 + count])[0, 1] > 0.97
    joined = np.concatenate([past[0], audio[0], future[0]])
    assert np.abs(np.diff(joined)).max() < 1.5 * np.abs(np.diff(whole)).max()


def test_loudest_input_stays_finite():
    past = np.full((1, 480), -32768, np.float32)
    audio = concealment.bridge(past, -past, np.zeros(1, np.int64), 160, 8000)
    assert np.isfinite(audio).all() and np.abs(audio).max() <= 40_000
