"""Erasing what the record has of one caller."""

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.erasures.types import EraseCaller, ErasureOut, ErasuresPage, ListErasures
from sipagent.api.errors import field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.routing import V1, Route
from sipagent.api.shapes import same_names
from sipagent.api.shared import KEY_ID, Shared
from sipagent.api.types import NoParameters


class ErasureHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._erasures = backend.erasures

    async def erase_caller(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, EraseCaller)
        try:
            proof = await self._erasures.erase(body.number, request[KEY_ID])
        except ValueError as error:
            raise field_error("number", str(error)) from error
        return json_answer(same_names(proof, ErasureOut), 201)

    async def list_erasures(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListErasures)
        found = await self._erasures.erasures(query.limit + 1, query.cursor_after)
        page, more = found[: query.limit], len(found) > query.limit
        data = [same_names(each, ErasureOut) for each in page]
        return json_answer(ErasuresPage(data=data, next_cursor=page[-1].id if more else None, has_more=more))


ROUTES = (
    Route(
        method="POST",
        path=f"{V1}/erasures",
        handler=ErasureHandlers.erase_caller,
        summary="Erase numbers, words and recordings of ended calls with this number; the answer is the proof",
        body=EraseCaller,
        answers={201: ErasureOut},
        admin=True,
        refusals=(400, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/erasures",
        handler=ErasureHandlers.list_erasures,
        summary="Proofs of erasures, newest first",
        query=ListErasures,
        answers={200: ErasuresPage},
        admin=True,
        refusals=(422, 503),
    ),
)
