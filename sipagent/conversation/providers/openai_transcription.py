"""OpenAI-compatible recognition: POST {base_url}/audio/transcriptions with a whole utterance as WAV."""

import io
import wave
from typing import NamedTuple

import aiohttp

from sipagent.conversation.interfaces import Pcm
from sipagent.conversation.providers.settings import OpenAiTranscriptionSettings
from sipagent.conversation.providers.wire import TIMEOUT, failing, read_json, refusal
from sipagent.core.errors import ProviderError

MAX_TEXT = 4000  # characters of one utterance; nobody says more in half a minute


class Recognised(NamedTuple):
    text: str
    confidence: float


class OpenAiTranscriber:
    """What `local.LocalRecogniser` asks for words; `http` is the node's session."""

    def __init__(self, http: aiohttp.ClientSession, settings: OpenAiTranscriptionSettings) -> None:
        self._http = http
        self._url = settings.base_url.rstrip("/") + "/audio/transcriptions"
        self._headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
        self._settings = settings

    async def transcribe(self, pcm: Pcm, rate: int, *, prompt: str = "", droppable: bool = False) -> Recognised | None:
        """Raises ProviderError. Droppable requests are dropped: each one would be paid for."""
        if droppable:
            return None
        form = aiohttp.FormData()
        form.add_field("model", self._settings.model)
        form.add_field("response_format", "json")
        for name, value in (("language", self._settings.language), ("prompt", prompt or self._settings.prompt)):
            if value:
                form.add_field(name, value)
        form.add_field("file", _wav(pcm, rate), filename="utterance.wav", content_type="audio/wav")
        with failing():
            async with self._http.post(self._url, data=form, headers=self._headers, timeout=TIMEOUT) as response:
                if response.status != 200:
                    raise refusal(response.status)
                text = (await read_json(response))["text"]
            if not isinstance(text, str):
                raise ProviderError("sent a transcript that is no text", retryable=True)
        return Recognised(text.strip()[:MAX_TEXT], 1.0)


def _wav(pcm: Pcm, rate: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return out.getvalue()
