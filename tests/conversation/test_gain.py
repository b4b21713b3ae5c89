"""The recogniser's gain: constant within an utterance, raised for quiet callers only."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sipagent.conversation.gain import MOST, Gain
from tests.speech.prompts import noise, prompts

Pcm = NDArray[np.int16]

SAID = np.concatenate([prompt.pcm for prompt in prompts(10)])
SAID = SAID[: len(SAID) // 160 * 160]


def at(dbfs: float, pcm: Pcm = SAID) -> Pcm:
    """Its active speech at this level."""
    power = np.mean(pcm.reshape(-1, 160).astype(np.float64) ** 2, axis=1)
    speech = np.mean(power[power > power.max() / 1000])
    factor = 32768 * 10 ** (dbfs / 20) / np.sqrt(speech)
    scaled: Pcm = (pcm * factor).clip(-32768, 32767).astype(np.int16)
    return scaled


def utterance(gain: Gain, pcm: Pcm, frame: int = 160) -> Pcm:
    gain.begin()
    return np.concatenate([gain.push(part) for part in pcm.reshape(-1, frame)])


def ratio(after: Pcm, before: Pcm) -> float:
    return float(np.linalg.norm(after.astype(np.float64)) / np.linalg.norm(before.astype(np.float64)))


def test_the_first_utterance_is_left_as_it_is():
    assert np.array_equal(utterance(Gain(), at(-40)), at(-40))


@pytest.mark.parametrize(("dbfs", "wanted_db"), [(-15, 0), (-30, 7), (-50, 15)])
def test_later_ones_are_raised_towards_the_target(dbfs: float, wanted_db: float):
    gain = Gain()
    utterance(gain, at(dbfs))
    raised_db = 20 * np.log10(ratio(utterance(gain, at(dbfs)), at(dbfs)))
    assert raised_db == pytest.approx(wanted_db, abs=2.5)


def test_the_gain_is_the_same_from_an_utterances_beginning_to_its_end():
    gain = Gain()
    utterance(gain, at(-40))
    changing = np.concatenate([at(-40), at(-34)])
    factors = utterance(gain, changing)[changing != 0] / changing[changing != 0]
    large = np.abs(changing[changing != 0]) > 200
    assert factors[large].std() < 0.01


def test_noise_is_never_raised_past_its_limit():
    gain = Gain()
    mixed = (at(-40).astype(np.int32) + noise(-56, len(SAID) / 8000)).clip(-32768, 32767).astype(np.int16)
    utterance(gain, mixed)
    hiss = noise(-56, 2.0, seed=3)
    assert ratio(utterance(gain, hiss), hiss) <= 10 ** (6.5 / 20)


def test_noise_alone_teaches_no_level():
    gain = Gain()
    hiss = noise(-50, 10.0)
    utterance(gain, hiss)
    assert np.array_equal(utterance(gain, hiss), hiss)


def test_a_shout_is_not_clipped_and_turns_the_rest_of_the_utterance_down():
    gain = Gain()
    utterance(gain, at(-40))
    raised = np.abs(utterance(gain, at(-20)).astype(np.int32))
    assert raised.max() <= 29000
    assert np.count_nonzero(raised >= 28990) < 20


def test_frames_of_a_wide_line():
    gain = Gain()
    wide = at(-45).repeat(2)
    utterance(gain, wide, 320)
    assert ratio(utterance(gain, wide, 320), wide) == pytest.approx(MOST, rel=0.05)
