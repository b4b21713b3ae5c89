"""The detectors on recorded speech and on what only sounds like it."""

import sys
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from sipagent.core.errors import SetupError
from sipagent.speech.settings import SpeechSettings, VadKind
from sipagent.speech.vad import WebrtcDetector, make_vad
from tests.speech.prompts import noise, prompts, ringback, through_g722, through_ulaw, tones

KINDS: tuple[VadKind, ...] = get_args(VadKind)
NETWORKS: tuple[VadKind, ...] = ("silero", "gated")


RATES = (8000, 16_000)


def framed(pcm: NDArray[np.int16], rate: int = 8000) -> NDArray[np.int16]:
    """8 kHz audio as a call of this rate brings it: by G.711, or by G.722."""
    if rate == 8000:
        return through_ulaw(pcm[: len(pcm) // 160 * 160]).reshape(-1, 160)
    return through_g722(pcm[: len(pcm) // 160 * 160]).reshape(-1, 320)


def test_webrtc_needs_neither_onnxruntime_nor_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    detector = make_vad(SpeechSettings(vad="webrtc", model_dir=str(tmp_path)))(8000)
    speech = framed(prompts(1)[0].pcm)
    assert detector.push(speech).mean() > 0.5
    with pytest.raises(SetupError, match="type: sipagent models pull"):
        make_vad(SpeechSettings(vad="gated", model_dir=str(tmp_path)))


@pytest.mark.parametrize("rate", RATES)
def test_a_quiet_line_is_no_speech_to_webrtc(rate: int) -> None:
    detector = WebrtcDetector(rate)
    assert not detector.push(framed(noise(-62, 2.0), rate)).any()
    assert not detector.push(np.zeros((50, rate // 50), np.int16)).any()


@pytest.mark.models
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", RATES)
def test_speech_is_found_and_its_end_too(rate: int, kind: VadKind, local_models: None) -> None:
    make = make_vad(SpeechSettings(vad=kind))
    for prompt in prompts(12):
        level = np.abs(prompt.pcm.astype(int))
        heard = np.flatnonzero(level > level.max() // 8)
        pcm = prompt.pcm[heard[0] : heard[-1]]
        line = np.concatenate([noise(-66, 1.0), pcm, noise(-66, 1.2)])
        decisions = make(rate).push(framed(line, rate))
        assert decisions.dtype == np.bool_ and len(decisions) == len(line) // 160
        begin, end = 50, 50 + len(pcm) // 160
        assert not decisions[: begin - 1].any()
        assert np.flatnonzero(decisions)[0] - begin < 13, "260 ms until speech was noticed"
        assert decisions[begin:end].mean() > 0.75
        assert np.flatnonzero(decisions)[-1] - end < 15, "300 ms until its end was"


@pytest.mark.models
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    "line",
    [noise(-36), noise(-46), ringback(), tones(697, 1209), tones(1000), np.zeros(16_000, np.int16)],
    ids=["noise -36", "noise -46", "ringback", "key tone", "beep", "digital silence"],
)
def test_noise_and_tones_are_no_speech_to_the_network(
    rate: int, kind: VadKind, line: NDArray[np.int16], local_models: None
) -> None:
    assert make_vad(SpeechSettings(vad=kind))(rate).push(framed(line, rate)).mean() < 0.03


@pytest.mark.models
@pytest.mark.parametrize("kind", KINDS)
def test_frames_may_come_one_by_one_or_together_and_calls_are_apart(kind: VadKind, local_models: None) -> None:
    make = make_vad(SpeechSettings(vad=kind))
    speech = framed(np.concatenate([noise(-66, 0.5), prompts(3)[1].pcm, noise(-66, 3.0), prompts(3)[2].pcm]))
    together = make(8000).push(speech)
    one_call, another = make(8000), make(8000)
    apart = []
    for frame in speech:
        apart.append(one_call.push(frame[np.newaxis])[0])
        another.push(framed(noise(-30, 0.02)))  # a neighbour's noise must not leak over
    assert np.array_equal(together, apart)
    assert make(8000).push(speech[:0]).shape == (0,)


@pytest.mark.models
def test_the_gate_keeps_the_network_idle_on_a_quiet_line(local_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from sipagent.speech.vad import Silero

    runs = []
    real = Silero.run

    def counted(self: Silero, *arguments: Any) -> tuple[float, NDArray[np.float32]]:
        runs.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(Silero, "run", counted)
    detector = make_vad(SpeechSettings(vad="gated"))(8000)
    detector.push(framed(noise(-62, 5.0)))
    assert not runs
    detector.push(framed(prompts(1)[0].pcm))
    assert runs
