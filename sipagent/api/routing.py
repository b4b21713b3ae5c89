"""What a route is: the server serves it, and the OpenAPI document is made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters

Method = Callable[[Any, web.Request], Awaitable[web.StreamResponse]]  # of the topic's handlers


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str
    path: str
    handler: Method
    summary: str
    answers: dict[int, type[msgspec.Struct] | None]  # by status; None is a document of its own
    query: type[msgspec.Struct] = NoParameters
    body: type[msgspec.Struct] | None = None
    needs_key: bool = True
    basic: bool = False  # a key may come as the password of Basic authentication, too
    admin: bool = False  # else keys may read, and those for control may do the rest
    idempotent: bool = False  # takes Idempotency-Key
    media: str = "application/json"  # of an answer that is a document of its own
    streams: bool = False  # text/event-stream, without a time limit
    described: bool = True  # in the OpenAPI document: files of the dashboard are no API
    refusals: tuple[int, ...] = field(default=())  # beside those that every route can give

    @property
    def scope(self) -> str:
        return "admin" if self.admin else "read" if self.method == "GET" else "control"


V1 = "/api/v1"
CALL = f"{V1}/voice/calls/{{call_id}}"


class MakeHandlers(Protocol):
    """A topic's class of handlers: one method a route."""

    def __call__(self, backend: Backend, shared: Shared) -> object: ...


@dataclass(frozen=True)
class Topic:
    handlers: MakeHandlers
    routes: tuple[Route, ...]
