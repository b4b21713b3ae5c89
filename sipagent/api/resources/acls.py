"""Lists of addresses that trunks may name as theirs."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.resources.paging import DeleteOut, PageQuery, changeable, cut, matches, one_of
from sipagent.api.resources.trunk_types import AclAddress, AclOut, AclsPage, CreateAcl, UpdateAcl
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters
from sipagent.calls.inventory import Inventory
from sipagent.core import clock
from sipagent.core.errors import ConfigError
from sipagent.core.ids import new_id
from sipagent.store.resources import Add, Alter, IpAclRecord, Remove

WHAT = "list of addresses"
LEAST_PREFIX = {4: 8, 6: 16}  # bits: whatever is wider was not meant


class AclHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._resources = backend.resources

    async def create_acl(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, CreateAcl)
        inventory, now = await self._resources.inventory(), clock.now().wall
        _unnamed(inventory, body.name, "")
        entries = _entries(body.addresses)
        acl = IpAclRecord(id=new_id("acl"), name=body.name, entries=entries, created_at=now, updated_at=now)
        await self._resources.write(Add(acl))
        return json_answer(acl_out(acl, await self._resources.inventory()), 201)

    async def list_acls(self, request: web.Request) -> web.Response:
        query = read_parameters(request, PageQuery)
        inventory = await self._resources.inventory()
        page, rest = cut((acl for acl in inventory.acls.values() if matches(query.search, acl.name)), query)
        return json_answer(AclsPage(data=[acl_out(acl, inventory) for acl in page], **rest))

    async def get_acl(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        return json_answer(acl_out(one_of(inventory.acls, request.match_info["acl_id"], WHAT), inventory))

    async def update_acl(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        body, _ = await read_body(request, UpdateAcl)
        inventory = await self._resources.inventory()
        acl = one_of(inventory.acls, request.match_info["acl_id"], WHAT)
        changeable(inventory, [acl.id], WHAT)
        changes: dict[str, Any] = {}
        if body.name is not UNSET:
            _unnamed(inventory, body.name, acl.id)
            changes["name"] = body.name
        if body.addresses is not UNSET:
            changes["entries"] = _entries(body.addresses)
        changed = msgspec.structs.replace(acl, **changes)
        others = replace(inventory, acls={**inventory.acls, acl.id: changed})
        for trunk in inventory.trunks.values():
            if trunk.settings.get("ip_acl_id") == acl.id:
                try:
                    self._resources.check_trunk(trunk, others)
                except (ConfigError, ValueError) as error:
                    raise ApiError(422, str(error)) from error
        await self._resources.write(Alter(IpAclRecord, [acl.id], changes | {"updated_at": clock.now().wall}))
        inventory = await self._resources.inventory()
        return json_answer(acl_out(one_of(inventory.acls, acl.id, WHAT), inventory))

    async def delete_acl(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        inventory = await self._resources.inventory()
        acl = one_of(inventory.acls, request.match_info["acl_id"], WHAT)
        changeable(inventory, [acl.id], WHAT)
        if _users(acl, inventory):
            raise ApiError(409, "a trunk's callers are known by this list of addresses: change the trunk first")
        await self._resources.write(Remove(IpAclRecord, [acl.id]))
        return json_answer(DeleteOut())


def _unnamed(inventory: Inventory, name: str, own_id: str) -> None:
    if any(acl.name == name and acl.id != own_id for acl in inventory.acls.values()):
        raise ApiError(409, f"there is a {WHAT} of this name already")


def _entries(addresses: Sequence[AclAddress]) -> list[dict[str, str | None]]:
    """Networks as they are written canonically. Raises 422."""
    found: dict[str, dict[str, str | None]] = {}
    for index, entry in enumerate(addresses):
        field = f"addresses[{index}].address"
        try:
            network = ip_network(entry.address.strip(), strict=False)
        except ValueError:
            raise field_error(field, "is no IP address or network") from None
        if network.prefixlen < LEAST_PREFIX[network.version]:
            raise field_error(field, f"is wider than /{LEAST_PREFIX[network.version]}")
        if str(network) in found:
            raise field_error(field, "is the same as one before it")
        single = network.num_addresses == 1
        address = str(network.network_address) if single else str(network)
        found[str(network)] = {"address": address, "description": entry.description}
    return list(found.values())


def _users(acl: IpAclRecord, inventory: Inventory) -> int:
    return sum(trunk.settings.get("ip_acl_id") == acl.id for trunk in inventory.trunks.values())


def acl_out(acl: IpAclRecord, inventory: Inventory) -> AclOut:
    return AclOut(
        id=acl.id,
        name=acl.name,
        addresses=[{"address": entry["address"], "description": entry.get("description")} for entry in acl.entries],
        address_count=len(acl.entries),
        trunk_count=_users(acl, inventory),
        created_at=acl.created_at,
        updated_at=acl.updated_at,
        configured=acl.id in inventory.fixed,
    )


ACLS = f"{V1}/sip/ip-acls"
ROUTES = (
    Route(
        method="POST",
        path=ACLS,
        handler=AclHandlers.create_acl,
        summary="Make a list of addresses",
        body=CreateAcl,
        answers={201: AclOut},
        admin=True,
        refusals=(400, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=ACLS,
        handler=AclHandlers.list_acls,
        summary="Lists of addresses, newest first",
        query=PageQuery,
        answers={200: AclsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{ACLS}/{{acl_id}}",
        handler=AclHandlers.get_acl,
        summary="One list of addresses",
        answers={200: AclOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="PATCH",
        path=f"{ACLS}/{{acl_id}}",
        handler=AclHandlers.update_acl,
        summary="Rename a list of addresses or replace its entries, for every trunk that names it",
        body=UpdateAcl,
        answers={200: AclOut},
        admin=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="DELETE",
        path=f"{ACLS}/{{acl_id}}",
        handler=AclHandlers.delete_acl,
        summary="Delete a list of addresses that no trunk names",
        answers={200: DeleteOut},
        admin=True,
        refusals=(404, 409, 422, 503, 504),
    ),
)
