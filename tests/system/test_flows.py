"""Calls that flow URLs treat, through the whole node: SIPp is the phone, a real web server the app."""

import asyncio
import io
import os
import signal
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from standardwebhooks import Webhook
from teler.flows import CallFlow

from sipagent.media import g711
from sipagent.store.records import FullCall
from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.system.node import DIALPLAN, Node
from tests.system.wire import Capture
from tests.web.receiver import Asked, Receiver, receiving

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(300)]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
APPS_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
EXTRA = f"""
[web]
allow = ["127.0.0.0/8"]
flow_timeout_s = 1.0
flow_steps = 5
secret = "{SECRET}"

[[apps]]
name = "crm"
flow_url = "{{url}}/app"
fallback_url = "{{url}}/app-fallback"
webhook_url = "{{url}}/app-hook"
webhook_secret = "{APPS_SECRET}"

[[numbers]]
number = "700"
app = "crm"
"""


def tone(hz: float, seconds: float) -> bytes:
    raw = io.BytesIO()
    pcm = np.rint(9000 * np.sin(2 * np.pi * hz * np.arange(int(8000 * seconds)) / 8000)).astype("<i2")
    with wave.open(raw, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    return raw.getvalue()


SOUNDS = {"/low.wav": 400.0, "/high.wav": 1000.0, "/music.wav": 700.0}


def heard(wire: Capture, port: int, sound: str) -> float:
    """Seconds of this tone that went to the port."""
    packets = [packet for packet in wire.packets if packet.target == port and packet.payload_type in (0, 8)]
    found = 0
    for packet in packets:
        pcm = g711.decode(packet.payload_type, np.frombuffer(packet.payload, np.uint8)).astype(np.float64)
        if packet.loud and len(pcm) == 160:
            found += bool(abs(np.argmax(np.abs(np.fft.rfft(pcm))) * 50 - SOUNDS[sound]) <= 50)
    return found / 50


def dialplan(url: str) -> str:
    ways = {
        "late": f"{url}/late",
        "failing": f"{url}/failing",
        "garbage": f"{url}/garbage",
        "much": f"{url}/much",
        "inside": "http://10.1.2.3/flow",
        "elsewhere": f"{url}/elsewhere",
    }
    more = "".join(
        f'  {name}: [webhook: {{url: "{way}", fallback_url: "{url}/fallback"}}]\n' for name, way in ways.items()
    )
    more += f"""\
  tiers:
    - set: {{tier: "none", who: "{{call.direction}}"}}
    - webhook: "{url}/tier"
    - wait: 0.1
    - if: {{value: "{{tier}} {{who}}", is: "gold out*", then: gold, else: refuse}}
  gold: [play: "{url}/high.wav", goto: hello]
"""
    return DIALPLAN.replace("steps:\n", "steps:\n" + more, 1)


class Site:
    """A node and the web server of its app."""

    def __init__(self, node: Node, app: Receiver) -> None:
        self.node = node
        self.app = app

    async def call(self, callee: Sipp, **how: Any) -> FullCall:
        """Places a call, and waits for its end; the record."""
        call_id = await self.place(callee, **how)
        (await callee.wait()).check()
        return await self.ended(call_id)

    async def place(self, callee: Sipp, **how: Any) -> str:
        body = {"to_number": callee.uri, **how}
        async with self.node.http.post("/api/v1/voice/calls/initiate", json=body) as response:
            answer = await response.json()
            assert response.status == 201, answer
            return str(answer["id"])

    async def ended(self, call_id: str) -> FullCall:
        async def over() -> bool:
            return any(call.id == call_id and call.ended_at is not None for call in self.node.calls())

        await self.node.until(over, 20)
        return self.node.record(call_id)


def flows(record: FullCall) -> list[tuple[str, bool, str]]:
    """What each asking came to: the action, whether it was the fallback, why it was of no use."""
    found = [event.data for event in record.events if event.type == "FlowAnswered"]
    return [(data["action"], data["fallback"], data["problem"]) for data in found]


def callee(scenario: str = "uas-outbound-answered.xml") -> Sipp:
    return Sipp(scenario, timeout_s=40)


async def test_calls_do_what_the_app_says() -> None:
    """One node, one call after another: a node takes seconds to start."""
    async with receiving() as app:
        for path, hz in SOUNDS.items():
            app.answers[path] = tone(hz, 1.0)
        async with Node(extra=EXTRA.format(url=app.url), dialplan=dialplan(app.url)) as node:
            site = Site(node, app)
            await plays_then_asks_again(site)
            await rings_somebody(site)
            await nobody_is_reached(site)
            await asks_the_fallback(site)
            await is_refused_without_any(site)
            await asks_no_more_than_it_may(site)
            await decides_in_the_dialplan(site)
            await comes_back_from_a_transfer(site)
            await an_app_takes_its_number(site)
            await callbacks_survive_a_death(site)
            assert "10.1.2.3" not in node.log.read_text() and "low.wav" not in node.log.read_text()
            assert await node.stop() == 0


async def plays_then_asks_again(site: Site) -> None:
    app, url = site.app, site.app.url
    app.answers["/first"] = CallFlow.play(f"{url}/low.wav", flow_url="/second")
    app.answers["/second"] = CallFlow.hangup()
    async with callee() as phone:
        with Capture(phone.media_port, phone.media_port + 3) as wire:
            record = await site.call(phone, flow_url=f"{url}/first", from_number="+49301")
    assert 0.8 <= heard(wire, phone.media_port, "/low.wav") <= 1.1
    assert flows(record) == [("play", False, ""), ("hangup", False, "")]
    assert (record.call.cause, record.call.ended_by, record.call.dialplan) == ("normal", "agent", "flow")
    (asked,) = app.of("/first")
    assert asked.method == "POST" and asked.json == {
        "call_id": record.call.id,
        "account_id": "default",
        "from_number": "+49301",
        "to_number": record.call.to_number,
        "direction": "outbound",
    }
    verify(asked, SECRET)
    assert len(app.of("/second")) == 1


def verify(asked: Asked, secret: str) -> None:
    """By the package of the specification's authors."""
    headers = {name.lower(): value for name, value in asked.headers.items()}
    Webhook(secret).verify(asked.body.decode(), headers)


async def rings_somebody(site: Site) -> None:
    url = site.app.url
    async with callee() as phone, callee("uas-outbound-callee-hangs-up.xml") as desk:
        site.app.answers["/dial"] = CallFlow.dial(
            desk.uri,
            custom_headers={"X-Order": "7"},
            confirm_sound={"action": "play", "media_url": f"{url}/high.wav"},
            dial_music={"action": "play", "media_url": f"{url}/music.wav"},
        )
        with Capture(desk.media_port, desk.media_port + 3) as wire:
            record = await site.call(phone, flow_url=f"{url}/dial")
        result = await desk.wait()
    assert [leg.disposition for leg in record.call.legs] == ["answered", "answered"]
    assert heard(wire, desk.media_port, "/high.wav") > 0.1, "whoever answers hears the sound before the caller comes"
    assert "X-Order: 7" in result.received("INVITE")[0]


async def nobody_is_reached(site: Site) -> None:
    url = site.app.url
    sound = {"action": "play", "media_url": f"{url}/low.wav"}
    async with callee() as phone, callee("uas-outbound-busy-486.xml") as busy:
        site.app.answers["/busy"] = CallFlow.dial(busy.uri, on_busy=sound, on_failure={"action": "hangup"})
        with Capture(phone.media_port, phone.media_port + 3) as wire:
            record = await site.call(phone, flow_url=f"{url}/busy")
    assert heard(wire, phone.media_port, "/low.wav") > 0.8
    assert [leg.disposition for leg in record.call.legs] == ["answered", "busy"]
    async with callee() as phone, callee("uas-outbound-no-answer.xml") as nobody:
        site.app.answers["/none"] = CallFlow.dial(nobody.uri, timeout=1, on_no_answer=sound)
        with Capture(phone.media_port, phone.media_port + 3) as wire:
            record = await site.call(phone, flow_url=f"{url}/none")
    assert heard(wire, phone.media_port, "/low.wav") > 0.8
    assert [leg.disposition for leg in record.call.legs] == ["answered", "no_answer"]
    async with callee() as phone:
        site.app.answers["/gone"] = CallFlow.dial("sip:x@127.0.0.1:9", timeout=2, on_failure={"action": "hangup"})
        record = await site.call(phone, flow_url=f"{url}/gone")
    assert record.call.ended_by == "agent"


async def asks_the_fallback(site: Site) -> None:
    app = site.app
    app.answers["/late"], app.slow["/late"] = CallFlow.hangup(), 5.0
    app.answers["/failing"] = 500
    app.answers["/garbage"] = b"<html>It works!</html>"
    app.answers["/much"] = b" " * (70 << 10)
    app.answers["/elsewhere"] = see_other("http://169.254.169.254/latest")
    app.answers["/fallback"] = CallFlow.hangup()
    why = {
        "late": "no answer within 1 s",
        "failing": "answered 500",
        "garbage": "not JSON",
        "much": "longer than 65536 bytes",
        "inside": "[web] allow",
        "elsewhere": "[web] allow",
    }
    for name, words in why.items():
        async with callee() as phone:
            record = await site.call(phone, dialplan=name)
        (_, _, problem), second = flows(record)
        assert words in problem and second == ("hangup", True, ""), name
    assert len(app.of("/fallback")) == len(why)


def see_other(where: str) -> Callable[[Any], Any]:
    from aiohttp import web

    return lambda _asked: web.Response(status=307, headers={"Location": where})


async def is_refused_without_any(site: Site) -> None:
    async with callee() as phone:
        record = await site.call(phone, flow_url="http://[::1]:1/flow")
    assert (record.call.cause, record.call.ended_by) == ("error", "system")
    assert record.call.detail == "no flow URL had an answer that can be used"


async def asks_no_more_than_it_may(site: Site) -> None:
    """An app that sends the call round in circles."""
    app = site.app
    app.answers["/short.wav"] = tone(400, 0.02)
    app.answers["/circle"] = CallFlow.play(f"{app.url}/short.wav", flow_url="/circle")
    async with callee() as phone:
        record = await site.call(phone, flow_url=f"{app.url}/circle")
    assert len(app.of("/circle")) == 5 and record.call.cause == "error"


async def decides_in_the_dialplan(site: Site) -> None:
    app = site.app
    app.answers["/tier"] = {"action": "continue", "variables": {"tier": "gold"}}
    async with callee() as phone:
        with Capture(phone.media_port, phone.media_port + 3) as wire:
            record = await site.call(phone, dialplan="tiers")
    assert heard(wire, phone.media_port, "/high.wav") > 0.8
    assert [turn.heard_text for turn in record.turns] == ["Hello, this is a short message."]
    assert app.of("/tier")[0].json["variables"] == {"tier": "none", "who": "outbound"}


async def comes_back_from_a_transfer(site: Site) -> None:
    """`on_failure` of the API's transfer, then what the caller was at."""
    url, node = site.app.url, site.node
    async with callee() as phone, callee("uas-outbound-busy-486.xml") as busy:
        with Capture(phone.media_port, phone.media_port + 3) as wire:
            call_id = await site.place(phone, dialplan="listen")

            async def answered() -> bool:
                async with node.http.get("/api/v1/live-calls") as response:
                    return any(call["answered_at"] for call in (await response.json())["data"])

            await node.until(answered, 30)
            transfer = {
                "target": {"kind": "sip", "uri": busy.uri},
                "via": "bridge",
                "on_failure": {"action": "play", "media_url": f"{url}/high.wav"},
            }
            async with node.http.post(f"/api/v1/voice/calls/{call_id}/transfer", json=transfer) as response:
                assert response.status == 200, await response.text()

            async def told() -> bool:
                return heard(wire, phone.media_port, "/high.wav") > 0.8

            await node.until(told, 15)
            async with node.http.post(f"/api/v1/voice/calls/{call_id}/hangup", json={}) as response:
                assert response.status == 200
            (await phone.wait()).check()
    record = await site.ended(call_id)
    assert [str(step.state) for step in record.transfers][-1] == "failed"


async def an_app_takes_its_number(site: Site) -> None:
    """An inbound call: the app's flow URL, its fallback, its webhook, its secret."""
    app, node = site.app, site.node
    app.answers["/app"] = 503
    app.answers["/app-fallback"] = CallFlow.play(f"{app.url}/low.wav")
    (await sipp.run("uac-inbound-agent-hangs-up.xml", target=node.target, service="700", timeout_s=30)).check()
    (asked,) = app.of("/app-fallback")
    assert (asked.json["direction"], asked.json["to_number"]) == ("inbound", "700")
    verify(asked, APPS_SECRET)

    async def told() -> bool:
        return bool(app.of("/app-hook")) and app.of("/app-hook")[-1].json["type"] == "call.ended"

    await node.until(told, 15)
    hooks = app.of("/app-hook")
    for one in hooks:
        verify(one, APPS_SECRET)
    kinds = [one.json["type"] for one in hooks]
    assert kinds[:2] == ["call.created", "leg.created"] and kinds[-2:] == ["leg.ended", "call.ended"]
    assert {one.json["call_id"] for one in hooks} == {asked.json["call_id"]}


async def callbacks_survive_a_death(site: Site) -> None:
    """`kill -9` of the main process with webhooks that nobody has taken yet: all come, once each, in order."""
    app, node = site.app, site.node
    app.answers["/status"] = 503
    async with callee() as phone:
        call_id = await site.place(phone, dialplan="listen", status_callback_url=f"{app.url}/status")

        async def tried() -> bool:
            return bool(app.of("/status")) and node.record(call_id).call.answered_at is not None

        await node.until(tried, 15)
        await asyncio.sleep(1)  # what happens within 250 ms of a death may be told of twice: docs/survival.md
        main = (await node.pids())["main"]
        os.kill(main, signal.SIGKILL)

        async def another() -> bool:
            try:
                return (await node.pids())["main"] != main
            except OSError:
                return False

        await node.until(another, 20)
        await node.until(node.ready, 30)
        app.answers["/status"] = 204
        async with node.http.post(f"/api/v1/voice/calls/{call_id}/hangup", json={}) as response:
            assert response.status == 200
        (await phone.wait()).check()

    async def all_taken() -> bool:
        async with node.http.get(f"/api/v1/events?call_id={call_id}") as response:
            page = (await response.json())["data"]
        return (
            bool(page) and page[0]["type"] == "call.ended" and {it["delivery_status"] for it in page} == {"delivered"}
        )

    await node.until(all_taken, 90)
    taken = list(dict.fromkeys((one.json["id"], one.json["type"]) for one in app.of("/status")))
    kinds = [kind for _, kind in taken]
    assert kinds[0] == "call.created" and kinds[-3:] == ["leg.answered", "leg.ended", "call.ended"]
    assert len(kinds) == len(set(kinds)), "each once"
