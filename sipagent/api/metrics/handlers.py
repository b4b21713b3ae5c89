"""The page that Prometheus reads."""

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from sipagent.api.backend import Backend
from sipagent.api.http import read_parameters
from sipagent.api.routing import Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters


class MetricsHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._figures = shared.figures

    async def metrics(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        page = generate_latest(self._figures.registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


ROUTES = (
    Route(
        method="GET",
        path="/metrics",
        handler=MetricsHandlers.metrics,
        summary="Calls, turns, providers, media, trunks and the record, as Prometheus reads them",
        basic=True,
        answers={200: None},
        media="text/plain",
        refusals=(422,),
    ),
)
