"""Calls through the whole node: in, out, refused, transferred, ended by either side."""

import asyncio
import signal
import sys
import time

import pytest

from sipagent.phone import Phone, PhoneSettings
from sipagent.speech.settings import SpeechSettings
from tests.peers import sipp
from tests.peers.ports import free_block
from tests.peers.sipp import Sipp
from tests.system.node import Node

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(180)]


async def originate(node: Node, target: str, dialplan: str) -> str:
    async with node.http.post(
        "/api/v1/voice/calls/initiate", json={"to_number": target, "dialplan": dialplan}
    ) as response:
        body = await response.json()
        assert response.status in (200, 201, 202), body
        return str(body.get("data", body)["id"])


async def test_inbound_outbound_refused_and_transferred_calls():
    """One node, one call after another: a node takes seconds to start."""
    async with Node() as node:
        # The agent says its piece and hangs up.
        (await sipp.run("uac-inbound-agent-hangs-up.xml", target=node.target, service="hello")).check()
        (first,) = await node.ended(1)
        assert (first.call.disposition, first.call.cause, first.call.ended_by) == ("answered", "normal", "agent")
        assert first.call.answered_at is not None and first.call.ended_at is not None
        assert (first.call.ended_at - first.call.answered_at).total_seconds() > 1.0  # the message takes so long

        # The caller hangs up.
        (await sipp.run("uac-inbound-answered.xml", target=node.target, service="talk", duration_ms=1500)).check()
        second = (await node.ended(2))[0]
        assert (second.call.cause, second.call.ended_by) == ("normal", "caller")
        assert second.turns[0].interrupted and second.turns[0].heard_text

        # Nobody routes this number; nothing in the offer can be spoken; the dialplan refuses.
        (await sipp.run("uac-inbound-rejected-expect-404.xml", target=node.target, service="nowhere")).check()
        third = (await node.ended(3))[0]
        assert (third.call.disposition, third.call.cause, third.call.sip_status) == ("rejected", "no_route", 404)
        (await sipp.run("uac-inbound-no-common-codec-expect-488.xml", target=node.target, service="hello")).check()

        # Out: answered, busy, nobody answers.
        async with Sipp("uas-outbound-answered.xml", timeout_s=30) as callee:
            call_id = await originate(node, callee.uri, "hello")
            (await callee.wait()).check()
        await node.ended(4)
        answered = node.record(call_id)
        assert (answered.call.direction, answered.call.cause, answered.call.ended_by) == ("outbound", "normal", "agent")
        assert answered.call.legs[0].codec == "PCMA"  # as the scenario answers
        async with Sipp("uas-outbound-busy-486.xml", timeout_s=20) as callee:
            call_id = await originate(node, callee.uri, "hello")
            (await callee.wait()).check()
        await node.ended(5)
        busy = node.record(call_id).call
        assert (busy.disposition, busy.cause, busy.sip_status, busy.ended_by) == ("busy", "busy", 486, "callee")

        # The proof of it: what went over the wire, to the ACK that follows the end.
        async def acknowledged() -> bool:
            async with node.http.get(f"/api/v1/voice/calls/{call_id}/sip") as response:
                messages = (await response.json())["data"]
            steps = [(message["sent"], message["status"] or message["method"]) for message in messages]
            return steps[:1] + steps[-2:] == [(True, "INVITE"), (False, 486), (True, "ACK")]

        await node.until(acknowledged, 30)

        # The API ends a call.
        async with Sipp("uas-outbound-answered.xml", timeout_s=30) as callee:
            call_id = await originate(node, callee.uri, "talk")

            async def up() -> bool:
                async with node.http.get("/api/v1/live-calls") as response:
                    return any(call["answered_at"] for call in (await response.json())["data"])

            await node.until(up, 30)
            async with node.http.post(f"/api/v1/voice/calls/{call_id}/hangup", json={}) as response:
                assert response.status == 200, await response.text()
            (await callee.wait()).check()
        await node.ended(6)
        ended = node.record(call_id).call
        assert (ended.cause, ended.ended_by) == ("normal", "operator")

        # REFER: the target takes the caller over, and the record says so.
        async with Sipp("uas-outbound-transfer.xml", timeout_s=30) as callee:
            call_id = await originate(node, callee.uri, "forward")
            (await callee.wait()).check()
        await node.ended(7)
        transferred = node.record(call_id)
        assert transferred.call.cause == "transferred"
        transfer = transferred.transfers[-1]
        assert (transfer.state, transfer.sip_status, transfer.kind) == ("completed", 200, "blind")

        # A second node on the same state folder is refused, and does no harm to the first one's record.
        second_node = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sipagent", "serve", "-c", str(node.config)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second_node.communicate()
        assert second_node.returncode == 3
        assert b"another node runs with the state folder" in said

        # More calls than the library carries: refused, counted.
        crowd = Sipp("uac-inbound-answered.xml", target=node.target, service="talk", calls=4, rate=50, duration_ms=2500)
        await crowd.start()

        async def four() -> bool:
            return int((await node.health())["calls_active"]) == 4

        await node.until(four, 30)
        (await sipp.run("uac-inbound-over-limit-expect-486.xml", target=node.target, service="talk")).check()
        (await crowd.wait()).check()
        # The first was PJSIP's own refusal of a codec we do not speak.
        assert [event["sip_status"] for event in node.events("CallRefused")] == [488, 486]
        assert await node.stop() == 0


async def test_ctrl_c_ends_calls_in_order():
    async with Node() as node:
        call = Sipp("uac-inbound-agent-hangs-up.xml", target=node.target, service="talk", timeout_s=30)
        await call.start()

        async def up() -> bool:
            return int((await node.health())["calls_active"]) == 1

        await node.until(up, 30)
        started = time.monotonic()
        assert await node.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 12
        (await call.wait()).check()  # it got its BYE
        (record,) = await node.ended(1)
        assert (record.call.cause, record.call.ended_by) == ("node_stopped", "system")


async def test_a_conversation_with_the_test_phone():
    """Asked, understood, answered, transferred: by voice."""
    low = free_block(64)
    async with Node() as node:
        phone = Phone(PhoneSettings(media_ports=(low, low + 62)), SpeechSettings())
        await phone.start()
        try:
            call = await phone.call(f"sip:desk@{node.target}")
            assert await call.answered(10)
            await call.until_quiet(1.0, 20)
            await call.say("What are your opening hours?")
            await call.until_quiet(1.2, 20)
            await call.say("Please let me talk to a human.")
            await call.until_quiet(1.2, 20)
            await call.hang_up()
        finally:
            await phone.close()
        (record,) = await node.ended(1, 40)
    # The phone refuses to be transferred: the caller is back with the agent, who knows why.
    assert [turn.intent for turn in record.turns] == ["", "hours", "human", ""]
    assert "they cannot take the call now" in record.turns[-1].agent_text
    heard = " ".join(call.heard).lower()
    assert "until" in heard
    assert "put you through" in heard
    transfer = record.transfers[-1]
    assert (transfer.state, transfer.sip_status) == ("failed", 603)
