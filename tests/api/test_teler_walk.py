"""Every method of every manager of the PyPI client `teler`, sync and async: one story calls them all.

Which there are is found in the client itself: a method that the story does not call fails the test.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest

try:
    import teler.clients
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the Teler client is missing: pip install 'sipagent[dev]'") from error
from teler import exceptions
from teler.resources.base import BaseResource, CursorPage

from sipagent.api.server import ApiServer

from .conftest import KEY
from .node import Node

FLOW = "dialplan:front-desk"


def methods(holder: Any, path: str = "") -> Iterator[str]:
    """All that the client offers, as `voice.apps.create`."""
    for name, value in vars(holder).items():
        if not type(value).__name__.endswith("ResourceManager"):
            continue
        inner = f"{path}{name}"
        own = [method for method in vars(type(value)) if not method.startswith("_")]
        yield from (f"{inner}.{method}" for method in own)
        yield from methods(value, f"{inner}.")


class Watched:
    """A client of either kind, whose methods are awaited; what was called is in `done`."""

    def __init__(self, inner: Any, done: set[str], path: str = "") -> None:
        self._inner, self._done, self._path = inner, done, path

    def __getattr__(self, name: str) -> Any:
        value, path = getattr(self._inner, name), f"{self._path}{name}"
        if not callable(value):
            return Watched(value, self._done, f"{path}.")

        async def call(*given: Any, **named: Any) -> Any:
            self._done.add(path)
            if inspect.iscoroutinefunction(value):
                answer = await value(*given, **named)
            else:
                answer = await asyncio.to_thread(value, *given, **named)
            for resource in answer.data if isinstance(answer, CursorPage) else [answer]:
                if isinstance(resource, BaseResource):  # every field that the client knows is in our answer
                    assert {field.name for field in fields(resource)} <= set(resource.raw), path
            return answer

        return call


async def secrets_apps_and_numbers(api: Any) -> None:
    secret = await api.secrets.create("signs")
    assert secret.secret_value.startswith("whsec_") and not secret.needs_rotation
    again = await api.secrets.retrieve(secret.id)
    assert (again.name, again.secret_value) == ("signs", None)
    turned = await api.secrets.update(secret.id, name="signs better", rotate=True)
    assert turned.secret_value not in (None, secret.secret_value) and turned.rotated_at
    assert [it.id for it in (await api.secrets.list(search="BETTER")).data] == [secret.id]

    app = await api.voice.apps.create("front", FLOW, "https://example.com/hook", secret_id=secret.id, channel_limit=3)
    assert (app.flow_url, app.secret_name, app.status) == (FLOW, "signs better", "active")
    assert (await api.voice.apps.retrieve(app.id)).channel_limit == 3
    changed = await api.voice.apps.update(app.id, status="inactive", fallback_url="https://example.com/other")
    assert (changed.status, changed.fallback_url, changed.flow_url) == ("inactive", "https://example.com/other", FLOW)
    found = (await api.voice.apps.list(search="front", status=["inactive"])).data
    assert [it.id for it in found] == [app.id]
    with pytest.raises(exceptions.ConflictException, match="signs"):
        await api.secrets.delete(secret.id)

    [number] = (await api.virtual_numbers.list(search="+49301000")).data
    with pytest.raises(exceptions.ConflictException, match="configuration"):
        await api.virtual_numbers.assign([number.id], voice_app_id=app.id)
    own = await own_number(api)
    assert (await api.virtual_numbers.assign([own], voice_app_id=app.id)).success
    assert [it.id for it in (await api.voice.apps.list_virtual_numbers(app.id)).data] == [own]
    named = await api.virtual_numbers.update(own, name="front desk")
    assert (named.name, named.voice_app["id"]) == ("front desk", app.id)
    assert (await api.virtual_numbers.unassign(apply_to_all=True, voice_app=[app.id])).success
    assert (await api.voice.apps.list_virtual_numbers(app.id)).data == []
    assert (await api.voice.apps.delete(app.id)).success
    assert (await api.secrets.delete(secret.id)).success
    with pytest.raises(exceptions.NotFoundException):
        await api.secrets.retrieve(secret.id)


async def own_number(api: Any) -> str:
    """Numbers are not made by this client: by our own request through its connection."""
    return str((await api.request("POST", "/virtual-numbers", json={"number": "+49401"})).json()["id"])


async def trunks(api: Any) -> None:
    acl = await api.sip.ip_acls.create("peers", [{"address": "203.0.113.7"}, {"address": "198.51.100.0/24"}])
    assert [entry["address"] for entry in acl.addresses] == ["203.0.113.7", "198.51.100.0/24"]
    trunk = await api.sip.trunks.create(
        "by-address", "sip.example.com", "IP", ip_acl_id=acl.id, channel_limit=10, transport="tcp"
    )
    assert (trunk.ip_acl_name, trunk.transport, trunk.is_active) == ("peers", "tcp", True)
    assert (await api.sip.ip_acls.retrieve(acl.id)).trunk_count == 1
    with pytest.raises(exceptions.ConflictException):
        await api.sip.ip_acls.delete(acl.id)
    renamed = await api.sip.ip_acls.update(acl.id, name="others", addresses=[{"address": "203.0.113.8"}])
    assert (renamed.name, renamed.address_count) == ("others", 1)
    assert [it.id for it in (await api.sip.ip_acls.list(search="others")).data] == [acl.id]

    credential = {"username": "200", "password": "hidden-hidden"}
    changed = await api.sip.trunks.update(
        trunk.id, name="by-password", authentication_type="credential", auth_credential=credential, transport="udp"
    )
    assert (changed.name, changed.auth_credential_usernames, changed.ip_acl_id) == ("by-password", ["200"], None)
    one = await api.sip.trunks.retrieve(trunk.id)
    assert one.authentication_type == "credential" and "hidden" not in str(one.raw)
    listed = (await api.sip.trunks.list(status=["active"])).data
    assert [it.name for it in listed] == ["by-password", "carrier"]
    with pytest.raises(exceptions.ConflictException, match="configuration"):
        await api.sip.trunks.delete(listed[1].id)
    assert (await api.sip.trunks.list_virtual_numbers(trunk.id)).data == []
    assert (await api.sip.ip_acls.delete(acl.id)).success
    assert (await api.sip.trunks.delete(trunk.id)).success


async def calls(api: Any, node: Node) -> None:
    created = await api.voice.calls.create("+49301", "+49302", FLOW, "")
    await node.recorder.flush()
    [listed] = (await api.voice.calls.list(state="answered", from_number="+49301")).data
    assert listed.id == created.id
    assert (await api.voice.calls.retrieve(created.id)).direction == "outbound"
    assert [leg.call_session_id for leg in (await api.voice.calls.list_legs(created.id)).data] == [created.id]
    [leg] = (await api.voice.calls.list_legs(created.id)).data
    assert (await api.voice.mutations.play(created.id, "hold.wav", loop=2)).playback_id
    assert (await api.voice.mutations.dtmf(created.id, "12#", duration_ms=120)).request_id
    assert (await api.voice.mutations.mute(created.id, leg.id, True)).request_id
    started = await api.voice.operations.transfer(created.id, {"kind": "pstn", "number": "+49303"}, "blind")
    assert started.status == "requested"
    assert (await api.voice.mutations.hangup(created.id)).request_id
    await node.recorder.flush()
    [carrier] = (await api.sip.trunks.list(search="carrier")).data
    [of_trunk] = (await api.sip.calls.list(trunk_id=carrier.id, to_number="+49302", limit=1)).data
    assert (of_trunk.id, of_trunk.sip_trunk_id, of_trunk.ended_by) == (created.id, carrier.id, "operator")
    assert (await api.sip.calls.retrieve(created.id)).duration_seconds == 0


async def what_there_is_none_of(api: Any) -> None:
    """Webhooks that were sent and audio that was recorded have stories of their own: test_webhooks, test_recordings."""
    assert (await api.events.list(limit=5)).data == []
    for method in (api.events.retrieve, api.events.redeliver, api.recordings.retrieve):
        with pytest.raises(exceptions.NotFoundException):
            await method("evt_none")


def sync_client(url: str) -> Any:
    return teler.clients.Client(api_key=KEY, base_url=url)


def async_client(url: str) -> Any:
    return teler.clients.AsyncClient(api_key=KEY, base_url=url)


@pytest.mark.parametrize("make", [sync_client, async_client])
async def test_every_method_of_every_manager(node: Node, server: ApiServer, make: Callable[[str], Any]) -> None:
    client, done = make(f"{server.url}/api/v1"), set[str]()
    api = Watched(client, done)
    await secrets_apps_and_numbers(api)
    await trunks(api)
    await calls(api, node)
    await what_there_is_none_of(api)
    assert set(methods(client)) - done == set()
    await client.aclose() if isinstance(client, teler.clients.AsyncClient) else client.close()
