"""Trunks: made and changed while calls are up."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.resources.numbers import found_numbers, numbers_page
from sipagent.api.resources.paging import DeleteOut, changeable, checked_url, cut, matches, one_of
from sipagent.api.resources.trunk_types import CreateTrunk, ListTrunks, SipTrunkOut, SipTrunksPage, UpdateTrunk
from sipagent.api.resources.types import ListNumbersOf, NumbersPage
from sipagent.api.routing import V1, Route
from sipagent.api.shared import ACCOUNT, Shared
from sipagent.api.types import NoParameters
from sipagent.calls.inventory import Inventory
from sipagent.calls.made_trunks import PASSWORD, addresses
from sipagent.core import clock
from sipagent.core.errors import ConfigError
from sipagent.core.ids import new_id
from sipagent.store.resources import Add, Alter, Remove, SipTrunkRecord, VirtualNumberRecord

WHAT = "trunk"
AUTH = ("auth_credential", "auth_addresses", "ip_acl_id")
PLAIN = ("domain_name", "channel_limit", "cps_limit", "recording", "transport", "webhook_url", "webhook_api_version")
NOT_MORE = {"name", "username", "password", "inbound_password", "domain", "transport", "max_calls", "accept", "peers"}


class TrunkHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._resources = backend.resources

    async def create_sip_trunk(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CreateTrunk)
        inventory, now = await self._resources.inventory(), clock.now().wall
        blank = SipTrunkRecord(id=new_id("trunk"), name=body.name, created_at=now, updated_at=now)
        wanted = {name: getattr(body, name) for name in body.__struct_fields__}
        trunk = self._checked(blank, {name: value for name, value in wanted.items() if value is not None}, inventory)
        await self._resources.write(Add(trunk))
        return json_answer(trunk_out(trunk, await self._resources.inventory()), 201)

    async def list_sip_trunks(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListTrunks)
        inventory = await self._resources.inventory()
        wanted = (
            trunk
            for trunk in inventory.trunks.values()
            if matches(query.search, trunk.name) and (not query.status or trunk.status in query.status)
        )
        page, rest = cut(wanted, query)
        return json_answer(SipTrunksPage(data=[trunk_out(trunk, inventory) for trunk in page], **rest))

    async def get_sip_trunk(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        return json_answer(trunk_out(one_of(inventory.trunks, request.match_info["trunk_id"], WHAT), inventory))

    async def update_sip_trunk(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, UpdateTrunk)
        inventory = await self._resources.inventory()
        trunk = one_of(inventory.trunks, request.match_info["trunk_id"], WHAT)
        changeable(inventory, [trunk.id], WHAT)
        wanted = {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name) is not UNSET}
        changed = self._checked(trunk, wanted, inventory)
        changes = {"name": changed.name, "status": changed.status, "settings": changed.settings}
        await self._resources.write(Alter(SipTrunkRecord, [trunk.id], changes | {"updated_at": clock.now().wall}))
        inventory = await self._resources.inventory()
        return json_answer(trunk_out(one_of(inventory.trunks, trunk.id, WHAT), inventory))

    async def delete_sip_trunk(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory, now = await self._resources.inventory(), clock.now().wall
        trunk = one_of(inventory.trunks, request.match_info["trunk_id"], WHAT)
        changeable(inventory, [trunk.id], WHAT)
        left = []
        for number in found_numbers(inventory, None, (), (), (trunk.id,)):
            settings = {name: value for name, value in number.settings.items() if name != "sip_trunk_id"}
            left.append(Alter(VirtualNumberRecord, [number.id], {"settings": settings, "updated_at": now}))
        await self._resources.write(*left, Remove(SipTrunkRecord, [trunk.id]))
        return json_answer(DeleteOut())

    async def list_trunk_numbers(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListNumbersOf)
        inventory = await self._resources.inventory()
        trunk = one_of(inventory.trunks, request.match_info["trunk_id"], WHAT)
        found = found_numbers(inventory, query.search, query.location, (), (trunk.id,))
        return json_answer(numbers_page(found, query, inventory))

    def _checked(self, trunk: SipTrunkRecord, wanted: dict[str, Any], inventory: Inventory) -> SipTrunkRecord:
        """The trunk with these fields of CreateTrunk or UpdateTrunk. Raises 409 or 422."""
        name = wanted.get("name", trunk.name)
        if any(other.name == name and other.id != trunk.id for other in inventory.trunks.values()):
            raise ApiError(409, f"there is a {WHAT} of this name already")
        settings = trunk.settings | {field: wanted[field] for field in PLAIN if field in wanted}
        checked_url(self._resources.check_url, "webhook_url", settings.get("webhook_url", ""))
        if "secret_id" in wanted:
            if wanted["secret_id"] is not None and wanted["secret_id"] not in inventory.secrets:
                raise field_error("secret_id", "is no secret's id")
            settings["secret_id"] = wanted["secret_id"]
        if "inbound_route" in wanted:
            route = wanted["inbound_route"]
            settings["inbound_route"] = msgspec.structs.asdict(route) if route is not None else {}
        if "settings" in wanted:
            for field in wanted["settings"]:
                if field in NOT_MORE:
                    raise field_error(f"settings.{field}", "has a field of its own beside settings")
            settings["more"] = wanted["settings"]
        settings |= self._proof(wanted, inventory)
        active = wanted.get("is_active", trunk.status == "active")
        changed = msgspec.structs.replace(
            trunk, name=name, status="active" if active else "inactive", settings=settings
        )
        others = {**inventory.trunks, trunk.id: changed}
        try:
            self._resources.check_trunk(changed, replace(inventory, trunks=others))
        except (ConfigError, ValueError) as error:
            raise ApiError(422, str(error)) from error
        return changed

    def _proof(self, wanted: dict[str, Any], inventory: Inventory) -> dict[str, Any]:
        """How callers prove themselves, with passwords sealed; empty where that stays as it is."""
        given = [field for field in AUTH if field in wanted]
        kind = wanted.get("authentication_type")
        if kind is None:
            if given:
                raise field_error("authentication_type", f"is required beside {given[0]}")
            return {}
        if kind == "credential":
            if given != ["auth_credential"]:
                raise field_error("auth_credential", "alone goes with authentication_type credential")
            credential = wanted["auth_credential"]
            proof = {"username": credential.username, PASSWORD: self._resources.seal(credential.password)}
        else:
            if given not in (["auth_addresses"], ["ip_acl_id"]):
                raise field_error("auth_addresses", "or ip_acl_id, and nothing else, goes with authentication_type IP")
            proof = {"ip_acl_id": wanted.get("ip_acl_id"), "addresses": _single(wanted.get("auth_addresses", ()))}
            if not proof["addresses"] and proof["ip_acl_id"] not in inventory.acls:
                raise field_error("ip_acl_id", "is no list of addresses' id")
        return {"authentication_type": kind, "username": "", PASSWORD: "", "addresses": [], "ip_acl_id": None} | proof


def _single(entries: Iterable[Any]) -> list[dict[str, str]]:
    for entry in entries:
        try:
            ip_address(entry.address)
        except ValueError:
            raise field_error(
                "auth_addresses", "takes single IP addresses; networks go into a list of addresses"
            ) from None
    return [{"address": entry.address, "name": entry.name} for entry in entries]


def trunk_out(trunk: SipTrunkRecord, inventory: Inventory) -> SipTrunkOut:
    given = trunk.settings
    acl = inventory.acls.get(given.get("ip_acl_id") or "")
    secret = inventory.secrets.get(given.get("secret_id") or "")
    return SipTrunkOut(
        id=trunk.id,
        name=trunk.name,
        domain_name=given.get("domain_name", ""),
        account_id=ACCOUNT,
        channel_limit=given.get("channel_limit"),
        cps_limit=given.get("cps_limit"),
        recording_enabled=given.get("recording", False),
        transport=given.get("transport"),
        is_active=trunk.status == "active",
        authentication_type=given.get("authentication_type", "IP"),
        auth_ip_addresses=[{"name": "", "address": address} for address in addresses(trunk, inventory)]
        if acl is not None
        else [{"name": entry.get("name", ""), "address": entry["address"]} for entry in given.get("addresses", [])],
        auth_credential_usernames=[given["username"]] if given.get("username") else [],
        ip_acl_id=acl.id if acl is not None else None,
        ip_acl_name=acl.name if acl is not None else None,
        sip_route=given.get("inbound_route") or None,
        webhook_url=given.get("webhook_url", ""),
        webhook_api_version=given.get("webhook_api_version", "2026-06-01"),
        created_at=trunk.created_at,
        updated_at=trunk.updated_at,
        secret_id=secret.id if secret is not None else None,
        secret_name=secret.name if secret is not None else None,
        code=None,
        settings=given.get("more", {}),
        configured=trunk.id in inventory.fixed,
    )


TRUNKS = f"{V1}/sip/trunks"
ROUTES = (
    Route(
        method="POST",
        path=TRUNKS,
        handler=TrunkHandlers.create_sip_trunk,
        summary="Make a trunk: it is in use at once",
        body=CreateTrunk,
        answers={201: SipTrunkOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=TRUNKS,
        handler=TrunkHandlers.list_sip_trunks,
        summary="Trunks, newest first; how those of this node are doing is told by /trunks",
        query=ListTrunks,
        answers={200: SipTrunksPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{TRUNKS}/{{trunk_id}}",
        handler=TrunkHandlers.get_sip_trunk,
        summary="One trunk",
        answers={200: SipTrunkOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="PATCH",
        path=f"{TRUNKS}/{{trunk_id}}",
        handler=TrunkHandlers.update_sip_trunk,
        summary="Change a trunk; calls that are up keep what they have",
        body=UpdateTrunk,
        answers={200: SipTrunkOut},
        admin=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="DELETE",
        path=f"{TRUNKS}/{{trunk_id}}",
        handler=TrunkHandlers.delete_sip_trunk,
        summary="Delete a trunk; its calls go on to their end, its numbers are left without one",
        answers={200: DeleteOut},
        admin=True,
        refusals=(404, 409, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{TRUNKS}/{{trunk_id}}/virtual-numbers",
        handler=TrunkHandlers.list_trunk_numbers,
        summary="The numbers whose calls are passed on over a trunk, newest first",
        query=ListNumbersOf,
        answers={200: NumbersPage},
        refusals=(404, 422, 503),
    ),
)
