"""Applications that hear calls: a Twilio-style bot by the protocol's page alone, Teler's own SDK, AudioSocket.

The bot knows nothing of sipagent: twilio.com/docs/voice/media-streams/websocket-messages says what comes and goes,
twilio.com/docs/usage/security how a handshake is signed, and its REST pages how a call is ended.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web


class TwilioBot:
    """One call after another; `on_message` is told of each message after the bot has noted it."""

    def __init__(self) -> None:
        self.url = ""
        self.token = ""  # of its account
        self.messages: list[dict[str, Any]] = []
        self.signed: list[bool] = []
        self.closed = 0
        self.refusals: list[int] = []  # statuses with which the next handshakes are refused
        self.on_message: Callable[[TwilioBot, dict[str, Any]], Awaitable[None]] | None = None
        self.ws: web.WebSocketResponse | None = None
        self.stream_sid = self.call_sid = self.account_sid = ""

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["event"] == event]

    def heard(self, track: str = "inbound") -> bytes:
        """µ-law of one track."""
        media = [message["media"] for message in self.of("media") if message["media"]["track"] == track]
        return b"".join(base64.b64decode(each["payload"]) for each in media)

    async def say(self, codes: bytes) -> None:
        payload = base64.b64encode(codes).decode()
        await self._send({"event": "media", "streamSid": self.stream_sid, "media": {"payload": payload}})

    async def mark(self, name: str) -> None:
        await self._send({"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}})

    async def clear(self) -> None:
        await self._send({"event": "clear", "streamSid": self.stream_sid})

    async def hang_up(self, api: str) -> int:
        """As Twilio's client libraries do; the status of the answer."""
        url = f"{api}/2010-04-01/Accounts/{self.account_sid}/Calls/{self.call_sid}.json"
        headers = {"Authorization": aiohttp.encode_basic_auth(self.account_sid, self.token)}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, headers=headers, data={"Status": "completed"}) as answer,
        ):
            return answer.status

    async def _send(self, message: dict[str, Any]) -> None:
        assert self.ws is not None
        await self.ws.send_str(json.dumps(message))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refusals:
            return web.Response(status=self.refusals.pop(0))
        digest = hmac.new(self.token.encode(), self.url.encode(), hashlib.sha1).digest()
        self.signed.append(request.headers.get("X-Twilio-Signature") == base64.b64encode(digest).decode())
        self.ws = ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for frame in ws:
            message = json.loads(frame.data)
            self.messages.append(message)
            if message["event"] == "start":
                start = message["start"]
                self.stream_sid, self.call_sid = start["streamSid"], start["callSid"]
                self.account_sid = start["accountSid"]
            if self.on_message is not None:
                await self.on_message(self, message)
        self.closed += 1
        return ws


@asynccontextmanager
async def twilio_bot() -> AsyncIterator[TwilioBot]:
    bot = TwilioBot()
    async with served(bot.handle) as port:
        bot.url = f"ws://127.0.0.1:{port}/stream"
        yield bot


@asynccontextmanager
async def served(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """A web server for one handler; its port."""
    app = web.Application()
    app.router.add_get("/stream", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class AudioSocketApp:
    """A server by docs.asterisk.org, AudioSocket: sends back what it hears."""

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.kinds: list[int] = []
        self.keys = ""
        self.heard = bytearray()
        self.hangs_up_after = 0  # bytes of audio
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                kind, length = struct.unpack(">BH", await reader.readexactly(3))
                payload = await reader.readexactly(length)
                self.kinds.append(kind)
                if kind == 0x01:
                    self.ids.append(payload)
                elif kind == 0x03:
                    self.keys += payload.decode()
                elif kind in (0x10, 0x12):
                    self.heard += payload
                    writer.write(struct.pack(">BH", kind, length) + payload)
                    if self.hangs_up_after and len(self.heard) >= self.hangs_up_after:
                        writer.write(struct.pack(">BH", 0x00, 0))
                        self.hangs_up_after = 0
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def audiosocket_app() -> AsyncIterator[AudioSocketApp]:
    app = AudioSocketApp()
    server = await asyncio.start_server(app.handle, "127.0.0.1", 0)
    app.url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield app
    finally:
        server.close()
        await server.wait_closed()


class TelerApp:
    """An application made with Teler's SDK: its `StreamConnector`, unmodified, joins the call with a bot behind it."""

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[dict[str, Any]] = []
        self.on_message: Callable[[Any, dict[str, Any]], Awaitable[None]] | None = None

    async def bot(self, ws: Any) -> None:
        """The remote end of the connector."""
        async for text in ws:
            message = json.loads(text)
            self.messages.append(message)
            if self.on_message is not None:
                await self.on_message(ws, message)


@asynccontextmanager
async def teler_app() -> AsyncIterator[TelerApp]:
    import uvicorn
    import websockets
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from teler.streams import StreamConnector

    app = TelerApp()
    async with websockets.serve(app.bot, "127.0.0.1", 0) as remote:
        connector = StreamConnector(remote_url=f"ws://127.0.0.1:{remote.sockets[0].getsockname()[1]}")

        async def endpoint(ws: Any) -> None:
            await ws.accept()
            await connector.bridge_stream(ws)

        starlette = Starlette(routes=[WebSocketRoute("/media", endpoint)])
        config = uvicorn.Config(starlette, "127.0.0.1", 0, log_level="error", ws="websockets-sansio")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.02)
        app.url = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/media"
        try:
            yield app
        finally:
            server.should_exit = True
            await serving
