"""Callers handed on and joined, through the whole node: SIPp on both sides, audio on the wire, steps on record."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipagent.media import g711
from sipagent.store.records import FullCall
from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.speech.prompts import prompts
from tests.system.node import DIALPLAN, Node
from tests.system.test_calls import originate
from tests.system.wire import Capture, Packet

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(300)]

WHISPER = "Here is somebody who wants to cancel an order."


def dialplan(desk: Sipp, person: Sipp, busy: Sipp) -> str:
    more = f"""\
  dial: [dial: "{desk.uri}"]
  refused: [transfer: "{person.uri}"]
  told: [transfer: {{target: "{desk.uri}", whisper: "{WHISPER}"}}]
  busy: [transfer: {{target: "{busy.uri}", via: bridge}}, say: "Nobody is there."]
  early: [ring: 0.3, say: {{text: "This number is not in service.", early: true}}, reject: 480]
"""
    routes = "".join(f'  - {{name: {name}, called: ["{name}"], steps: {name}}}\n' for name in ("dial", "early"))
    return DIALPLAN.replace("routes:\n", "routes:\n" + routes, 1).replace("steps:\n", "steps:\n" + more, 1)


def states(record: FullCall) -> list[str]:
    return [str(step.state) for step in record.transfers]


def loud(wire: Capture, wanted: Callable[[Packet], bool]) -> int:
    """Packets of speech."""
    return sum(packet.loud for packet in wire.packets if packet.payload_type in (0, 8) and wanted(packet))


def speech(folder: Path) -> Path:
    pcm = np.concatenate([prompt.pcm for prompt in prompts(3)])
    path = folder / "speech.ulaw"
    path.write_bytes(g711.encode(0, pcm[: len(pcm) // 160 * 160].astype(np.int16)).tobytes())
    return path


async def test_callers_are_joined_handed_on_and_come_back(tmp_path: Path) -> None:
    desk = Sipp("uas-outbound-answered.xml", calls=2, timeout_s=90, args=["-rtp_echo"])
    person = Sipp("uas-outbound-callee-hangs-up.xml", timeout_s=90)
    busy = Sipp("uas-outbound-busy-486.xml", timeout_s=90)
    async with desk, person, busy, Node(dialplan=dialplan(desk, person, busy)) as node:
        low, high = node.media_port, node.media_port + 255

        # Joined: what the caller says reaches the desk, which sends it back. The caller's codec is another one.
        with Capture(low, high) as wire:
            caller = await sipp.run(
                "uac-inbound-plays-speech.xml",
                target=node.target,
                service="dial",
                speech=speech(tmp_path),
                duration_ms=4000,
                timeout_s=30,
            )
        caller.check()
        assert caller.received("SIP/2.0 180"), "the caller hears it ring"
        (record,) = await node.ended(1)
        assert [(leg.direction, leg.codec, leg.disposition) for leg in record.call.legs] == [
            ("inbound", "PCMU", "answered"),
            ("outbound", "PCMA", "answered"),
        ]
        assert (record.call.cause, record.call.ended_by) == ("normal", "caller")
        assert [leg.ended_by for leg in record.call.legs] == ["caller", "caller"]
        to_desk = loud(wire, lambda packet: packet.target == desk.media_port)
        back = loud(wire, lambda packet: low <= packet.source <= high and packet.target != desk.media_port)
        assert to_desk > 50 and back > 50, f"{to_desk} loud packets to the desk, {back} back to the caller"

        # The peer knows no REFER: we ring the target ourselves and stay in the middle.
        async with Sipp("uas-outbound-refer-expect-405.xml", timeout_s=30) as first:
            call_id = await originate(node, first.uri, "refused")
            (await first.wait()).check()
        (await person.wait()).check()
        await node.ended(2)
        record = node.record(call_id)
        assert states(record) == ["requested", "referred", "refused", "dialling", "consulting", "completed"]
        assert [step.kind for step in record.transfers][-1] == "bridge" and record.transfers[2].sip_status == 405
        assert (record.call.cause, record.call.ended_by, len(record.call.legs)) == ("normal", "callee", 2)

        # Attended: the desk is told, then the first party is sent to it with Replaces.
        with Capture(low, high) as wire:
            async with Sipp("uas-outbound-transfer-attended.xml", timeout_s=40) as first:
                call_id = await originate(node, first.uri, "told")
                (await first.wait()).check()
        (await desk.wait()).check()
        await node.ended(3)
        record = node.record(call_id)
        assert states(record)[:5] == ["requested", "dialling", "consulting", "whispered", "referred"]
        assert states(record)[-1] == "completed" and {step.kind for step in record.transfers} == {"attended"}
        assert record.call.cause == "transferred"
        assert loud(wire, lambda packet: packet.target == desk.media_port) > 50, "the whisper"
        assert loud(wire, lambda packet: packet.target == first.media_port) > 50, "hold music"

        # The target is busy: the next step follows.
        async with Sipp("uas-outbound-answered.xml", timeout_s=40) as first:
            call_id = await originate(node, first.uri, "busy")
            (await first.wait()).check()
        (await busy.wait()).check()
        await node.ended(4)
        record = node.record(call_id)
        assert (states(record)[-1], record.transfers[-1].reason) == ("failed", "the line is busy")
        assert [turn.heard_text for turn in record.turns] == ["Nobody is there."]
        assert [leg.disposition for leg in record.call.legs] == ["answered", "busy"]

        # An announcement before the answer, and no answer.
        with Capture(low, high) as wire:
            result = await sipp.run("uac-early-announcement-expect-480.xml", target=node.target, service="early")
        result.check()
        record = (await node.ended(5))[0]
        assert (record.call.disposition, record.call.sip_status) == ("rejected", 480)
        assert record.call.answered_at is None and record.turns[0].heard_text == "This number is not in service."
        assert loud(wire, lambda packet: low <= packet.source <= high) > 20
        assert await node.stop() == 0
    shutil.rmtree(tmp_path, ignore_errors=True)


async def ordered(node: Node, call_id: str, order: str, body: dict[str, Any]) -> int:
    async with node.http.post(f"/api/v1/voice/calls/{call_id}/{order}", json=body) as response:
        return response.status


async def test_orders_by_the_api() -> None:
    async with Node() as node:

        async def answered(count: int) -> bool:
            async with node.http.get("/api/v1/live-calls") as response:
                return sum(bool(call["answered_at"]) for call in (await response.json())["data"]) == count

        # Hold and resume by re-INVITE.
        async with Sipp("uas-outbound-hold-resume.xml", timeout_s=30) as callee:
            call_id = await originate(node, callee.uri, "talk")
            await node.until(lambda: answered(1), 30)
            assert await ordered(node, call_id, "resume", {}) == 409
            assert await ordered(node, call_id, "hold", {}) == 200
            await asyncio.sleep(1.0)
            assert await ordered(node, call_id, "resume", {}) == 200
            await asyncio.sleep(0.5)
            assert await ordered(node, call_id, "hangup", {}) == 200
            (await callee.wait()).check()

        # Two calls joined, and somebody who listens in.
        one = Sipp("uas-outbound-answered.xml", timeout_s=40, args=["-rtp_echo"])
        other = Sipp("uas-outbound-callee-hangs-up.xml", timeout_s=40)
        boss = Sipp("uas-outbound-answered.xml", timeout_s=40)
        async with one, boss:
            first = await originate(node, one.uri, "talk")
            await node.until(lambda: answered(1), 30)
            guest = {"to_number": boss.uri, "part": "listen"}
            assert await ordered(node, first, "participants", guest) == 200

            async def three_legs() -> bool:
                legs = node.record(first).call.legs
                return len(legs) == 2 and legs[1].answered_at is not None

            await node.until(three_legs, 30)
            async with other:
                second = await originate(node, other.uri, "talk")
                await node.until(lambda: answered(2), 30)
                assert await ordered(node, first, "bridge", {"call_id": second}) == 200
                (await other.wait()).check()
            (await one.wait()).check()
            (await boss.wait()).check()
        await node.ended(3)
        record = node.record(first)
        assert record.call.detail == "the call it was joined with has ended"
        assert [leg.disposition for leg in record.call.legs] == ["answered", "answered"]
        assert await node.stop() == 0


TRUNK = """
[[trunks]]
name = "pbx"
register = false
peers = ["127.0.0.1"]
domain = "127.0.0.1:{port}"
options_s = 0
follow_refer = ["2??"]
"""


async def test_a_peer_sends_us_elsewhere_and_another_takes_its_place() -> None:
    target = Sipp("uas-outbound-callee-hangs-up.xml", timeout_s=60)
    async with target, Node(extra=TRUNK.format(port=target.port)) as node:
        # REFER: the agent goes on with whom it was sent to.
        (await sipp.run("uac-refer-followed.xml", target=node.target, service="talk", timeout_s=30)).check()
        (await target.wait()).check()
        (record,) = await node.ended(1)
        assert [(step.kind, step.state) for step in record.transfers] == [
            ("received", "requested"),
            ("received", "dialling"),
            ("received", "completed"),
        ]
        assert [(leg.to_number, leg.cause) for leg in record.call.legs] == [("talk", "transferred"), ("200", "normal")]
        assert (record.call.cause, record.call.ended_by) == ("normal", "callee")

        # The same from one who hangs up without waiting for the outcome.
        async with Sipp("uas-outbound-callee-hangs-up.xml", port=target.port, timeout_s=60) as again:
            refer = "uac-refer-hangs-up-at-once.xml"
            (await sipp.run(refer, target=node.target, service="talk", timeout_s=30)).check()
            (await again.wait()).check()
        record = (await node.ended(2))[0]
        assert record.transfers[-1].state == "completed"
        assert [(leg.to_number, leg.ended_by) for leg in record.call.legs] == [("talk", "caller"), ("200", "callee")]
        assert record.call.ended_by == "callee"

        # INVITE with Replaces: the agent goes on with whom took the caller's place.
        first = Sipp("uac-inbound-agent-hangs-up.xml", target=node.target, service="talk", timeout_s=30)
        await first.start()

        async def up() -> bool:
            async with node.http.get("/api/v1/live-calls") as response:
                return any(call["answered_at"] for call in (await response.json())["data"])

        await node.until(up, 30)
        dialog = first.dialog()
        second = await sipp.run("uac-replaces.xml", target=node.target, args=["-key", "replaces", dialog], timeout_s=20)
        second.check()
        (await first.wait()).check()
        record = (await node.ended(3))[0]
        assert [(leg.direction, leg.cause) for leg in record.call.legs] == [
            ("inbound", "transferred"),
            ("inbound", "normal"),
        ]
        assert record.transfers[-1].state == "completed" and record.call.ended_by == "caller"
        assert await node.stop() == 0
