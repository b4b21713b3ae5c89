"""Calls that go wrong, through the whole node: each ends with its true cause, on record, and its slot is free again."""

import asyncio

import pytest

from tests.peers import sipp
from tests.peers.ports import free_port
from tests.peers.sipp import Sipp
from tests.system.node import Node

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(180)]

LIMITS = "[limits]\nring_timeout_s = 1.0\nmax_duration_s = 4.0\n"


async def play(node: Node, scenario: str, service: str) -> None:
    result = await sipp.run(scenario, target=node.target, service=service, timeout_s=30)
    result.check()


def trunk(port: int) -> str:
    return (
        f'[[trunks]]\nname = "carrier"\ndomain = "127.0.0.1:{port}"\nregister = false\noptions_s = 0\n'
        'redirects = "follow"\n'
    )


async def be_sent_on(node: Node, port: int) -> None:
    """Our call to a number of the trunk is answered where the trunk sends it."""
    async with Sipp("uas-outbound-answered.xml", service="other", timeout_s=20) as answering:
        arguments = ["-key", "place", answering.uri]
        async with Sipp("uas-outbound-redirected-301.xml", port=port, timeout_s=20, args=arguments) as sending_on:
            body = {"to_number": "100", "dialplan": "hello"}
            async with node.http.post("/api/v1/voice/calls/initiate", json=body) as response:
                assert response.status in (200, 201, 202), await response.text()
            (await sending_on.wait()).check()
        result = await answering.wait()
    result.check()
    assert result.received("INVITE sip:other@")


async def ring_out(node: Node) -> None:
    async with Sipp("uas-outbound-no-answer.xml", timeout_s=20) as callee:
        body = {"to_number": callee.uri, "dialplan": "hello"}
        async with node.http.post("/api/v1/voice/calls/initiate", json=body) as response:
            assert response.status in (200, 201, 202), await response.text()
        (await callee.wait()).check()


async def test_each_ends_with_its_true_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIPAGENT_SIP_T1_MS", "50")  # what is given up after 64 of it takes 3.2 s
    port = free_port()
    async with Node(extra=LIMITS + trunk(port)) as node:
        await asyncio.gather(
            play(node, "uac-ack-never-expect-bye.xml", "listen"),
            play(node, "uac-inbound-agent-hangs-up.xml", "talk"),  # on and on
            ring_out(node),
        )
        first = await node.ended(3)
        assert sorted((each.call.cause, each.call.ended_by, each.call.disposition) for each in first) == [
            ("max_duration", "system", "answered"),
            ("no_ack", "system", "failed"),
            ("no_answer", "system", "no_answer"),
        ]
        await asyncio.gather(
            play(node, "uac-bye-unanswered.xml", "hello"),
            play(node, "uac-reinvite-hold.xml", "listen"),
            play(node, "uac-info-digits.xml", "listen"),
            play(node, "uac-bye-before-ack.xml", "listen"),
        )
        records = await node.ended(7)
        # Who says BYE before the call is up has given it up.
        ends = sorted((each.call.cause, each.call.ended_by) for each in records[:4])
        assert ends == [("cancelled", "caller"), ("normal", "agent"), ("normal", "caller"), ("normal", "caller")]
        told = [[(event.type, event.data) for event in each.events] for each in records[:4]]
        holds = [[data["held"] for kind, data in events if kind == "LegHeld"] for events in told]
        assert [True, False, True, False] in holds
        digits = [[data["duration_ms"] for kind, data in events if kind == "DigitReceived"] for events in told]
        assert [160, 250, 0] in digits

        await be_sent_on(node, port)
        sent_on = (await node.ended(8))[0]
        assert (sent_on.call.disposition, sent_on.call.cause, sent_on.call.trunk) == ("answered", "normal", "carrier")
        legs = [(str(leg.disposition), leg.sip_status, leg.to_number) for leg in sent_on.call.legs]
        assert sorted(legs) == [("answered", 200, "other"), ("failed", 301, "100")]

        # Every slot of the lane is free again, that of the BYE without answer too.
        async def room() -> bool:
            crowd = await sipp.run(
                "uac-inbound-answered.xml", target=node.target, service="listen", calls=4, rate=50, duration_ms=300
            )
            return crowd.ok

        await node.until(room, 15.0)
