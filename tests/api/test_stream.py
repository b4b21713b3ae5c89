"""The live event stream."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from sipagent.api.calls.backend import Originate
from sipagent.api.events import stream
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.core import clock
from sipagent.core.events import Event, EventHub, ProcessStarted
from sipagent.core.ids import new_call_id

from .conftest import KEY, Http
from .node import Node

STREAM = "/api/v1/events/stream"


class Watcher:
    def __init__(self, response: Any) -> None:
        self.response = response

    async def next(self) -> dict[str, str]:
        """The next message, its fields by name; a comment is under ""."""
        message: dict[str, str] = {}
        while True:
            raw = await asyncio.wait_for(self.response.content.readline(), 5)
            if not raw:
                raise EOFError
            line = raw.decode().rstrip("\n")
            if not line:
                return message
            name, _, value = line.partition(": ")
            message[name.rstrip(":")] = value

    async def events(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        while True:
            message = await self.next()
            if "data" in message:
                data = json.loads(message["data"])
                assert (message["event"], message["id"]) == (data["type"], data["id"])
                yield message["event"], data


async def watch(http: Http, **params: str) -> Watcher:
    response = await http.session.get(http.url + STREAM, params=params, headers={"x-api-key": KEY})
    assert response.status == 200 and response.content_type == "text/event-stream"
    watcher = Watcher(response)
    assert "" in await watcher.next()  # "connected": from here on nothing is missed
    return watcher


async def test_events_arrive_as_they_happen_with_their_private_fields(http: Http, node: Node) -> None:
    watcher = await watch(http)
    call_id = new_call_id()
    node.begins(call_id, "+49301", "+49302", "front-desk")
    node.says(call_id, "when do you open")
    await node.hangup(call_id)
    seen = []
    async for name, data in watcher.events():
        seen.append(name)
        assert data["call_id"] == call_id
        if name == "CallCreated":
            assert data["data"]["from_number"] == "+49301"
        if name == "TurnEnded":
            assert data["data"]["caller_text"] == "when do you open"
        if name == "CallEnded":
            assert data["data"]["termination"]["cause"] == "normal"
            break
    assert seen == [
        *("CallCreated", "LegCreated", "RouteChosen", "LegAnswered"),
        *("PartialTranscript", "TurnEnded", "LegEnded", "CallEnded"),
    ]
    watcher.response.close()


async def test_the_stream_and_the_record_name_events_alike(http: Http, node: Node) -> None:
    watcher = await watch(http)
    call_id = new_call_id()
    node.begins(call_id, "+49301", "+49302", "front-desk")
    streamed = [(await anext(aiter(watcher.events())))[1] for _ in range(4)]
    await node.recorder.flush()
    recorded = (await http.get(f"/api/v1/voice/calls/{call_id}/record")).body["events"]
    assert recorded == streamed
    watcher.response.close()


async def test_one_calls_events_only(http: Http, node: Node) -> None:
    wanted, other = new_call_id(), new_call_id()
    watcher = await watch(http, call_id=wanted)
    node.begins(other, "1", "2", "front-desk")
    node.hub.emit(ProcessStarted(at=clock.now(), process="lane", pid=1))
    node.begins(wanted, "1", "2", "front-desk")
    _, data = await anext(aiter(watcher.events()))
    assert data["call_id"] == wanted
    watcher.response.close()


async def test_a_quiet_stream_shows_that_it_is_alive(http: Http) -> None:
    watcher = await watch(http)
    assert await watcher.next() == {"": "still here"}
    watcher.response.close()


async def test_events_from_another_thread_arrive(http: Http, node: Node) -> None:
    watcher = await watch(http)
    event = ProcessStarted(at=clock.now(), process="lane", pid=1)
    thread = threading.Thread(target=node.hub.emit, args=(event,))
    thread.start()
    thread.join()
    name, data = await anext(aiter(watcher.events()))
    assert (name, data["data"]["pid"], data["call_id"]) == ("ProcessStarted", 1, None)
    watcher.response.close()


async def test_a_client_that_does_not_read_is_disconnected_and_the_others_stay(
    http: Http, node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = await watch(http)
    awake = await watch(http)
    seen = 0
    for number in range(40):
        for index in range(500):
            node.hub.emit(ProcessStarted(at=clock.now(), process="x" * 1000, pid=number * 500 + index))
        async for _, data in awake.events():
            assert data["data"]["pid"] == seen
            seen += 1
            if seen == (number + 1) * 500:
                break
        if "slow client of the event stream disconnected" in caplog.messages:
            break
    assert "slow client of the event stream disconnected" in caplog.messages
    assert seen >= stream.QUEUE_EVENTS
    with pytest.raises((EOFError, aiohttp.ClientError)):
        while True:
            await lazy.next()
    awake.response.close()


async def test_only_so_many_may_watch_and_a_place_is_free_again(http: Http, node: Node) -> None:
    watchers = [await watch(http) for _ in range(3)]
    refused = await http.get(STREAM)
    assert refused.status == 503
    for watcher in watchers:
        watcher.response.close()
    for _ in range(50):
        again = await http.session.get(http.url + STREAM, headers={"x-api-key": KEY})
        again.close()
        if again.status == 200:
            break
        await asyncio.sleep(0.1)
    assert again.status == 200


async def test_closing_the_server_ends_the_streams_after_what_they_are_owed(
    server: ApiServer, http: Http, node: Node
) -> None:
    watcher = await watch(http)
    node.hub.emit(ProcessStarted(at=clock.now(), process="lane", pid=7))
    began = clock.mono_ns()
    await server.close()
    assert (clock.mono_ns() - began) / 1e9 < 1.5
    name, _ = await anext(aiter(watcher.events()))
    assert name == "ProcessStarted"
    with pytest.raises(EOFError):
        await watcher.next()


class CountingHub(EventHub):
    def __init__(self) -> None:
        super().__init__()
        self.watched = 0

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        unsubscribe = super().subscribe(subscriber)
        self.watched += 1

        def leave() -> None:
            self.watched -= 1
            unsubscribe()

        return leave


async def test_the_hub_is_listened_to_only_while_somebody_watches(node: Node, settings: ApiSettings) -> None:
    hub = CountingHub()
    server = ApiServer(settings, node.backend, hub)
    await server.start()
    others = hub.watched
    async with aiohttp.ClientSession() as session:
        watchers = [await watch(Http(server.url, session)) for _ in range(2)]
        assert hub.watched == others + 1
        for watcher in watchers:
            watcher.response.close()
        for _ in range(50):
            if hub.watched == others:
                break
            await asyncio.sleep(0.1)
        assert hub.watched == others
    await server.close()


async def test_an_unknown_parameter_is_refused(http: Http) -> None:
    assert (await http.get(STREAM, params={"colour": "red"})).status == 422


async def test_by_websocket_each_event_is_a_message(http: Http, node: Node) -> None:
    url, headers = http.url.replace("http", "ws", 1) + "/api/v1/events/ws", {"x-api-key": KEY}
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await http.session.ws_connect(url)
    async with http.session.ws_connect(url, headers=headers) as every:
        call_id = await node.originate(Originate(to_number="100"))
        async with http.session.ws_connect(url, headers=headers, params={"call_id": call_id}) as one:
            other = await node.originate(Originate(to_number="101"))
            await node.hangup(call_id)
            seen = [await every.receive_json(timeout=10)]
            while seen[-1]["type"] != "CallEnded":
                seen.append(await every.receive_json(timeout=10))
            assert {event["call_id"] for event in seen} == {call_id, other}
            assert {"id", "type", "call_id", "leg_id", "at", "data"} == set(seen[0])
            assert (await one.receive_json(timeout=10))["type"] == "LegEnded"
            assert (await one.receive_json(timeout=10))["type"] == "CallEnded"
        async with http.session.get(http.url + "/api/v1/events/ws", headers=headers) as response:
            assert response.status == 426 and "websocket" in (await response.json())["message"]


async def test_a_websocket_that_sends_too_much_is_ended(http: Http) -> None:
    url = http.url.replace("http", "ws", 1) + "/api/v1/events/ws"
    async with http.session.ws_connect(url, headers={"x-api-key": KEY}) as ws:
        await ws.send_str("x" * 100_000)
        assert (await ws.receive(timeout=10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
