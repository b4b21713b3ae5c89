"""Events as they happen."""

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.events.types import EventOut, WatchEvents
from sipagent.api.http import read_parameters
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared


class EventHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._streams = shared.streams

    async def watch_events(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, read_parameters(request, WatchEvents).call_id)

    async def watch_events_by_websocket(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve_socket(request, read_parameters(request, WatchEvents).call_id)


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/events/ws",
        handler=EventHandlers.watch_events_by_websocket,
        summary="The same by websocket: each text message is an EventOut",
        query=WatchEvents,
        answers={101: None},
        streams=True,
        refusals=(422, 426, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/events/stream",
        handler=EventHandlers.watch_events,
        summary="Every event as it happens, as server-sent events; the data of each is an EventOut",
        query=WatchEvents,
        answers={200: EventOut},
        streams=True,
        refusals=(422, 503),
    ),
)
