"""Numbers that ring here, and who takes their calls."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.resources.paging import DeleteOut, PageQuery, changeable, cut, matches, one_of
from sipagent.api.resources.types import (
    ActionOut,
    AssignNumbers,
    CreateNumber,
    ListNumbers,
    Named,
    NumberFilter,
    NumberOut,
    NumbersPage,
    UnassignNumbers,
    UpdateNumber,
)
from sipagent.api.routing import V1, Route
from sipagent.api.shared import ACCOUNT, Shared
from sipagent.api.types import NoParameters
from sipagent.calls.inventory import Inventory, passed_to
from sipagent.core import clock
from sipagent.core.ids import new_id
from sipagent.store.resources import Add, Alter, Remove, VirtualNumberRecord

WHAT = "number"


class NumberHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._resources = backend.resources

    async def create_number(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CreateNumber)
        inventory = await self._resources.inventory()
        _check_target(inventory, body.voice_app_id, body.sip_trunk_id, needed=False)
        if any(it.number == body.number for it in inventory.numbers.values()):
            raise ApiError(409, "this number is there already")
        now = clock.now().wall
        settings: dict[str, Any] = {"name": body.name, "sip_trunk_id": body.sip_trunk_id}
        if body.location is not None:
            settings["location"] = msgspec.structs.asdict(body.location)
        number = VirtualNumberRecord(
            id=new_id("vn"),
            number=body.number,
            voice_app_id=body.voice_app_id,
            trunk=body.trunk,
            settings={name: value for name, value in settings.items() if value is not None},
            created_at=now,
            updated_at=now,
        )
        await self._resources.write(Add(number))
        return json_answer(number_out(number, await self._resources.inventory()), 201)

    async def list_numbers(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListNumbers)
        inventory = await self._resources.inventory()
        found = found_numbers(inventory, query.search, query.location, query.voice_app, query.sip_trunk)
        return json_answer(numbers_page(found, query, inventory))

    async def get_number(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        return json_answer(number_out(one_of(inventory.numbers, request.match_info["number_id"], WHAT), inventory))

    async def update_number(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, UpdateNumber)
        inventory = await self._resources.inventory()
        number = one_of(inventory.numbers, request.match_info["number_id"], WHAT)
        changeable(inventory, [number.id], WHAT)
        settings = dict(number.settings)
        if body.name is not UNSET:
            settings["name"] = body.name
        if body.location is None:
            settings.pop("location", None)
        elif body.location is not UNSET:
            settings["location"] = msgspec.structs.asdict(body.location)
        changes: dict[str, Any] = {"settings": settings, "updated_at": clock.now().wall}
        if body.trunk is not UNSET:
            changes["trunk"] = body.trunk
        await self._resources.write(Alter(VirtualNumberRecord, [number.id], changes))
        inventory = await self._resources.inventory()
        return json_answer(number_out(one_of(inventory.numbers, number.id, WHAT), inventory))

    async def delete_number(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        number = one_of(inventory.numbers, request.match_info["number_id"], WHAT)
        changeable(inventory, [number.id], WHAT)
        await self._resources.write(Remove(VirtualNumberRecord, [number.id]))
        return json_answer(DeleteOut())

    async def assign_numbers(self, request: web.Request) -> web.Response:
        query = read_parameters(request, NumberFilter)
        body, _ = await read_body(request, AssignNumbers)
        inventory = await self._resources.inventory()
        _check_target(inventory, body.voice_app_id, body.sip_trunk_id, needed=True)
        chosen = _chosen(inventory, body.vn_ids, body.apply_to_all, query)
        await self._assign(chosen, body.voice_app_id, body.sip_trunk_id)
        return json_answer(ActionOut(success=True, message=f"{len(chosen)} assigned"))

    async def unassign_numbers(self, request: web.Request) -> web.Response:
        query = read_parameters(request, NumberFilter)
        body, _ = await read_body(request, UnassignNumbers)
        chosen = _chosen(await self._resources.inventory(), body.vn_ids, body.apply_to_all, query)
        await self._assign(chosen, None, None)
        return json_answer(ActionOut(success=True, message=f"{len(chosen)} unassigned"))

    async def _assign(
        self, chosen: Sequence[VirtualNumberRecord], voice_app_id: str | None, sip_trunk_id: str | None
    ) -> None:
        now = clock.now().wall
        steps = []
        for number in chosen:
            settings = {name: value for name, value in number.settings.items() if name != "sip_trunk_id"}
            if sip_trunk_id is not None:
                settings["sip_trunk_id"] = sip_trunk_id
            changes = {"voice_app_id": voice_app_id, "settings": settings, "updated_at": now}
            steps.append(Alter(VirtualNumberRecord, [number.id], changes))
        await self._resources.write(*steps)


def _check_target(inventory: Inventory, voice_app_id: str | None, sip_trunk_id: str | None, *, needed: bool) -> None:
    if voice_app_id is not None and sip_trunk_id is not None:
        raise field_error("voice_app_id", "cannot be used together with sip_trunk_id")
    if needed and voice_app_id is None and sip_trunk_id is None:
        raise field_error("voice_app_id", "is required where no sip_trunk_id is given")
    if voice_app_id is not None and voice_app_id not in inventory.apps:
        raise field_error("voice_app_id", "is no voice app's id")
    if sip_trunk_id is not None and sip_trunk_id not in inventory.trunks:
        raise field_error("sip_trunk_id", "is no trunk's id")


def _chosen(
    inventory: Inventory, vn_ids: Sequence[str], apply_to_all: bool, query: NumberFilter
) -> list[VirtualNumberRecord]:
    """Raises 409 for one that stands in the configuration; `apply_to_all` leaves those out."""
    if bool(vn_ids) == apply_to_all:
        raise field_error("vn_ids", "give either vn_ids or apply_to_all")
    if apply_to_all:
        found = found_numbers(inventory, query.search, query.location, query.voice_app, query.sip_trunk)
        return [number for number in found if number.id not in inventory.fixed]
    for vn_id in vn_ids:
        if vn_id not in inventory.numbers:
            raise field_error("vn_ids", "has an id that is no number's")
    changeable(inventory, vn_ids, WHAT)
    return [inventory.numbers[vn_id] for vn_id in dict.fromkeys(vn_ids)]


def found_numbers(
    inventory: Inventory,
    search: str | None,
    location: Sequence[str],
    voice_apps: Sequence[str],
    trunks: Sequence[str],
) -> list[VirtualNumberRecord]:
    def wanted(number: VirtualNumberRecord) -> bool:
        places = {text.casefold() for text in number.settings.get("location", {}).values() if text}
        return (
            matches(search, number.number, number.settings.get("name", ""))
            and (not location or bool(places & {text.casefold() for text in location}))
            and (not voice_apps or number.voice_app_id in voice_apps)
            and (not trunks or passed_to(number) in trunks)
        )

    return [number for number in inventory.numbers.values() if wanted(number)]


def numbers_page(found: Iterable[VirtualNumberRecord], query: PageQuery, inventory: Inventory) -> NumbersPage:
    page, rest = cut(found, query)
    return NumbersPage(data=[number_out(number, inventory) for number in page], **rest)


def number_out(number: VirtualNumberRecord, inventory: Inventory) -> NumberOut:
    app = inventory.apps.get(number.voice_app_id or "")
    trunk = inventory.trunks.get(passed_to(number))
    return NumberOut(
        id=number.id,
        account_id=ACCOUNT,
        name=number.settings.get("name"),
        number=number.number,
        location=number.settings.get("location"),
        voice_app=Named(id=app.id, name=app.name) if app is not None else None,
        sip_trunk=Named(id=trunk.id, name=trunk.name) if trunk is not None else None,
        trunk=number.trunk,
        configured=number.id in inventory.fixed,
        created_at=number.created_at,
    )


NUMBERS = f"{V1}/virtual-numbers"
ROUTES = (
    Route(
        method="POST",
        path=NUMBERS,
        handler=NumberHandlers.create_number,
        summary="Add a number that rings here",
        body=CreateNumber,
        answers={201: NumberOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=NUMBERS,
        handler=NumberHandlers.list_numbers,
        summary="Numbers, newest first",
        query=ListNumbers,
        answers={200: NumbersPage},
        refusals=(422, 503),
    ),
    Route(
        method="POST",
        path=f"{NUMBERS}/assign",
        handler=NumberHandlers.assign_numbers,
        summary="Give numbers to a voice app, or to a trunk that their calls are passed on over",
        query=NumberFilter,
        body=AssignNumbers,
        answers={200: ActionOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{NUMBERS}/unassign",
        handler=NumberHandlers.unassign_numbers,
        summary="Take numbers from their voice app or trunk",
        query=NumberFilter,
        body=UnassignNumbers,
        answers={200: ActionOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{NUMBERS}/{{number_id}}",
        handler=NumberHandlers.get_number,
        summary="One number",
        answers={200: NumberOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="PATCH",
        path=f"{NUMBERS}/{{number_id}}",
        handler=NumberHandlers.update_number,
        summary="Change a number",
        body=UpdateNumber,
        answers={200: NumberOut},
        admin=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="DELETE",
        path=f"{NUMBERS}/{{number_id}}",
        handler=NumberHandlers.delete_number,
        summary="Delete a number",
        answers={200: DeleteOut},
        admin=True,
        refusals=(404, 409, 422, 503, 504),
    ),
)
