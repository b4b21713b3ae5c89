"""Connections to applications: websockets and AudioSocket's TCP, to where the guard lets them lead."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Protocol

import aiohttp
from yarl import URL

from sipagent.calls.streams.dialect import Message
from sipagent.core.errors import NotAllowed, SipagentError
from sipagent.web.client import parse_url
from sipagent.web.guard import Guard, GuardedConnector

MAX_MESSAGE = 4 << 20  # bytes: a minute of wideband audio at once, in base64
PING_S = 20.0  # a websocket on which nothing comes back for half of that is dead
CLOSE_S = 1.0  # for an application to say goodbye: a call's end waits for it
READ = 65_536
_MEANT = (None, 0, 1000, 1005)  # codes of a websocket that the application has closed because it was through
_FOR_GOOD = range(300, 500)
_MAY_PASS = (408, 425, 429)


class StreamFailed(SipagentError):
    """Part of a sentence. It names neither address nor content; ``again``: another try may help."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


class Wire(Protocol):
    async def send(self, message: Message) -> None:
        """Waits while the application is slow. Raises StreamFailed."""

    async def receive(self) -> Message | None:
        """None when the application has closed the connection because it is through. Raises StreamFailed."""

    async def close(self) -> None: ...


class Connector:
    """Makes them, for all calls of a node."""

    def __init__(self, guard: Guard, limit_s: float) -> None:
        self._guard = guard
        self._limit_s = limit_s
        self._session: aiohttp.ClientSession | None = None

    async def connect(self, url: str, headers: Mapping[str, str]) -> Wire:
        """Raises StreamFailed."""
        try:
            async with asyncio.timeout(self._limit_s):
                where = parse_url(url, ("ws", "wss", "tcp"))
                return await (self._tcp(where) if where.scheme == "tcp" else self._websocket(where, headers))
        except TimeoutError:
            raise StreamFailed(f"the application was not reached within {self._limit_s:g} s", again=True) from None
        except NotAllowed as error:
            raise StreamFailed(f"the application may not be reached: {error}", again=False) from error
        except aiohttp.WSServerHandshakeError as error:
            again = error.status not in _FOR_GOOD or error.status in _MAY_PASS
            raise StreamFailed(f"the application answered {error.status}", again=again) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise StreamFailed(f"the application cannot be reached ({type(error).__name__})", again=True) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _websocket(self, url: URL, headers: Mapping[str, str]) -> "Wire":
        if self._session is None:
            # Without the limits of a client of requests: a stream lasts as long as its call.
            self._session = aiohttp.ClientSession(
                connector=GuardedConnector(self._guard, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_not_elsewhere,),
            )
        return Websocket(
            await self._session.ws_connect(
                url,
                headers=headers,
                heartbeat=PING_S,
                max_msg_size=MAX_MESSAGE,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            )
        )

    async def _tcp(self, url: URL) -> "Wire":
        last: OSError | None = None
        for address in await self._guard.addresses(url.host or ""):
            try:
                reader, writer = await asyncio.open_connection(address, url.port)
            except OSError as error:
                last = error
                continue
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Tcp(reader, writer)
        raise last or OSError("no address")


async def _not_elsewhere(request: aiohttp.ClientRequest, ask: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """The protocol lets a client follow redirects of the handshake (RFC 6455, 4.1); we follow none: they would lead
    the call's audio, and what signs the handshake, to somebody else."""
    response = await ask(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.WSServerHandshakeError(response.request_info, response.history, status=response.status)
    return response


class Websocket:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws

    async def send(self, message: Message) -> None:
        try:
            if isinstance(message, str):
                await self._ws.send_str(message)
            else:
                await self._ws.send_bytes(message)
        except (aiohttp.ClientError, OSError) as error:
            raise StreamFailed("the connection to the application is lost", again=True) from error

    async def receive(self) -> Message | None:
        message = await self._ws.receive()
        match message.type:
            case aiohttp.WSMsgType.TEXT | aiohttp.WSMsgType.BINARY:
                data: Message = message.data
                return data
            case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                closed = message.type is aiohttp.WSMsgType.CLOSE
                # The message's own: where the application is gone before our answer, `close_code` is of that.
                code = message.data if closed else self._ws.close_code
                if closed and code in _MEANT:
                    return None
                raise StreamFailed(f"the application has closed the connection ({code})", again=True)
            case _:
                raise StreamFailed("the connection to the application is lost", again=True)

    async def close(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(2 * CLOSE_S):
                await self._ws.close()


class Tcp:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, message: Message) -> None:
        assert isinstance(message, bytes)
        try:
            self._writer.write(message)
            await self._writer.drain()
        except OSError as error:
            raise StreamFailed("the connection to the application is lost", again=True) from error

    async def receive(self) -> Message | None:
        try:
            data = await self._reader.read(READ)
        except OSError as error:
            raise StreamFailed("the connection to the application is lost", again=True) from error
        return data or None

    async def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                self._writer.close()
                await self._writer.wait_closed()
