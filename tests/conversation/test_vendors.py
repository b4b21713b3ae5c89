"""Each vendor's protocol against a server that speaks it, and every way that it fails."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest

from sipagent.conversation.interfaces import Pcm, Recogniser, Timed, Tts, Words
from sipagent.conversation.providers.deepgram import Deepgram
from sipagent.conversation.providers.elevenlabs import ElevenLabs
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.providers.openai_speech import OpenAiSpeech
from sipagent.conversation.providers.openai_transcription import OpenAiTranscriber
from sipagent.conversation.providers.settings import (
    DeepgramSettings,
    ElevenLabsSettings,
    OpenAiSpeechSettings,
    OpenAiTranscriptionSettings,
)
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import ProviderError
from tests.peers.vendors import MS_PER_CHARACTER, Trouble, Vendor

SENTENCE = "We are open from eight until six."
FRAME = np.ones(160, np.int16)


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def voice(kind: str, vendor: Vendor, http: aiohttp.ClientSession) -> Tts:
    if kind == "elevenlabs":
        return ElevenLabs(http, ElevenLabsSettings(base_url=vendor.url, voice="v 1", key="k3y"))
    return OpenAiSpeech(http, OpenAiSpeechSettings(base_url=vendor.url, model="m", voice="v 1", key="k3y"))


def recogniser(kind: str, vendor: Vendor, http: aiohttp.ClientSession) -> Recogniser:
    if kind == "deepgram":
        return Deepgram(http, DeepgramSettings(base_url=vendor.url, language="en", key="k3y"))
    settings = OpenAiTranscriptionSettings(base_url=vendor.url, model="m", language="en", key="k3y")
    return LocalRecogniser(OpenAiTranscriber(http, settings), ConversationSettings())


async def spoken(tts: Tts, rate: int = 8000) -> tuple[Pcm, list[tuple[int, int]], int]:
    pieces = [piece async for piece in tts.speak(SENTENCE, rate)]
    words = [word for piece in pieces if isinstance(piece, Timed) for word in piece.words]
    audio = np.concatenate([piece.pcm if isinstance(piece, Timed) else piece for piece in pieces])
    return audio, words, len(pieces)


# --- voices ---


@pytest.mark.parametrize("kind", ["openai_speech", "elevenlabs"])
@pytest.mark.parametrize("rate", [8000, 16_000])
async def test_a_voice_speaks_in_pieces_at_the_lines_rate(vendor, http, kind, rate):
    audio, _, pieces = await spoken(voice(kind, vendor, http), rate)
    assert pieces > 2
    assert len(audio) == pytest.approx(len(SENTENCE) * MS_PER_CHARACTER * rate / 1000, abs=rate // 100)
    spectrum = np.abs(np.fft.rfft(audio.astype(float)))
    assert np.argmax(spectrum) * rate / len(audio) == pytest.approx(440, abs=2)


async def test_a_voice_tells_where_its_words_end(vendor, http):
    audio, words, _ = await spoken(voice("elevenlabs", vendor, http))
    assert [SENTENCE[:end].split()[-1] for end, _ in words] == SENTENCE.split()
    assert words[0] == (2, 2 * MS_PER_CHARACTER * 8)
    assert words[-1] == (len(SENTENCE), len(audio))


async def test_keys_and_what_is_asked_for(vendor, http):
    await spoken(voice("openai_speech", vendor, http))
    await spoken(voice("elevenlabs", vendor, http))
    (_, speech), (_, stream) = vendor.requests
    assert speech["response_format"] == "pcm" and speech["input"] == SENTENCE and speech["voice"] == "v 1"
    assert stream["output_format"] == "pcm_8000" and stream["voice"] == "v 1"
    assert vendor.headers[0]["Authorization"] == "Bearer k3y"
    assert vendor.headers[1]["xi-api-key"] == "k3y"


@pytest.mark.parametrize("kind", ["openai_speech", "elevenlabs"])
@pytest.mark.parametrize("trouble", [Trouble.LIMIT, Trouble.ERROR, Trouble.KEY, Trouble.GARBAGE, Trouble.DISCONNECT])
async def test_a_voice_that_fails(vendor, http, kind, trouble):
    vendor.trouble = lambda _: trouble
    with pytest.raises(ProviderError) as caught:
        await spoken(voice(kind, vendor, http))
    assert caught.value.retryable is (trouble is not Trouble.KEY)
    assert "k3y" not in str(caught.value) and SENTENCE not in str(caught.value)


@pytest.mark.parametrize("kind", ["openai_speech", "elevenlabs"])
async def test_closing_the_iterator_ends_the_request(vendor, http, kind):
    vendor.trouble = lambda _: Trouble.HANG
    pieces = voice(kind, vendor, http).speak(SENTENCE * 3, 8000)
    await anext(pieces)
    await pieces.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(vendor.closed.wait(), 5)


# --- recognisers ---


class Caller:
    """Speaks into a recogniser at once, with pauses for what comes back."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.words: list[Words] = []
        self.recognition = recogniser.begin(self.words.append)

    async def says(self, frames: int) -> None:
        for _ in range(frames):
            self.recognition.push(FRAME)
            await asyncio.sleep(0.001)

    async def until(self, wanted: object) -> None:
        async with asyncio.timeout(20):
            while not any(wanted(words) for words in self.words):  # type: ignore[operator]
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", ["openai_transcription", "deepgram"])
async def test_words_of_an_utterance(vendor, http, kind):
    caller = Caller(recogniser(kind, vendor, http))
    await caller.says(60)
    said = await caller.recognition.finish()
    assert said.text == vendor.words
    assert vendor.heard == 60 * 160
    if kind == "deepgram":
        assert [w.text for w in caller.words if not w.paused][:2] == ["what", "what are"]


