"""How the voice comes out: level, edges, pitch."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from sipagent.speech import models

if TYPE_CHECKING:
    from sipagent.speech.piper import Voice

pytestmark = pytest.mark.models

CLAUSES = [
    "Good morning, how can I help you?",
    "We are open from nine to five.",
    "Certainly!",
    "Your appointment is on Tuesday at half past ten,",
]


@pytest.fixture(scope="module")
def voice(local_models: None) -> "Voice":
    from sipagent.speech.piper import Voice

    return Voice(models.locate("en_US-joe-medium", "tts"))


def frames_dbfs(pcm: NDArray[np.int16], size: int) -> NDArray[np.float64]:
    frames = pcm[: len(pcm) // size * size].reshape(-1, size).astype(np.float64)
    return np.asarray(10 * np.log10(np.maximum(np.mean(frames**2, axis=1), 1e-2)) - 90.3)


def fundamental_hz(pcm: NDArray[np.int16]) -> float:
    """Median, over voiced 50 ms frames, of the strongest autocorrelation between 60 and 200 Hz (a man's voice)."""
    found = []
    for start in range(0, len(pcm) - 400, 200):
        frame = pcm[start : start + 400].astype(np.float64)
        frame -= frame.mean()
        correlation = np.correlate(frame, frame, "full")[399:]
        lag = 40 + int(np.argmax(correlation[40:134]))
        if correlation[0] > 400 * 500**2 and correlation[lag] > 0.5 * correlation[0]:
            found.append(8000 / lag)
    return float(np.median(found))


@pytest.mark.parametrize("rate", [8000, 16_000])
@pytest.mark.parametrize("text", CLAUSES)
def test_level_and_edges(text: str, rate: int, voice: "Voice") -> None:
    pcm = voice.synthesize(text, rate)
    levels = frames_dbfs(pcm, rate // 50)
    active = 10 * np.log10(np.mean(10 ** (levels[levels > levels.max() - 25] / 10)))
    assert -23.5 < active < -18.5
    assert np.abs(pcm.astype(int)).max() <= 32768 * 10 ** (-3 / 20) + 1

    fine = frames_dbfs(pcm, rate // 200)
    sound = np.flatnonzero(fine > fine.max() - 40)
    assert sound[0] * 5 <= 60, "ms of silence before the first sound: each of them is latency"
    # The voice draws its breath anew each time: the end of a fading sound is not always at the same place.
    assert 40 <= (len(fine) - 1 - sound[-1]) * 5 <= 220
    assert np.abs(pcm[[0, -1]].astype(int)).max() < 50  # no click at either end


def test_pitch_changes_the_voice_and_not_the_pace(voice: "Voice") -> None:
    def spoken(pitch: float) -> tuple[float, float]:
        # Piper varies pace and tune at random.
        clips = [voice.synthesize(text, 8000, pitch=pitch) for text in CLAUSES * 3]
        return fundamental_hz(np.concatenate(clips)), sum(map(len, clips)) / 8000

    hertz, seconds = spoken(1.0)
    for pitch in (0.85, 1.25):
        other_hertz, other_seconds = spoken(pitch)
        assert other_hertz / hertz == pytest.approx(pitch, rel=0.1)
        assert other_seconds / seconds == pytest.approx(1.0, abs=0.1)


def test_a_wideband_line_gets_the_sibilants(voice: "Voice") -> None:
    pcm = voice.synthesize("Six sisters see the sea.", 16_000)
    power = np.abs(np.fft.rfft(pcm)) ** 2
    upper = power[len(power) // 2 : len(power) * 7 // 8].sum()  # 4 to 7 kHz
    assert 10 * np.log10(upper / power.sum()) > -30


def test_speed_changes_the_pace(voice: "Voice") -> None:
    text = CLAUSES[3]
    slow, fast = (np.mean([len(voice.synthesize(text, 8000, speed=speed)) for _ in range(3)]) for speed in (0.8, 1.4))
    assert slow / fast == pytest.approx(1.4 / 0.8, rel=0.15)


@pytest.mark.parametrize("text", ["", "  \n", "***", "\U0001f600"])
def test_nothing_to_say_is_no_audio(text: str, voice: "Voice") -> None:
    assert len(voice.synthesize(text, 8000)) == 0


def test_extreme_wishes_are_brought_inside(voice: "Voice") -> None:
    assert 0.1 < len(voice.synthesize("Hello.", 8000, speed=100.0, pitch=9.0)) / 8000 < 3
