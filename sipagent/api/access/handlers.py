"""API keys, and who changed what."""

from datetime import UTC

from aiohttp import web

from sipagent.api.access.types import AuditOut, AuditPage, CreateKey, KeyMade, KeyOut, KeysPage, ListAudit
from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.keys import made_key
from sipagent.api.routing import V1, Route
from sipagent.api.shapes import same_names
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters
from sipagent.core import clock


class AccessHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._access = backend.access

    async def create_key(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CreateKey)
        expires_at, now = body.expires_at, clock.now().wall
        if expires_at is not None and expires_at.tzinfo is None:
            expires_at = expires_at.replace(tzinfo=UTC)
        if expires_at is not None and expires_at <= now:
            raise field_error("expires_at", "is past")
        plain, key = made_key(body.name, list(dict.fromkeys(body.scopes)), body.rate_per_s, now, expires_at)
        await self._access.add_key(key)
        shown = {name: getattr(key, name) for name in KeyOut.__struct_fields__}
        return json_answer(KeyMade(key=plain, **shown), 201)

    async def list_keys(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return json_answer(KeysPage(data=[same_names(key, KeyOut) for key in await self._access.keys()]))

    async def revoke_key(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        key_id = request.match_info["key_id"]
        await self._access.revoke_key(key_id)
        for key in await self._access.keys():
            if key.id == key_id:
                return json_answer(same_names(key, KeyOut))
        raise ApiError(404, "there is no such key")

    async def list_audit(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListAudit)
        rows = await self._access.audit_page(query.limit + 1, query.cursor_after)
        page, more = rows[: query.limit], len(rows) > query.limit
        data = [same_names(row, AuditOut) for row in page]
        return json_answer(AuditPage(data=data, next_cursor=page[-1].id if more else None, has_more=more))


ROUTES = (
    Route(
        method="POST",
        path=f"{V1}/keys",
        handler=AccessHandlers.create_key,
        summary="Make an API key; it is shown this once",
        body=CreateKey,
        answers={201: KeyMade},
        admin=True,
        refusals=(400, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/keys",
        handler=AccessHandlers.list_keys,
        summary="API keys that were made, newest first",
        answers={200: KeysPage},
        admin=True,
        refusals=(422, 503),
    ),
    Route(
        method="POST",
        path=f"{V1}/keys/{{key_id}}/revoke",
        handler=AccessHandlers.revoke_key,
        summary="Revoke an API key: at once on this node, within some seconds on others",
        answers={200: KeyOut},
        admin=True,
        refusals=(404, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/audit",
        handler=AccessHandlers.list_audit,
        summary="Who changed what over the API, newest first",
        query=ListAudit,
        answers={200: AuditPage},
        admin=True,
        refusals=(422, 503),
    ),
)