@pytest.mark.parametrize("kind", ["openai_transcription", "deepgram"])
async def test_the_words_of_a_pause_are_there_before_the_end(vendor, http, kind):
    caller = Caller(recogniser(kind, vendor, http))
    await caller.says(30)
    caller.recognition.pause()
    await caller.until(lambda words: words.paused and words.text == vendor.words)
    vendor.trouble = lambda _: Trouble.ERROR  # no more requests are needed
    assert (await caller.recognition.finish()).text == vendor.words
    assert vendor.asked("stt") == 1


async def test_the_recognisers_own_end_of_turn(vendor, http):
    vendor.end_of_turn_after = 40
    caller = Caller(recogniser("deepgram", vendor, http))
    await caller.says(50)
    await caller.until(lambda words: words.end_of_turn)
    assert (await caller.recognition.finish()).text == vendor.words


async def test_nothing_said_is_no_error(vendor, http):
    vendor.words = ""
    caller = Caller(recogniser("deepgram", vendor, http))
    await caller.says(15)
    assert (await caller.recognition.finish()).text == ""


@pytest.mark.parametrize("kind", ["openai_transcription", "deepgram"])
@pytest.mark.parametrize("trouble", [Trouble.LIMIT, Trouble.ERROR, Trouble.KEY, Trouble.GARBAGE, Trouble.DISCONNECT])
async def test_a_recogniser_that_fails(vendor, http, kind, trouble):
    vendor.trouble = lambda _: trouble
    caller = Caller(recogniser(kind, vendor, http))
    await caller.says(60)
    with pytest.raises(ProviderError) as caught:
        await caller.recognition.finish()
    assert caught.value.retryable is (trouble is not Trouble.KEY)


async def test_a_streaming_recogniser_knows_early_that_it_is_broken(vendor, http):
    vendor.trouble = lambda _: Trouble.ERROR
    caller = Caller(recogniser("deepgram", vendor, http))
    await caller.says(40)
    assert caller.recognition.broken is not None  # type: ignore[attr-defined]
    caller.recognition.cancel()
