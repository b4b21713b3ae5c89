"""The node itself: its health, registrations and trunks, and this API's description."""

from aiohttp import web

from sipagent.api.auth import HEADER as KEY_HEADER
from sipagent.api.backend import Backend
from sipagent.api.http import json_answer, read_parameters
from sipagent.api.node.backend import Health
from sipagent.api.node.types import HealthOut, RecorderOut, RegistrationsPage, TrunksPage
from sipagent.api.routing import V1, Route
from sipagent.api.shapes import same_names
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters


class NodeHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._node = backend.node
        self._shared = shared

    async def registrations(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return json_answer(RegistrationsPage(data=self._node.health().registrations))

    async def trunks(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return json_answer(TrunksPage(data=self._node.health().trunks))

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the process can answer at all; with a key it tells more."""
        health = self._node.health()
        if KEY_HEADER in request.headers:
            self._shared.gate.check(request)
            return json_answer(health_out(health))
        return json_answer(HealthOut(status=health.status))

    async def readyz(self, request: web.Request) -> web.Response:
        """503 while new calls should go elsewhere."""
        status = self._node.health().status
        return json_answer(HealthOut(status=status), status=503 if status == "draining" else 200)

    async def openapi_document(self, request: web.Request) -> web.Response:
        return web.json_response(body=self._shared.openapi)


def health_out(health: Health) -> HealthOut:
    return HealthOut(
        status=health.status,
        version=health.version,
        uptime_s=health.uptime_s,
        calls_active=health.calls_active,
        max_calls=health.max_calls,
        processes=health.processes,
        registrations=health.registrations,
        trunks=health.trunks,
        recorder=None if health.recorder is None else same_names(health.recorder, RecorderOut),
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/registrations",
        handler=NodeHandlers.registrations,
        summary="This node's registrations at its trunks",
        answers={200: RegistrationsPage},
        refusals=(422,),
    ),
    Route(
        method="GET",
        path=f"{V1}/trunks",
        handler=NodeHandlers.trunks,
        summary="This node's trunks: up, degraded or down, their servers, calls and refusals",
        answers={200: TrunksPage},
        refusals=(422,),
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=NodeHandlers.healthz,
        summary="Is the node alive; with a key, how it is",
        answers={200: HealthOut},
        needs_key=False,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=NodeHandlers.readyz,
        summary="Should new calls come here",
        answers={200: HealthOut, 503: HealthOut},
        needs_key=False,
    ),
    Route(
        method="GET",
        path="/api/openapi.json",
        handler=NodeHandlers.openapi_document,
        summary="This document",
        answers={200: None},
        needs_key=False,
    ),
)
