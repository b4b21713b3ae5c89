"""A server that speaks the protocols of the cloud vendors, and fails in every way that they do.

It hears the same words in whatever it is sent, answers with the same reply, and speaks a tone.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HANG_S = 60.0
MS_PER_CHARACTER = 40  # of the tone that it speaks


class Trouble(StrEnum):
    NONE = "none"
    TIMEOUT = "timeout"  # takes the request and says nothing
    LIMIT = "429"
    ERROR = "500"
    KEY = "401"
    GARBAGE = "garbage"  # an answer that is none
    HANG = "hang"  # in the middle of the answer
    DRIP = "drip"  # an answer so slow that it stutters
    DISCONNECT = "disconnect"  # in the middle of the answer


_REFUSALS: dict[Trouble, type[web.HTTPException]] = {
    Trouble.LIMIT: web.HTTPTooManyRequests,
    Trouble.ERROR: web.HTTPInternalServerError,
    Trouble.KEY: web.HTTPUnauthorized,
}
EVERY = [each for each in Trouble if each not in (Trouble.NONE, Trouble.KEY)]


def delta(**content: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": None}]}


class Vendor:
    """``async with Vendor() as vendor:``; `trouble` is asked for each request, by its role: "stt", "llm", "tts"."""

    def __init__(self) -> None:
        self.trouble: Callable[[str], Trouble] = lambda _role: Trouble.NONE
        self.words = "what are your opening hours"
        self.reply = "We are open from eight until six. Is there anything else?"
        self.delay_s = 0.0  # of every first answer
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.end_of_turn_after = 0  # frames, where the recogniser itself says so
        self.heard = 0  # samples of audio
        self.closed = asyncio.Event()  # somebody left in the middle of an answer
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, role: str) -> int:
        return len([each for each, _ in self.requests if each == role])

    async def __aenter__(self) -> "Vendor":
        app = web.Application(client_max_size=8 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/audio/speech", self._speech)
        app.router.add_post("/v1/audio/transcriptions", self._transcription)
        app.router.add_get("/v1/listen", _left(self._listen))
        app.router.add_get("/v1/text-to-speech/{voice}/stream-input", _left(self._stream_input))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    # --- over HTTP ---

    async def _begin(self, role: str, request: web.Request, asked: dict[str, Any]) -> Trouble:
        """What shall go wrong; a status of refusal has been raised by then."""
        self.requests.append((role, asked))
        self.headers.append(dict(request.headers))
        trouble = self.trouble(role)
        await asyncio.sleep(self.delay_s)
        if trouble in _REFUSALS:
            raise _REFUSALS[trouble]()
        if trouble is Trouble.TIMEOUT:
            await self._hang()
        return trouble

    async def _hang(self) -> None:
        try:
            await asyncio.sleep(HANG_S)
        except asyncio.CancelledError:
            self.closed.set()
            raise

    async def _stream(
        self, request: web.Request, trouble: Trouble, kind: str, pieces: list[bytes], pace_s: float
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        try:
            for number, piece in enumerate(pieces):
                if number >= 2 and trouble is Trouble.HANG:
                    await asyncio.sleep(HANG_S)
                if number >= 2 and trouble is Trouble.DISCONNECT:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                await response.write(piece)
                await asyncio.sleep(0.9 if trouble is Trouble.DRIP else pace_s)
        except (ConnectionError, asyncio.CancelledError):
            self.closed.set()
            raise
        return response

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        trouble = await self._begin("llm", request, await request.json())
        if trouble is Trouble.GARBAGE:
            return web.Response(body=b"data: {not json}\n\n", content_type="text/event-stream")
        words = [word + " " for word in self.reply.split()]
        if trouble is Trouble.DRIP:  # letter by letter
            words = list(self.reply)
        pieces = [b"data: " + json.dumps(delta(content=word)).encode() + b"\n\n" for word in words]
        return await self._stream(request, trouble, "text/event-stream", [*pieces, b"data: [DONE]\n\n"], 0.002)

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        trouble = await self._begin("tts", request, asked)
        if trouble is Trouble.GARBAGE:
            return web.json_response({"detail": "what is that?"})
        audio = tone(len(asked["input"]), 24_000)
        step = 4801 if trouble is Trouble.NONE else 1200 if trouble is Trouble.DRIP else 9600
        return await self._stream(request, trouble, "application/octet-stream", cut(audio, step), 0.002)

    async def _transcription(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        with file.file:  # a temporary file
            self.heard = len(file.file.read()) // 2 - 22
        asked = {name: value for name, value in form.items() if isinstance(value, str)}
        trouble = await self._begin("stt", request, asked)
        if trouble is Trouble.GARBAGE:
            return web.Response(body=b"<html>what is that?</html>")
        body = json.dumps({"text": self.words}).encode()
        return await self._stream(request, trouble, "application/json", cut(body, 4), 0.0)

    # --- over websockets ---

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        trouble = await self._begin("stt", request, dict(request.query))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        said = self.words.split()
        frames = shown = 0
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                self.heard += len(message.data) // 2
                frames += 1
                if frames % 10 == 0 and shown < len(said):
                    shown += 1
                    await socket.send_json(_result(" ".join(said[:shown]), final=False))
                if frames == self.end_of_turn_after:
                    await socket.send_json(_result(" ".join(said), final=True, speech_final=True))
                    said = []
                if frames == 20:
                    match trouble:
                        case Trouble.GARBAGE:
                            await socket.send_str("<html>")
                        case Trouble.DISCONNECT:
                            assert request.transport is not None
                            request.transport.abort()
                        case Trouble.HANG | Trouble.DRIP:
                            await self._hang()
            elif message.type is WSMsgType.TEXT:
                match json.loads(message.data)["type"]:
                    case "Finalize":
                        await socket.send_json(_result(" ".join(said), final=True, from_finalize=True))
                        said = []
                    case "CloseStream":
                        if said:
                            await socket.send_json(_result(" ".join(said), final=True))
                        await socket.send_json({"type": "Metadata", "duration": frames * 0.02})
                        break
        await socket.close()
        return socket

    async def _stream_input(self, request: web.Request) -> web.StreamResponse:
        trouble = await self._begin("tts", request, dict(request.query) | {"voice": request.match_info["voice"]})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        text = ""
        async for message in socket:
            piece = json.loads(message.data)["text"]
            if not piece:
                break
            text += piece
        text = text.strip()
        if trouble is Trouble.GARBAGE:
            await socket.send_str('{"audio": "%%%"}')
            return socket
        rate = int(request.query["output_format"].removeprefix("pcm_"))
        step = 1 if trouble is Trouble.DRIP else 7
        for number, start in enumerate(range(0, len(text), step)):
            if number >= 2 and trouble is Trouble.HANG:
                await self._hang()
            if number >= 2 and trouble is Trouble.DISCONNECT:
                assert request.transport is not None
                request.transport.abort()
                return socket
            chars = text[start : start + step]
            await socket.send_json(
                {
                    "audio": base64.b64encode(tone(len(chars), rate)).decode(),
                    "alignment": {
                        "chars": list(chars),
                        "charStartTimesMs": [i * MS_PER_CHARACTER for i in range(len(chars))],
                        "charDurationsMs": [MS_PER_CHARACTER] * len(chars),
                    },
                }
            )
            await asyncio.sleep(0.9 if trouble is Trouble.DRIP else 0.002)
        await socket.send_json({"audio": None, "isFinal": True})
        await socket.close()
        return socket


def _left(handler: Handler) -> Handler:
    """Somebody who leaves in the middle is nothing to write home about."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionError:
            return web.Response()

    return handle


def _result(text: str, *, final: bool, speech_final: bool = False, from_finalize: bool = False) -> dict[str, Any]:
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "is_final": final,
        "speech_final": speech_final,
        "from_finalize": from_finalize,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.98, "words": []}]},
    }


def tone(characters: int, rate: int) -> bytes:
    at = np.arange(characters * MS_PER_CHARACTER * rate // 1000) / rate
    return bytes((8000 * np.sin(2 * np.pi * 440 * at)).astype("<i2").tobytes())


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[i : i + step] for i in range(0, len(data), step)]
