"""The recogniser by itself: the short window it stands on, what it must not hear, and long utterances."""

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.speech.prompts import noise, prompts, ringback, through_g722, through_ulaw, tones
from tests.wer import wer

if TYPE_CHECKING:
    from sipagent.speech.whisper import Recogniser

pytestmark = pytest.mark.models


def test_the_encoder_takes_a_short_window_and_is_quicker_for_it(recogniser: "Recogniser") -> None:
    """Undocumented in CTranslate2. If this fails after an upgrade, every answer takes five times as long."""
    import ctranslate2

    def encode(frames: int) -> tuple[list[int], float]:
        features = ctranslate2.StorageView.from_array(np.zeros((1, 80, frames), np.float32))
        took = []
        for _ in range(3):
            began = time.process_time()
            shape = list(recogniser._model.encode(features).shape)
            took.append(time.process_time() - began)
        return shape, min(took)

    short, short_s = encode(1000)
    full, full_s = encode(3000)
    assert (short, full) == ([1, 500, 384], [1, 1500, 384])
    assert short_s < full_s / 2


def test_a_short_window_costs_hardly_any_words(recogniser: "Recogniser", monkeypatch: pytest.MonkeyPatch) -> None:
    from sipagent.speech import whisper

    said = prompts(9)
    short = wer((prompt.text, recogniser.transcribe(through_ulaw(prompt.pcm), 8000).text) for prompt in said)
    monkeypatch.setattr(whisper, "WINDOW_S", 30.0)
    full = wer((prompt.text, recogniser.transcribe(through_ulaw(prompt.pcm), 8000).text) for prompt in said)
    assert short <= full + 0.03


def test_a_wideband_line_is_understood_as_well(recogniser: "Recogniser") -> None:
    said = prompts(9)
    narrow = wer((prompt.text, recogniser.transcribe(through_ulaw(prompt.pcm), 8000).text) for prompt in said)
    wide = wer((prompt.text, recogniser.transcribe(through_g722(prompt.pcm), 16_000).text) for prompt in said)
    assert wide <= narrow + 0.03


NOT_SPEECH = {
    "digital silence": np.zeros(16_000, np.int16),
    "quiet line": noise(-68),
    "noise at -46 dBFS": noise(-46),
    "noise at -30 dBFS": noise(-30),
    "ringback": ringback(),
    "loud ringback": (ringback(12.0) * 1.3).astype(np.int16),
    "busy": np.tile(np.concatenate([tones(480, 620, seconds=0.5), np.zeros(4000, np.int16)]), 4),
    "key tone 1": tones(697, 1209),
    "key tone 9": tones(852, 1477, seconds=0.6),
    "key tones": np.concatenate([np.pad(tones(770, hz, seconds=0.1), (0, 800)) for hz in (1209, 1336, 1477)]),
    "beep": tones(1000, seconds=0.5),
    "nothing": np.zeros(0, np.int16),
    "less than a frame": np.full(100, 3000, np.int16),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_no_speech_has_no_words(name: str, recogniser: "Recogniser") -> None:
    pcm = NOT_SPEECH[name]
    heard = recogniser.transcribe(through_ulaw(pcm) if len(pcm) else pcm, 8000)
    assert heard.text == ""
    assert heard.confidence == 0.0 and heard.no_speech > 0.52


def test_silence_never_reaches_the_decoder(recogniser: "Recogniser", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "_model", None)
    assert recogniser.transcribe(noise(-66), 8000).text == ""


def test_a_single_word_is_heard(recogniser: "Recogniser") -> None:
    pairs = [
        (prompt.text, recogniser.transcribe(through_ulaw(prompt.pcm), 8000).text)
        for prompt in prompts(25, words=(1, 1))
    ]
    assert all(heard for _, heard in pairs)  # none is taken for noise
    assert wer(pairs) < 0.6  # out of context single words are hard; several of these are names of letters


def joined(seconds: float) -> tuple[str, NDArray[np.int16]]:
    """Prompts one behind another with pauses, for so long."""
    texts: list[str] = []
    parts: list[NDArray[np.int16]] = []
    for prompt in prompts(40, words=(6, 20)):
        if sum(len(part) for part in parts) > seconds * 8000:
            break
        texts.append(prompt.text)
        parts += [prompt.pcm, noise(-68, 0.5)]
    return " ".join(texts), np.concatenate(parts)


def test_an_utterance_longer_than_the_model_is_divided_in_a_pause(recogniser: "Recogniser") -> None:
    from sipagent.speech.whisper import LONGEST_S, divide

    text, pcm = joined(45.0)
    pieces = divide(pcm, 8000)
    assert np.array_equal(np.concatenate(pieces), pcm)
    assert len(pieces) > 1 and all(len(piece) <= LONGEST_S * 8000 for piece in pieces)
    for piece in pieces[:-1]:
        assert np.abs(piece[-400:].astype(int)).max() < 200
    assert wer([(text, recogniser.transcribe(through_ulaw(pcm), 8000).text)]) < 0.1


def test_a_prompt_leans_the_choice_of_words(recogniser: "Recogniser") -> None:
    heard = recogniser.transcribe(through_ulaw(prompts(1)[0].pcm), 8000, prompt="agent, number, pound key, " * 60)
    assert heard.text  # a prompt longer than allowed is cut, not an error
