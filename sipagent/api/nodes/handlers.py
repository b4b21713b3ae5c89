"""Nodes that share a database: how each is, and draining this one."""

from datetime import timedelta

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import Instant, NoParameters, Request, Response
from sipagent.core import clock
from sipagent.store.access import NodeRecord

GONE_AFTER = timedelta(seconds=60)


class Drain(Request, kw_only=True, frozen=True):
    on: bool = True  # False: the node takes calls again


class NodeOut(Response, kw_only=True, frozen=True):
    name: str
    url: str  # of its API, "" for none
    version: str
    state: str  # "ok", "degraded", "draining", or "gone" when it was not seen for a minute
    started_at: Instant
    seen_at: Instant
    calls_active: int
    max_calls: int
    this: bool  # it is the node that answers


class NodesPage(Response, kw_only=True, frozen=True):
    """All nodes of the database; there is never a second page."""

    data: list[NodeOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class NodesHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._nodes = backend.nodes

    async def list_nodes(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return json_answer(NodesPage(data=[self._out(node) for node in await self._nodes.nodes()]))

    async def drain_node(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, Drain)
        name = request.match_info["node"]
        known = {node.name: node for node in await self._nodes.nodes()}
        if name not in known:
            raise ApiError(404, "there is no such node")
        if name != self._nodes.own_name:
            raise ApiError(409, f"ask that node itself, at {known[name].url or 'its own API'}")
        await self._nodes.drain(body.on)
        own = next(node for node in await self._nodes.nodes() if node.name == name)
        return json_answer(self._out(own))

    def _out(self, node: NodeRecord) -> NodeOut:
        gone = clock.now().wall - node.seen_at > GONE_AFTER
        return NodeOut(
            name=node.name,
            url=node.url,
            version=node.version,
            state="gone" if gone else node.state,
            started_at=node.started_at,
            seen_at=node.seen_at,
            calls_active=node.calls_active,
            max_calls=node.max_calls,
            this=node.name == self._nodes.own_name,
        )


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/nodes",
        handler=NodesHandlers.list_nodes,
        summary="Nodes that share the database",
        answers={200: NodesPage},
        refusals=(422, 503),
    ),
    Route(
        method="POST",
        path=f"{V1}/nodes/{{node}}/drain",
        handler=NodesHandlers.drain_node,
        summary="This node takes no new calls, those that are up go on; or it takes calls again",
        body=Drain,
        answers={200: NodeOut},
        admin=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
)
