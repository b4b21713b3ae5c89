"""Webhooks to a real receiver, and `events` by the Teler SDK."""

import asyncio
import hashlib
import hmac
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from typing import Any

import pytest
import teler
from aiohttp import web
from teler import exceptions

from sipagent.api.server import ApiServer
from sipagent.backend.webhooks import PER_HOST
from sipagent.calls.hooks import Hooks
from sipagent.core import clock
from sipagent.core.events import CallbackWanted, WebhookDue
from sipagent.core.ids import CallId, new_call_id
from tests.web.receiver import Asked, Receiver, receiving

from .conftest import KEY, KEY_OF_APPS, Http
from .node import Node

EVENTS = "/api/v1/events"


@pytest.fixture
async def receiver(node: Node) -> AsyncIterator[Receiver]:
    def due(event: WebhookDue) -> None:
        node.recorder.emit(event)
        assert node.webhooks is not None
        node.webhooks.due()

    node.hub.subscribe(Hooks(lambda _app: "", due).take)
    async with receiving() as receiver:
        yield receiver


def call(node: Node, *urls: str) -> CallId:
    """One that is answered at once, with these callbacks."""
    call_id = new_call_id()
    node.begins(call_id, "+49301", "+49302", "front-desk")
    for url in urls:
        node.hub.emit(CallbackWanted(at=clock.now(), call_id=call_id, url=url, later=False))
    return call_id


async def until(condition: Callable[[], Awaitable[bool] | bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


def types(asked: list[Asked]) -> list[str]:
    return [one.json["type"] for one in asked]


async def test_a_calls_webhooks_arrive_in_order_signed_and_whole(node: Node, http: Http, receiver: Receiver) -> None:
    refused: list[str] = []

    def busy_at_first(asked: Asked) -> int:
        refused.append(asked.json["id"])
        return 503 if len(refused) <= 2 else 204

    receiver.answers["/hook"] = busy_at_first
    call_id = call(node, receiver.url + "/hook")
    await node.hangup(call_id)
    await until(lambda: len(receiver.of("/hook")) == 5)
    asked = receiver.of("/hook")
    assert len(set(refused[:3])) == 1  # the first one, until it was taken
    assert types(asked[2:]) == ["call.created", "leg.ended", "call.ended"]
    for one in asked:
        verify(one)
    body = asked[-1].json
    assert (body["call_id"], body["data"]["termination"]["cause"]) == (call_id, "normal")

    async def delivered() -> bool:
        page = (await http.get(f"{EVENTS}?call_id={call_id}")).body
        return [one["delivery_status"] for one in page["data"]] == ["delivered"] * 3

    await until(delivered)
    page = (await http.get(f"{EVENTS}?call_id={call_id}")).body
    assert [one["attempt_count"] for one in page["data"]] == [1, 1, 3]
    assert page["data"][0]["payload"] == body and page["data"][2]["last_status_code"] == 204


def verify(asked: Asked) -> None:
    """By the specification's text alone: standardwebhooks.com."""
    headers = {name.lower(): value for name, value in asked.headers.items()}
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    assert message_id == asked.json["id"] and abs(time.time() - int(timestamp)) < 60
    signed = hmac.new(KEY_OF_APPS, f"{message_id}.{timestamp}.".encode() + asked.body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + b64encode(signed).decode()


async def test_a_slow_receiver_keeps_nobody_else_waiting(node: Node, receiver: Receiver) -> None:
    receiver.slow["/slow"] = 60.0
    async with receiving() as other:
        for _ in range(PER_HOST + 8):
            call(node, receiver.url + "/slow")
        await until(lambda: len(receiver.of("/slow")) == PER_HOST)
        call(node, other.url + "/quick")
        await until(lambda: types(other.of("/quick")) == ["call.created"])
        assert len(receiver.of("/slow")) == PER_HOST  # no more at once


async def test_a_receiver_that_wants_no_more_gets_no_more_until_it_takes_one(
    node: Node, server: ApiServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teler.constants, "TELER_BASE_URL", server.url + "/api/v1")
    url = receiver.url + "/gone"
    receiver.answers["/gone"] = 410
    async with teler.clients.AsyncClient(api_key=KEY, base_url=server.url + "/api/v1") as client:

        async def states(*wanted: str) -> None:
            async def are() -> bool:
                page = await client.events.list()
                return sorted(one.delivery_status for one in page.data) == sorted(wanted)

            await until(are)

        for count in range(3):
            call(node, url)
            await states(*["failed"] * (count + 1))
        call(node, url)
        await states("failed", "failed", "failed", "disabled")
        assert len(receiver.of("/gone")) == 3
        off = (await client.events.list(delivery_status="disabled")).data[0]
        assert off.attempt_count == 0 and "410" in off.last_error

        receiver.answers["/gone"] = 200
        again = await client.events.redeliver(off.id)
        assert again.event_id == off.id and again.redelivered_at
        await states("failed", "failed", "failed", "delivered")
        call(node, url)
        await states("failed", "failed", "failed", "delivered", "delivered")


async def test_the_clients_events(node: Node, server: ApiServer, receiver: Receiver) -> None:
    call_id = call(node, receiver.url + "/hook")
    await node.hangup(call_id)
    await until(lambda: len(receiver.of("/hook")) == 3)
    base = server.url + "/api/v1"

    def synchronous() -> None:
        with teler.clients.Client(api_key=KEY, base_url=base) as client:
            page = client.events.list(call_id=call_id, limit=2)
            assert [one.type for one in page.data] == ["call.ended", "leg.ended"] and page.has_more
            (rest,) = client.events.list(call_id=call_id, limit=2, cursor_after=page.next_cursor).data
            assert rest.type == "call.created"
            one = client.events.retrieve(page.data[0].id)
            assert {field.name for field in fields(one)} <= set(one.raw)
            assert client.events.list(type="call.ended", occurred_after="2026-01-01T00:00:00Z").data[0].id == one.id
            again = client.events.redeliver(one.id)
            assert {field.name for field in fields(again)} <= set(again.raw)
            with pytest.raises(exceptions.NotFoundException):
                client.events.retrieve("evt_none")
            with pytest.raises(exceptions.NotFoundException):
                client.events.redeliver("evt_none")

    await asyncio.to_thread(synchronous)
    await until(lambda: len(receiver.of("/hook")) == 4)
    first, second = (one.headers for one in receiver.of("/hook")[-2:])
    assert {**first}.get("webhook-id") == {**second}.get("webhook-id")  # receivers know it again


async def test_what_may_not_be_reached_is_not(node: Node, http: Http, receiver: Receiver) -> None:
    inside = call(node, "http://10.0.0.1/hook")
    moved = call(node, receiver.url + "/moved")
    receiver.answers["/moved"] = lambda _asked: web.Response(
        status=307, headers={"Location": "http://169.254.169.254/"}
    )

    async def failed(call_id: str) -> bool:
        page = (await http.get(f"{EVENTS}?call_id={call_id}")).body["data"]
        return ["not public" in (one["last_error"] or "") for one in page] == [True]

    for call_id in (inside, moved):
        await until(lambda call_id=call_id: failed(call_id))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("delivery_status=lost", "delivery_status"),
        ("cursor_after=a&cursor_before=b", "cursor_after"),
    ],
)
async def test_what_cannot_be_asked(http: Http, query: str, field: str) -> None:
    answer: Any = await http.get(f"{EVENTS}?{query}")
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, field)
