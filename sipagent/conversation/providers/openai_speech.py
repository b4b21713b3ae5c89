"""OpenAI-compatible speech: POST {base_url}/audio/speech with `response_format: pcm`, 24 kHz mono, as it is made.

Servers that do not know `pcm` answer with a container instead; its head would be noise on the line and is refused.
"""

from collections.abc import AsyncGenerator

import aiohttp

from sipagent.conversation.interfaces import Pcm
from sipagent.conversation.providers.settings import OpenAiSpeechSettings
from sipagent.conversation.providers.wire import TIMEOUT, Samples, failing, refusal
from sipagent.core.errors import ProviderError
from sipagent.core.resample import StreamConverter

RATE = 24_000
_CONTAINERS = (b"RIFF", b"ID3", b"OggS", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"{", b"<")
_NO_AUDIO = ("application/json", "text/")


class OpenAiSpeech:
    """One voice at one server; shared by calls. `http` is the node's session."""

    def __init__(self, http: aiohttp.ClientSession, settings: OpenAiSpeechSettings) -> None:
        self._http = http
        self._url = settings.base_url.rstrip("/") + "/audio/speech"
        self._headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
        self._settings = settings

    async def speak(self, text: str, rate: int) -> AsyncGenerator[Pcm, None]:
        body = {
            "model": self._settings.model,
            "voice": self._settings.voice,
            "input": text,
            "response_format": "pcm",
            "stream_format": "audio",
        }
        if self._settings.instructions:
            body["instructions"] = self._settings.instructions
        samples, converter = Samples(RATE), StreamConverter(RATE, rate)
        head = True
        with failing():
            async with self._http.post(self._url, json=body, headers=self._headers, timeout=TIMEOUT) as response:
                if response.status != 200:
                    raise refusal(response.status)
                if response.content_type.startswith(_NO_AUDIO):
                    raise ProviderError(f"sent {response.content_type} for audio", retryable=True)
                async for data in response.content.iter_any():
                    if head and data.startswith(_CONTAINERS):
                        raise ProviderError("sent another format than pcm", retryable=False)
                    head = False
                    if len(pcm := converter.push(samples.push(data))):
                        yield pcm
                    if samples.too_long:
                        break
        if len(pcm := converter.flush()):
            yield pcm
