"""RFC 3389: level in -dBov, spectrum by reflection coefficients."""

import numpy as np
import pytest

from sipagent.media.comfort_noise import ComfortNoise, response


def heard(payload, frames=200, samples=160):
    noise = ComfortNoise(2)
    noise.describe(1, payload)
    return np.concatenate([noise.frame(np.array([1]), samples)[0] for _ in range(frames)]).astype(float)


def level(signal):
    return 20 * np.log10(np.sqrt(np.mean(signal**2)) / 32768)


@pytest.mark.parametrize("payload", [bytes([40]), bytes([40, 200, 100]), bytes([40, 127, 127, 127])])
def test_level_is_what_was_said(payload):
    assert abs(level(heard(payload)) + 40) < 1


def test_an_empty_payload_is_silence():
    assert not heard(b"").any() and not response(b"").any()


@pytest.mark.parametrize(("coefficient", "low"), [(20, True), (235, False)])
def test_the_first_coefficient_tilts_the_spectrum(coefficient, low):
    power = np.abs(np.fft.rfft(heard(bytes([30, coefficient])))) ** 2
    half = len(power) // 2
    assert (power[:half].sum() > 5 * power[half:].sum()) == low
    assert (power[half:].sum() > 5 * power[:half].sum()) != low


def test_any_payload_is_bounded():
    random = np.random.default_rng(0)
    for size in range(40):
        assert np.isfinite(response(random.bytes(size))).all()
    assert np.isfinite(response(bytes([0] + [255] * 30))).all()


def test_frames_go_on_and_slots_differ():
    noise = ComfortNoise(3)
    for slot in range(3):
        noise.describe(slot, bytes([20]))
    a, b = noise.frame(np.arange(3), 320), noise.frame(np.arange(3), 320)
    assert not (a[0] == a[1]).all() and not (a[0] == b[0]).all()
