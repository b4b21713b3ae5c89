"""ElevenLabs' streaming speech: one websocket ({base_url}/text-to-speech/VOICE/stream-input) for each clause.

    we send   {"text": " ", "voice_settings": …} · {"text": the clause and a space} · {"text": ""}, the end
    it sends  {"audio": base64, "alignment": {"chars", "charStartTimesMs", "charDurationsMs"}} · {"isFinal": true}

The times of each message count from the start of its own audio.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from sipagent.conversation.interfaces import Speech, Timed
from sipagent.conversation.providers.settings import ElevenLabsSettings
from sipagent.conversation.providers.wire import BETWEEN_READS_S, CONNECT_S, Samples, failing
from sipagent.core.errors import ProviderError

MAX_MESSAGE = 4 << 20  # some 80 s of audio
CLOSE_S = 0.5


class ElevenLabs:
    """One voice; shared by calls. `http` is the node's session."""

    def __init__(self, http: aiohttp.ClientSession, settings: ElevenLabsSettings) -> None:
        self._http = http
        self._settings = settings

    async def speak(self, text: str, rate: int) -> AsyncGenerator[Speech, None]:
        samples, words = Samples(rate), _WordTimes(text, rate)
        with failing():
            async with await self._connect(rate) as socket:
                await self._ask(socket, text)
                while not samples.too_long:
                    message = await socket.receive(BETWEEN_READS_S)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        raise ProviderError("closed the connection before the end", retryable=True)
                    said = json.loads(message.data)
                    if said.get("error"):
                        raise ProviderError("reported an error in its stream", retryable=True)
                    if said.get("audio"):
                        pcm = samples.push(base64.b64decode(said["audio"], validate=True))
                        if len(pcm):
                            yield Timed(pcm, words.take(said.get("alignment"), len(pcm)))
                    if said.get("isFinal"):
                        return

    async def _connect(self, rate: int) -> "aiohttp.ClientWebSocketResponse":
        asked = {"model_id": self._settings.model, "output_format": f"pcm_{rate}", "auto_mode": "true"}
        base, voice = self._settings.base_url.rstrip("/"), quote(self._settings.voice, safe="")
        async with asyncio.timeout(CONNECT_S):
            return await self._http.ws_connect(
                f"{base}/text-to-speech/{voice}/stream-input?{urlencode(asked)}",
                headers={"xi-api-key": self._settings.key} if self._settings.key else {},
                max_msg_size=MAX_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),  # type: ignore[attr-defined, unused-ignore]
            )

    async def _ask(self, socket: "aiohttp.ClientWebSocketResponse", text: str) -> None:
        how = {"stability": self._settings.stability, "similarity_boost": self._settings.similarity}
        await socket.send_json({"text": " ", "voice_settings": how})
        await socket.send_json({"text": text + " "})
        await socket.send_json({"text": ""})


class _WordTimes:
    """Where each word of the text ends, from the times of its characters as they come."""

    def __init__(self, text: str, rate: int) -> None:
        self._text = text
        self._rate = rate
        self._at = 0  # in the text
        self._before = 0  # samples of the messages so far
        self._end = 0  # sample at which the last character ended

    def take(self, alignment: Any, samples: int) -> tuple[tuple[int, int], ...]:
        """The words that are complete with this message; none where it does not tell."""
        found: list[tuple[int, int]] = []
        if isinstance(alignment, dict):
            columns = (alignment["chars"], alignment["charStartTimesMs"], alignment["charDurationsMs"])
            for char, start, duration in zip(*columns, strict=True):
                place = self._text.find(char, self._at, self._at + 2)  # it may have left out a space
                if place < 0:
                    continue
                if char.isspace() and place > 0:
                    found.append((place, self._end))
                self._at = place + 1
                self._end = self._before + int(start + duration) * self._rate // 1000
        self._before += samples
        if self._at >= len(self._text) and self._text and (not found or found[-1][0] < len(self._text)):
            found.append((len(self._text), min(self._end, self._before)))
            self._at = -1
        return tuple(found)
