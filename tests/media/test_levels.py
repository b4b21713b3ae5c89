import os

import numpy as np
import pytest

from sipagent.media import levels
from sipagent.media.rings import FLAG_CONCEALED, Rings, create_memory


def tone(dbov, samples=160):
    """A sine of this level; 0 dBov is a full square wave, so the loudest sine is -3."""
    amplitude = 32768 * 10 ** ((dbov + 3.0103) / 20)
    return np.round(amplitude * np.sin(2 * np.pi * np.arange(samples) * 500 / 8000)).astype(np.int16)


@pytest.fixture
def rings():
    memory = create_memory(1)
    yield Rings(memory, 1)
    os.close(memory)


@pytest.mark.parametrize("dbov", [-3.1, -20, -45, -70])
@pytest.mark.parametrize("samples", [160, 320])
def test_level_of_a_sine(dbov, samples):
    assert levels.level(tone(dbov, samples)[None])[0] == pytest.approx(-dbov, abs=1)


def test_digital_silence_is_127():
    assert levels.level(np.zeros((1, 160), np.int16))[0] == 127


def test_pauses_do_not_lower_the_speech_level():
    assert levels.speech_level(np.array([25] * 10 + [90] * 40, np.uint8)) == pytest.approx(-25)
    assert levels.speech_level(np.array([90, 127], np.uint8)) is None
    assert levels.speech_level(np.zeros(0, np.uint8)) is None


def test_invented_audio_has_no_level(rings):
    rings.reset(0)
    rings.rx_head[0] = 300
    rings.rx_level[0] = 20
    assert levels.received(rings, 0) == pytest.approx(-20)
    rings.rx_flags[0] = FLAG_CONCEALED
    assert levels.received(rings, 0) is None


@pytest.mark.parametrize("rate", [8000, 16000])
def test_what_left_is_found_beside_what_came(rings, rate):
    rings.reset(0)
    rings.rate[0] = rate
    ring = rings.tx_pcm[0] if rate == 8000 else rings.tx_wide[0]
    ring[:] = tone(-30, ring.shape[1])
    rings.rx_head[0] = 120
    rings.rx_beside[0] = -1
    assert levels.sent(rings, 0) is None
    rings.rx_beside[0, :100] = np.arange(100) + 5000
    assert levels.sent(rings, 0) == pytest.approx(-30, abs=1)
