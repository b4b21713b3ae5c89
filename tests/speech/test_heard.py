"""What an agent takes for heard when it was cut short, against what somebody hears of the same audio."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sipagent.conversation.alignment import words_within
from sipagent.conversation.audio import SPEECH_POWER, powers
from sipagent.speech import models
from tests.speech.prompts import through_ulaw
from tests.wer import normalise

if TYPE_CHECKING:
    from sipagent.speech.whisper import Recogniser

pytestmark = pytest.mark.models

TEXTS = (
    "Let me put you through to a colleague who can help you with that.",
    "The parking garage is behind the building, and it is free for guests after six.",
    "The responsibility for international shipments lies with our headquarters in Amsterdam.",
    "Thank you very much for calling, and have a wonderful evening.",
)
CUTS = range(40, 240, 20)  # frames


def test_speech_is_cut_at_the_word_that_was_heard_last(local_models: None, recogniser: "Recogniser") -> None:
    from sipagent.speech.piper import Voice

    voice = Voice(models.locate("en_US-joe-medium", "tts"))
    off: list[int] = []
    for text in TEXTS:
        pcm = through_ulaw(voice.synthesize(text, 8000))
        frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160)
        sounds = (powers(frames) > SPEECH_POWER).tolist()
        for cut in (cut for cut in CUTS if cut < len(frames)):
            heard = recogniser.transcribe(pcm[: cut * 160], 8000).text
            off.append(_off(words_within(text, sounds, cut, whole=True), heard))
    print(
        f"\n{len(off)} cuts: words off by {np.mean(off):.2f} on average, at most {max(off)}; exact"
        f" {np.mean(np.equal(off, 0)):.0%}"
    )
    assert len(off) > 25
    assert np.mean(off) < 0.4
    assert max(off) <= 2


def _off(counted: str, heard: str) -> int:
    """By how many words; the word in which the speech is cut may be guessed from its beginning."""
    more = len(normalise(heard).split()) - len(normalise(counted).split())
    return max(more - 1, -more, 0)
