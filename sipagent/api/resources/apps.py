"""Voice apps: what is done with the calls of a number."""

from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.resources.numbers import found_numbers, numbers_page
from sipagent.api.resources.paging import DeleteOut, changeable, checked_url, cut, matches, one_of
from sipagent.api.resources.types import (
    AppOut,
    AppsPage,
    CreateApp,
    ListApps,
    ListNumbersOf,
    NumbersPage,
    UpdateApp,
)
from sipagent.api.routing import V1, Route
from sipagent.api.shared import ACCOUNT, Shared
from sipagent.api.types import NoParameters
from sipagent.calls.inventory import DIALPLAN_URL, Inventory
from sipagent.core import clock
from sipagent.core.ids import new_id
from sipagent.store.resources import Add, Alter, Remove, VirtualNumberRecord, VoiceAppRecord

WHAT = "voice app"


class AppHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._resources = backend.resources

    async def create_app(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CreateApp)
        inventory = await self._resources.inventory()
        wanted = {name: value for name, value in msgspec.structs.asdict(body).items() if name != "vn_ids"}
        now = clock.now().wall
        app = self._checked(
            VoiceAppRecord(id=new_id("app"), name=body.name, created_at=now, updated_at=now), wanted, inventory
        )
        for vn_id in body.vn_ids:
            if vn_id not in inventory.numbers:
                raise field_error("vn_ids", "has an id that is no number's")
        changeable(inventory, body.vn_ids, "number")
        taken = Alter(VirtualNumberRecord, body.vn_ids, {"voice_app_id": app.id, "updated_at": now})
        await self._resources.write(Add(app), taken)
        return json_answer(app_out(app, await self._resources.inventory()), 201)

    async def list_apps(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListApps)
        inventory = await self._resources.inventory()
        wanted = (
            app
            for app in inventory.apps.values()
            if matches(query.search, app.name) and (not query.status or app.status in query.status)
        )
        page, rest = cut(wanted, query)
        return json_answer(AppsPage(data=[app_out(app, inventory) for app in page], **rest))

    async def get_app(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        return json_answer(app_out(one_of(inventory.apps, request.match_info["app_id"], WHAT), inventory))

    async def update_app(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, UpdateApp)
        inventory = await self._resources.inventory()
        app = one_of(inventory.apps, request.match_info["app_id"], WHAT)
        changeable(inventory, [app.id], WHAT)
        wanted = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
        changed = self._checked(app, wanted, inventory)
        changes = msgspec.structs.asdict(changed) | {"updated_at": clock.now().wall}
        del changes["id"], changes["created_at"]
        if not await self._resources.write(Alter(VoiceAppRecord, [app.id], changes)):
            raise ApiError(404, f"there is no such {WHAT}")
        inventory = await self._resources.inventory()
        return json_answer(app_out(one_of(inventory.apps, app.id, WHAT), inventory))

    async def delete_app(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        app = one_of(inventory.apps, request.match_info["app_id"], WHAT)
        changeable(inventory, [app.id], WHAT)
        its = [number.id for number in inventory.numbers.values() if number.voice_app_id == app.id]
        left = Alter(VirtualNumberRecord, its, {"voice_app_id": None, "updated_at": clock.now().wall})
        await self._resources.write(left, Remove(VoiceAppRecord, [app.id]))
        return json_answer(DeleteOut())

    async def list_app_numbers(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListNumbersOf)
        inventory = await self._resources.inventory()
        app = one_of(inventory.apps, request.match_info["app_id"], WHAT)
        found = found_numbers(inventory, query.search, query.location, (app.id,), ())
        return json_answer(numbers_page(found, query, inventory))

    def _checked(self, app: VoiceAppRecord, wanted: dict[str, Any], inventory: Inventory) -> VoiceAppRecord:
        """The app with these fields of CreateApp or UpdateApp. Raises 422."""
        flow_url, dialplan = wanted.get("flow_url"), wanted.get("dialplan")
        if flow_url and flow_url.startswith(DIALPLAN_URL):
            named = flow_url.removeprefix(DIALPLAN_URL)
            if dialplan and dialplan != named:
                raise field_error("flow_url", "names another dialplan than the field dialplan")
            dialplan, flow_url = named, ""
        if flow_url and dialplan:
            raise field_error("flow_url", "cannot be used together with dialplan")
        if dialplan and not self._resources.has_dialplan(dialplan):
            raise field_error("dialplan", "names no dialplan, route or steps of this node")
        for name in ("flow_url", "fallback_url", "webhook_url"):
            checked_url(self._resources.check_url, name, (flow_url if name == "flow_url" else wanted.get(name)) or "")
        changes: dict[str, Any] = {
            name: wanted[name]
            for name in ("name", "fallback_url", "webhook_url", "status", "channel_limit", "secret_id")
            if name in wanted
        }
        if flow_url or dialplan:
            changes |= {"flow_url": flow_url or "", "dialplan": dialplan or ""}
        if changes.get("secret_id") is not None and changes["secret_id"] not in inventory.secrets:
            raise field_error("secret_id", "is no secret's id")
        if "webhook_api_version" in wanted:
            changes["settings"] = app.settings | {"webhook_api_version": wanted["webhook_api_version"]}
        changed = msgspec.structs.replace(app, **changes)
        if not changed.flow_url and not changed.dialplan:
            raise field_error("flow_url", "is required where no dialplan is named")
        if any(other.name == changed.name and other.id != app.id for other in inventory.apps.values()):
            raise ApiError(409, f"there is a {WHAT} of this name already")
        return changed


def app_out(app: VoiceAppRecord, inventory: Inventory) -> AppOut:
    secret = inventory.secrets.get(app.secret_id or "")
    return AppOut(
        id=app.id,
        name=app.name,
        flow_url=f"{DIALPLAN_URL}{app.dialplan}" if app.dialplan else app.flow_url,
        webhook_url=app.webhook_url,
        fallback_url=app.fallback_url,
        status="active" if app.status == "active" else "inactive",
        channel_limit=app.channel_limit,
        vn_count=sum(number.voice_app_id == app.id for number in inventory.numbers.values()),
        secret_id=app.secret_id,
        secret_name=secret.name if secret is not None else None,
        webhook_api_version=app.settings.get("webhook_api_version", "2026-06-01"),
        account_id=ACCOUNT,
        code=None,
        dialplan=app.dialplan,
        configured=app.id in inventory.fixed,
        created_at=app.created_at,
        updated_at=app.updated_at,
    )


ROUTES = (
    Route(
        method="POST",
        path=f"{V1}/voice/apps",
        handler=AppHandlers.create_app,
        summary="Make a voice app",
        body=CreateApp,
        answers={201: AppOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/voice/apps",
        handler=AppHandlers.list_apps,
        summary="Voice apps, newest first",
        query=ListApps,
        answers={200: AppsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/voice/apps/{{app_id}}",
        handler=AppHandlers.get_app,
        summary="One voice app",
        answers={200: AppOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="PATCH",
        path=f"{V1}/voice/apps/{{app_id}}",
        handler=AppHandlers.update_app,
        summary="Change a voice app",
        body=UpdateApp,
        answers={200: AppOut},
        admin=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="DELETE",
        path=f"{V1}/voice/apps/{{app_id}}",
        handler=AppHandlers.delete_app,
        summary="Delete a voice app; its numbers are left without one",
        answers={200: DeleteOut},
        admin=True,
        refusals=(404, 409, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/voice/apps/{{app_id}}/virtual-numbers",
        handler=AppHandlers.list_app_numbers,
        summary="The numbers of a voice app, newest first",
        query=ListNumbersOf,
        answers={200: NumbersPage},
        refusals=(404, 422, 503),
    ),
)
