"""Dialplans: what there is, whether a text is one, reading them again."""

import re
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from sipagent.api.backend import Backend
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import END, NoParameters, Request, Response
from sipagent.core.errors import ConfigError
from sipagent.dialplan.model import Dialplan


class CheckDialplan(Request, kw_only=True, frozen=True):
    """A dialplan as its file has it, and that file's name without its ending."""

    text: Annotated[str, Meta(max_length=512 * 1024)]
    name: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_-]+{END}", max_length=64)] = "dialplan"


class Reload(Request, kw_only=True, frozen=True):
    pass


class RouteOut(Response, kw_only=True, frozen=True):
    name: str
    steps: str
    called: list[str]
    calling: list[str]


class DialplanOut(Response, kw_only=True, frozen=True):
    name: str
    routes: list[RouteOut]
    steps: list[str]
    agents: list[str]


class DialplansPage(Response, kw_only=True, frozen=True):
    """Those of this node, in the order in which their routes are tried; there is never a second page."""

    data: list[DialplanOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class CheckOut(Response, kw_only=True, frozen=True):
    valid: bool
    message: str  # what is wrong, "" where nothing is
    line: int | None
    dialplan: DialplanOut | None


class DialplanHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._dialplans = backend.dialplans

    async def list_dialplans(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return json_answer(self._page())

    async def validate_dialplan(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CheckDialplan)
        try:
            parsed = await self._dialplans.parse_dialplan(body.name, body.text)
        except ConfigError as error:
            found = re.search(r"\.yaml:(\d+)", str(error))
            line = int(found.group(1)) if found is not None else None
            return json_answer(CheckOut(valid=False, message=str(error), line=line, dialplan=None))
        return json_answer(CheckOut(valid=True, message="", line=None, dialplan=dialplan_out(parsed)))

    async def reload_dialplans(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        await read_body(request, Reload)
        await self._dialplans.reload()
        return json_answer(self._page())

    def _page(self) -> DialplansPage:
        return DialplansPage(data=[dialplan_out(dialplan) for dialplan in self._dialplans.dialplans()])


def dialplan_out(dialplan: Dialplan) -> DialplanOut:
    return DialplanOut(
        name=dialplan.name,
        routes=[
            RouteOut(name=route.name, steps=route.steps, called=list(route.called), calling=list(route.calling))
            for route in dialplan.routes
        ],
        steps=list(dialplan.steps),
        agents=list(dialplan.agents),
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/dialplans",
        handler=DialplanHandlers.list_dialplans,
        summary="The dialplans of this node",
        answers={200: DialplansPage},
        refusals=(422,),
    ),
    Route(
        method="POST",
        path=f"{V1}/dialplans/validate",
        handler=DialplanHandlers.validate_dialplan,
        summary="Is this text a dialplan; what is wrong in which line",
        body=CheckDialplan,
        answers={200: CheckOut},
        admin=True,
        refusals=(400, 413, 415, 422, 504),
    ),
    Route(
        method="POST",
        path=f"{V1}/dialplans/reload",
        handler=DialplanHandlers.reload_dialplans,
        summary="Read the dialplans again; calls that are up keep theirs",
        body=Reload,
        answers={200: DialplansPage},
        admin=True,
        refusals=(400, 413, 415, 422, 503, 504),
    ),
)
