"""The PyPI client `teler`, with its base URL pointed at us: the paths and the shape are its own."""

import asyncio
from dataclasses import fields
from typing import Any

import pytest

try:
    import teler.clients
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the Teler client is missing: pip install 'sipagent[dev]'") from error
from teler import exceptions

from sipagent.api.server import ApiServer
from sipagent.api.steering.backend import Transfer
from sipagent.dialplan.model import Instead

from .conftest import KEY
from .node import Node

FLOW = {"flow_url": "dialplan:front-desk", "status_callback_url": ""}


@pytest.fixture(autouse=True)
def pointed_at_us(monkeypatch: pytest.MonkeyPatch, server: ApiServer) -> None:
    monkeypatch.setattr(teler.clients.constants, "TELER_BASE_URL", f"{server.url}/api/v1")


def sync_story() -> dict[str, Any]:
    with teler.clients.Client(api_key=KEY) as client:
        created = client.voice.calls.create("+49301", "+49302", **FLOW)
        listed = client.voice.calls.list(limit=1, state="answered", from_number="+49301")
        retrieved = client.voice.calls.retrieve(created.id)
        legs = client.voice.calls.list_legs(created.id)
        ended = client.voice.mutations.hangup(created.id, reason="done")
        return {"created": created, "listed": listed, "retrieved": retrieved, "legs": legs, "ended": ended}


async def test_the_sync_client_places_finds_and_ends_a_call(node: Node) -> None:
    # a list shows what is recorded, the record follows within 200 ms, and the client is quicker
    placed = node.originate

    async def recorded_at_once(request: Any) -> str:
        call_id = await placed(request)
        await node.recorder.flush()
        return call_id

    node.originate = recorded_at_once  # type: ignore[method-assign]
    told = await asyncio.to_thread(sync_story)
    created, retrieved = told["created"], told["retrieved"]
    assert (created.from_number, created.to_number, created.record) == ("+49301", "+49302", True)
    assert node.asked[0].dialplan == "front-desk"
    assert [call.id for call in told["listed"].data] == [created.id] and not told["listed"].has_more
    assert (retrieved.id, retrieved.state, retrieved.direction) == (created.id, "answered", "outbound")
    assert retrieved.answered_at and retrieved.ended_at is None and retrieved.properties == {}
    [leg] = told["legs"].data
    assert (leg.call_session_id, leg.role, leg.recordings) == (created.id, "callee", [])
    assert told["ended"].request_id.startswith("req_")
    assert node.live == {}


async def test_the_async_client_places_finds_and_ends_a_call(node: Node) -> None:
    async with teler.clients.AsyncClient(api_key=KEY) as client:
        for _ in range(3):
            created = await client.voice.calls.create("+49301", "+49302", **FLOW)
        assert (await client.voice.calls.retrieve(created.id)).state == "answered"
        await node.recorder.flush()
        first = await client.voice.calls.list(limit=2)
        assert first.has_more and len(first.data) == 2
        rest = await client.voice.calls.list(limit=2, cursor_after=first.next_cursor)
        assert len(rest.data) == 1 and not rest.has_more
        back = await client.voice.calls.list(limit=2, cursor_before=rest.previous_cursor)
        assert [call.id for call in back.data] == [call.id for call in first.data]
        [leg] = (await client.voice.calls.list_legs(created.id)).data
        assert leg.state == "answered"
        again = [await client.voice.mutations.hangup(created.id, idempotency_key="once") for _ in range(2)]
        assert again[0].request_id == again[1].request_id
        await node.recorder.flush()
        ended = await client.voice.calls.retrieve(created.id)
        assert (ended.state, ended.reason, ended.legs[0]["ended_by"]) == ("ended", "normal", "operator")
        assert ended.account_id == "default"


async def test_every_field_the_client_knows_is_in_our_answers(node: Node) -> None:
    async with teler.clients.AsyncClient(api_key=KEY) as client:
        created = await client.voice.calls.create("+49301", "+49302", **FLOW)
        await node.recorder.flush()
        [leg] = (await client.voice.calls.list_legs(created.id)).data
        call = await client.voice.calls.retrieve(created.id)
        ended = await client.voice.mutations.hangup(created.id)
    for resource in (created, leg, call, ended):
        assert {field.name for field in fields(resource)} <= set(resource.raw)


async def test_the_client_transfers_a_call(node: Node) -> None:
    async with teler.clients.AsyncClient(api_key=KEY) as client:
        created = await client.voice.calls.create("+49301", "+49302", **FLOW)
        started = await client.voice.operations.transfer(
            created.id, {"kind": "pstn", "number": "+49303"}, "blind", timeout=20, ringback="de"
        )
        assert (started.call_id, started.status, started.mode) == (created.id, "requested", "blind")
        assert {field.name for field in fields(started)} <= set(started.raw)
        assert node.ordered == [Transfer(target="+49303", timeout_s=20.0, music="ringback")]
        sound = "https://cdn.example/a.wav"
        await client.voice.operations.transfer(
            created.id,
            {"kind": "sip", "uri": "sip:a@b"},
            "blind",
            dial_music={"action": "play", "media_url": sound},
            confirm_sound={"action": "play", "media_url": sound},
            on_failure={"action": "play", "media_url": sound, "loop": 2},
        )
        assert node.ordered[1] == Transfer(
            target="sip:a@b", music=sound, confirm=sound, on_failure=Instead(play=sound, times=2)
        )


async def test_refusals_become_the_clients_exceptions(node: Node) -> None:
    async with teler.clients.AsyncClient(api_key="wrong") as stranger:
        with pytest.raises(exceptions.UnauthorizedException):
            await stranger.voice.calls.list()
    async with teler.clients.AsyncClient(api_key=KEY) as client:
        with pytest.raises(exceptions.NotFoundException, match="there is no such call"):
            await client.voice.calls.retrieve("call_none")
        with pytest.raises(exceptions.UnprocessableRequestException) as refused:
            await client.voice.calls.create("+49301", "not a number", **FLOW)
        assert refused.value.details[0]["field"] == "to_number"
        with pytest.raises(exceptions.UnprocessableRequestException, match="flow_url"):
            await client.voice.calls.create("+49301", "+49302", "ftp://example.com/flow", "")
        created = await client.voice.calls.create("+49301", "+49302", **FLOW)
        await client.voice.mutations.hangup(created.id)
        await node.recorder.flush()
        with pytest.raises(exceptions.ConflictException):
            await client.voice.mutations.hangup(created.id)
