"""Whether a pause sounds like the end of a turn."""

import numpy as np
import pytest

from sipagent.core.errors import SetupError
from sipagent.speech import models
from sipagent.speech.client import SpeechClient
from sipagent.speech.smart_turn import SmartTurn
from tests.speech.prompts import SOUNDS, noise, read_wav, through_ulaw

pytestmark = pytest.mark.models

FINISHED = (
    "vm-goodbye",
    "auth-thankyou",
    "please-try-again",
    "conf-muted",
    "all-circuits-busy-now",
    "cannot-complete-as-dialed",
)
UNFINISHED = ("vm-num-i-have", "queue-holdtime", "confbridge-there-are", "at-tone-time-exactly", "vm-and", "letters/b")


@pytest.fixture(scope="module")
def network(local_models: None) -> SmartTurn:
    return SmartTurn(models.locate("smart-turn-v3.2", "turn"))


def test_finished_phrases_sound_more_finished_than_unfinished_ones(network: SmartTurn) -> None:
    finished = [network.judge(through_ulaw(read_wav(SOUNDS / f"{name}.wav")), 8000) for name in FINISHED]
    cut = [network.judge(through_ulaw(read_wav(SOUNDS / f"{name}.wav")), 8000) for name in UNFINISHED]
    assert all(0.0 <= each <= 1.0 for each in finished + cut)
    assert np.mean(finished) > np.mean(cut) + 0.2


def test_any_audio_is_judged(network: SmartTurn) -> None:
    for pcm in (np.zeros(0, np.int16), np.zeros(160, np.int16), np.full(80_000, -32768, np.int16), noise(-20, 20)):
        assert 0.0 <= network.judge(pcm, 8000) <= 1.0
        assert 0.0 <= network.judge(pcm, 16_000) <= 1.0


@pytest.mark.asyncio(loop_scope="session")
async def test_the_worker_judges(client: SpeechClient) -> None:
    complete = await client.complete(noise(-20, 1), 8000)
    assert complete is not None and 0.0 <= complete <= 1.0


def test_it_is_named_as_what_it_is() -> None:
    with pytest.raises(SetupError, match="model for turn"):
        models.locate("smart-turn-v3.2", "stt")
