"""Secrets that sign webhooks: made by the node, shown once, sealed in the database."""

import base64
import secrets
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from msgspec import UNSET

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.resources.paging import DeleteOut, PageQuery, changeable, cut, matches, one_of
from sipagent.api.resources.trunk_types import CreateSecret, SecretOut, SecretsPage, UpdateSecret
from sipagent.api.resources.types import Named
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters
from sipagent.calls.inventory import Inventory
from sipagent.core import clock
from sipagent.core.ids import new_id
from sipagent.store.resources import Add, Alter, Remove, SecretRecord

WHAT = "secret"
GOOD_FOR = timedelta(days=365)


class SecretHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._resources = backend.resources

    async def create_secret(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CreateSecret)
        inventory, now = await self._resources.inventory(), clock.now().wall
        _unnamed(inventory, body.name, "")
        value = new_value()
        secret = SecretRecord(
            id=new_id("secret"), name=body.name, value=self._resources.seal(value), created_at=now, updated_at=now
        )
        await self._resources.write(Add(secret))
        return json_answer(secret_out(secret, inventory, value), 201)

    async def list_secrets(self, request: web.Request) -> web.Response:
        query = read_parameters(request, PageQuery)
        inventory = await self._resources.inventory()
        page, rest = cut((it for it in inventory.secrets.values() if matches(query.search, it.name)), query)
        return json_answer(SecretsPage(data=[secret_out(secret, inventory) for secret in page], **rest))

    async def get_secret(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        return json_answer(secret_out(one_of(inventory.secrets, request.match_info["secret_id"], WHAT), inventory))

    async def update_secret(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, UpdateSecret)
        inventory, now = await self._resources.inventory(), clock.now().wall
        secret = one_of(inventory.secrets, request.match_info["secret_id"], WHAT)
        changeable(inventory, [secret.id], WHAT)
        changes: dict[str, Any] = {"updated_at": now}
        if body.name is not UNSET:
            _unnamed(inventory, body.name, secret.id)
            changes["name"] = body.name
        value = new_value() if body.rotate else None
        if value is not None:
            changes["value"] = self._resources.seal(value)
            changes["settings"] = secret.settings | {"rotated_at": now.isoformat()}
        await self._resources.write(Alter(SecretRecord, [secret.id], changes))
        inventory = await self._resources.inventory()
        return json_answer(secret_out(one_of(inventory.secrets, secret.id, WHAT), inventory, value))

    async def delete_secret(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        secret = one_of(inventory.secrets, request.match_info["secret_id"], WHAT)
        changeable(inventory, [secret.id], WHAT)
        shown = secret_out(secret, inventory)
        if shown.voice_apps or shown.sip_trunks:
            raise ApiError(409, "a voice app or a trunk signs with this secret: change it first")
        await self._resources.write(Remove(SecretRecord, [secret.id]))
        return json_answer(DeleteOut())


def new_value() -> str:
    """As Standard Webhooks writes keys: 32 random bytes."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _unnamed(inventory: Inventory, name: str, own_id: str) -> None:
    if any(secret.name == name and secret.id != own_id for secret in inventory.secrets.values()):
        raise ApiError(409, f"there is a {WHAT} of this name already")


def secret_out(secret: SecretRecord, inventory: Inventory, value: str | None = None) -> SecretOut:
    rotated = instant(secret.settings.get("rotated_at"))
    since = rotated or secret.created_at
    return SecretOut(
        id=secret.id,
        name=secret.name,
        secret_value=value,
        rotated_at=rotated,
        created_at=secret.created_at,
        needs_rotation=since is not None and clock.now().wall - since > GOOD_FOR,
        sip_trunks=[
            Named(id=trunk.id, name=trunk.name)
            for trunk in inventory.trunks.values()
            if trunk.settings.get("secret_id") == secret.id
        ],
        voice_apps=[Named(id=app.id, name=app.name) for app in inventory.apps.values() if app.secret_id == secret.id],
        configured=secret.id in inventory.fixed,
    )


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


SECRETS = f"{V1}/secrets"
ROUTES = (
    Route(
        method="POST",
        path=SECRETS,
        handler=SecretHandlers.create_secret,
        summary="Make a secret that signs webhooks; it is shown this once",
        body=CreateSecret,
        answers={201: SecretOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=SECRETS,
        handler=SecretHandlers.list_secrets,
        summary="Secrets, newest first, without their values",
        query=PageQuery,
        answers={200: SecretsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{SECRETS}/{{secret_id}}",
        handler=SecretHandlers.get_secret,
        summary="One secret, without its value",
        answers={200: SecretOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="PATCH",
        path=f"{SECRETS}/{{secret_id}}",
        handler=SecretHandlers.update_secret,
        summary="Rename a secret, or give it a new value",
        body=UpdateSecret,
        answers={200: SecretOut},
        admin=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="DELETE",
        path=f"{SECRETS}/{{secret_id}}",
        handler=SecretHandlers.delete_secret,
        summary="Delete a secret that nothing signs with",
        answers={200: DeleteOut},
        admin=True,
        refusals=(404, 409, 422, 503, 504),
    ),
)
