"""The live event stream (server-sent events, HTML standard section 9.2): every event of the hub, as it happens."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from sipagent.api.errors import ApiError
from sipagent.api.events import socket
from sipagent.api.events.types import EventOut
from sipagent.core.clock import mono_ns
from sipagent.core.events import Event, EventHub
from sipagent.store.encoding import call_of, event_data, event_id, leg_of

log = logging.getLogger(__name__)

QUEUE_EVENTS = 1000
# How often a quiet stream looks whether its client is still there.
LOOK_S = 1.0


@dataclass(eq=False)
class _Client:
    request: web.Request
    call_id: str | None
    bare: bool = False  # the event's JSON alone, without the fields of server-sent events
    # stream: 1,000 events, disconnect the client (it can read the record for what it missed)
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_EVENTS))

    def offer(self, message: bytes) -> None:
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("slow client of the event stream disconnected")
            self.disconnect()

    def end(self) -> None:
        """After what is queued."""
        try:
            self.queue.put_nowait(None)
        except asyncio.QueueFull:
            self.disconnect()

    def disconnect(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


class EventStreams:
    """Hands events on to the connected clients; each is encoded once, and not at all while nobody watches."""

    def __init__(
        self, hub: EventHub, holds: Callable[[web.Request], bool], *, heartbeat_s: float, max_clients: int
    ) -> None:
        """``holds``: whether a request's key is one still; a stream ends within a heartbeat of its key."""
        self._hub = hub
        self._holds = holds
        self._look_s = max(heartbeat_s, LOOK_S)
        self._looking: asyncio.TimerHandle | None = None
        self._heartbeat_ns = int(heartbeat_s * 1e9)
        self._max_clients = max_clients
        self._clients: set[_Client] = set()
        self._unsubscribe: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closing = False

    async def serve(self, request: web.Request, call_id: str | None) -> web.StreamResponse:
        """Stream until the client or the server goes. Raises 503 when too many watch."""
        self._check_room()
        response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})  # proxies that know it pass lines on at once
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        client = _Client(request, call_id)
        self._add(client)
        try:
            await response.prepare(request)
            await response.write(b": connected\n\n")
            await self._pump(client, response)
        except ConnectionError:
            pass  # the client went, which is how streams end
        finally:
            self._remove(client)
        return response

    async def serve_socket(self, request: web.Request, call_id: str | None) -> web.StreamResponse:
        """The same by websocket. Raises 426 for a request that is no handshake, 503 when too many watch."""
        self._check_room()
        ws = socket.upgraded(request, self._heartbeat_ns / 1e9)
        if ws is None:
            raise ApiError(426, "this path is a websocket: ask for an upgrade")
        client = _Client(request, call_id, bare=True)
        self._add(client)  # before the client can know: from its first moment nothing is missed
        try:
            await ws.prepare(request)
            await socket.pump(ws, client.queue)
        except ConnectionError:
            pass  # the client went, which is how streams end
        finally:
            self._remove(client)
        return ws

    def _check_room(self) -> None:
        if self._closing or len(self._clients) >= self._max_clients:
            raise ApiError(503, "too many event streams are open", retry_after_s=30)

    def close(self) -> None:
        """End every stream after what is queued for it."""
        self._closing = True
        for client in tuple(self._clients):
            client.end()

    async def _pump(self, client: _Client, response: web.StreamResponse) -> None:
        last_sent = mono_ns()
        while True:
            try:
                message = await asyncio.wait_for(client.queue.get(), LOOK_S)
            except TimeoutError:
                transport = client.request.transport
                if transport is None or transport.is_closing():
                    return
                if mono_ns() - last_sent < self._heartbeat_ns:
                    continue
                message = b": still here\n\n"
            if message is None:
                return
            await response.write(message)
            last_sent = mono_ns()

    def _add(self, client: _Client) -> None:
        self._clients.add(client)
        if self._unsubscribe is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
            self._unsubscribe = self._hub.subscribe(self._on_event)
            self._looking = self._loop.call_later(self._look_s, self._look_at_keys)

    def _remove(self, client: _Client) -> None:
        self._clients.discard(client)
        if not self._clients and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
            if self._looking is not None:
                self._looking.cancel()

    def _look_at_keys(self) -> None:
        for client in tuple(self._clients):
            if not self._holds(client.request):
                client.end()
        self._looking = asyncio.get_running_loop().call_later(self._look_s, self._look_at_keys)

    def _on_event(self, event: Event) -> None:
        """The hub's subscriber: from any thread, neither waits nor raises."""
        if threading.get_ident() == self._thread:
            self._hand_on(event)
        elif self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._hand_on, event)
            except RuntimeError:  # the loop is closed, and so are the clients
                pass

    def _hand_on(self, event: Event) -> None:
        try:
            out = event_out(event)
            data = msgspec.json.encode(out)
        except Exception as error:
            fields = {"event": type(event).__name__, "error": type(error).__name__}
            log.error("event could not be streamed", extra=fields)
            return
        message = f"id: {out.id}\nevent: {out.type}\ndata: ".encode() + data + b"\n\n"
        for client in tuple(self._clients):
            if client.call_id is None or client.call_id == out.call_id:
                client.offer(data if client.bare else message)


def event_out(event: Event) -> EventOut:
    data = event_data(event)
    return EventOut(
        id=event_id(event),
        type=type(event).__name__,
        call_id=call_of(event),
        leg_id=leg_of(event),
        at=event.at.wall,
        data=data,
    )
