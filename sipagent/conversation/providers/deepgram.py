"""Deepgram's streaming recognition: one websocket ({base_url}/listen) for each utterance.

    we send   binary audio (16 bit) · {"type": "Finalize"} at a pause · {"type": "CloseStream"} at the end
    it sends  Results: interim (replaced by the next), `is_final` (kept), `speech_final` (its own end of the turn),
              `from_finalize` (all up to our Finalize) · Metadata, the last of all

The connection is made while the caller speaks; the audio until then waits. What was final at the last pause is the
answer at once when nothing was said since.
"""

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import aiohttp

from sipagent.conversation.audio import rate_of
from sipagent.conversation.interfaces import FRAME_MS, OnWords, Pcm, Transcript, Words
from sipagent.conversation.providers.settings import DeepgramSettings
from sipagent.conversation.providers.wire import BETWEEN_READS_S, CONNECT_S, failing
from sipagent.core.errors import ProviderError
from sipagent.core.resample import convert

UNSENT_S = 40  # of audio that may wait for the connection; an utterance is shorter
MAX_MESSAGE = 1 << 18
MAX_TEXT = 4000  # characters of one utterance
CLOSE_S = 0.5

_FINALIZE = json.dumps({"type": "Finalize"})
_CLOSE = json.dumps({"type": "CloseStream"})


class Deepgram:
    """One model; shared by calls. `http` is the node's session."""

    def __init__(self, http: aiohttp.ClientSession, settings: DeepgramSettings) -> None:
        self._http = http
        self._settings = settings

    def begin(self, on_words: OnWords) -> "DeepgramRecognition":
        return DeepgramRecognition(self._http, self._settings, on_words)


class DeepgramRecognition:
    def __init__(self, http: aiohttp.ClientSession, settings: DeepgramSettings, on_words: OnWords) -> None:
        self._http = http
        self._settings = settings
        self._on_words = on_words
        self._outgoing: asyncio.Queue[bytes | str] = asyncio.Queue(UNSENT_S * 1000 // FRAME_MS)
        self._rate = 0
        self._final: list[str] = []
        self._confidence = 1.0
        self._paused = False
        self._settled = False  # all said so far is final, and nothing has been said since
        self._task: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over.add_done_callback(
            lambda over: over.cancelled() or over.exception()
        )  # finish() tells, or nobody asks
        self.broken: ProviderError | None = None

    def push(self, frame: Pcm) -> None:
        rate = rate_of(frame)
        if self._task is None:
            self._rate = rate
            self._task = asyncio.create_task(self._run(), name="deepgram")
        self._send(convert(frame, rate, self._rate).astype("<i2").tobytes())

    def pause(self) -> None:
        self._paused = True
        self._send(_FINALIZE)

    def resume(self) -> None:
        self._paused = self._settled = False

    async def finish(self) -> Transcript:
        if self._task is None:
            return Transcript("", 1.0)
        if not (self._paused and self._settled):
            self._send(_CLOSE)
            await asyncio.shield(self._over)
        self.cancel()
        return Transcript(" ".join(self._final), self._confidence)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _send(self, message: bytes | str) -> None:
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            self._break(ProviderError("takes no audio", retryable=True))

    def _break(self, error: ProviderError) -> None:
        self.broken = self.broken or error
        if not self._over.done():
            self._over.set_exception(error)

    async def _run(self) -> None:
        try:
            with failing():
                await self._talk()
            if not self._over.done():
                raise ProviderError("ended before the utterance", retryable=True)
        except ProviderError as error:
            self._break(error)
        finally:
            self._over.cancel()  # without effect when the end is known

    async def _talk(self) -> None:
        asked = {
            "model": self._settings.model,
            "encoding": "linear16",
            "sample_rate": self._rate,
            "channels": 1,
            "interim_results": "true",
            "punctuate": "true",
            "smart_format": "true",
            "endpointing": self._settings.endpointing_ms,
        }
        if self._settings.language:
            asked["language"] = self._settings.language
        async with asyncio.timeout(CONNECT_S):
            socket = await self._http.ws_connect(
                f"{self._settings.base_url.rstrip('/')}/listen?{urlencode(asked)}",
                headers={"Authorization": f"Token {self._settings.key}"} if self._settings.key else {},
                max_msg_size=MAX_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),  # type: ignore[attr-defined, unused-ignore]
            )
        async with socket:
            sending = asyncio.create_task(self._send_all(socket), name="deepgram/send")
            try:
                while not self._over.done():
                    message = await socket.receive(BETWEEN_READS_S)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        raise ProviderError("closed the connection", retryable=True)
                    self._take(json.loads(message.data))
            finally:
                sending.cancel()

    async def _send_all(self, socket: "aiohttp.ClientWebSocketResponse") -> None:
        try:
            with failing():
                while True:
                    match await self._outgoing.get():
                        case bytes() as audio:
                            await socket.send_bytes(audio)
                        case text:
                            await socket.send_str(text)
        except ProviderError as error:
            self._break(error)

    def _take(self, message: Any) -> None:
        match message:
            case {"type": "Results", "channel": {"alternatives": [{"transcript": str(text)} as best, *_]}}:
                self._result(text.strip(), float(best.get("confidence", 0.0)), message)
            case {"type": "Metadata"}:
                if not self._over.done():
                    self._over.set_result(None)
            case {"type": "Error"}:
                raise ProviderError("reported an error in its stream", retryable=True)
            case {"type": str()}:
                pass  # SpeechStarted, UtteranceEnd and what they may add
            case _:
                raise ProviderError("sent what is no message of its protocol", retryable=True)

    def _result(self, text: str, confidence: float, message: dict[str, Any]) -> None:
        said = " ".join([*self._final, text]).strip()[:MAX_TEXT]
        if text:
            self._settled = False
        if message.get("is_final") and text:
            self._final = [said]
            self._confidence = min(self._confidence, confidence)
        self._settled = self._settled or bool(message.get("from_finalize"))
        ended = bool(message.get("speech_final")) and bool(said)
        if text or ended or self._settled:
            self._on_words(Words(said, confidence if text else self._confidence, self._paused and self._settled, ended))
