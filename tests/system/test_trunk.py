"""The whole node against a real Asterisk: registration, calls in both directions, words in the record."""

import pytest

from sipagent.store.records import TurnRecord
from tests.peers.asterisk import PASSWORD, USER, Asterisk
from tests.system.node import Node
from tests.system.test_calls import originate
from tests.wer import normalise

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(300)]

TRUNK = """
[[trunks]]
name = "pbx"
registrar = "{address}"
username = "{user}"
password = {{ env = "TRUNK_PASSWORD" }}
expires_s = 60
"""


async def registration(node: Node) -> dict[str, object]:
    async with node.http.get("/api/v1/registrations") as response:
        (found,) = (await response.json())["data"]
        return dict(found)


async def test_registers_hears_and_is_heard(monkeypatch):
    monkeypatch.setenv("TRUNK_PASSWORD", PASSWORD)
    async with Asterisk() as pbx, Node(extra=TRUNK.format(address=pbx.address, user=USER)) as node:

        async def registered() -> bool:
            return (await registration(node))["state"] == "registered"

        await node.until(registered, 15)
        assert f"{USER}@127.0.0.1:{node.sip_port}" in await pbx.cli("pjsip show contacts")
        assert "trunk pbx: registered" in node.log.read_text()

        async with node.http.get("/api/v1/trunks") as response:
            (trunk,) = (await response.json())["data"]
        assert (trunk["name"], trunk["state"], trunk["reason"]) == ("pbx", "up", "")
        assert [server["address"] for server in trunk["servers"]] == [pbx.address]

        # Asterisk rings us and plays a prompt.
        await pbx.call_agent("Playback hello-world")
        (inbound,) = await node.ended(1, 20)
        assert (inbound.call.trunk, inbound.call.ended_by, inbound.call.cause) == ("pbx", "caller", "normal")
        assert "hello" in _heard(inbound.turns)

        # We ring Asterisk through the trunk, which asks for a password; it plays the same prompt and hangs up.
        call_id = await originate(node, "prompt", "listen")
        await node.ended(2, 20)
        outbound = node.record(call_id)
        assert (outbound.call.trunk, outbound.call.ended_by, outbound.call.cause) == ("pbx", "callee", "normal")
        assert "hello" in _heard(outbound.turns)

        # Busy is busy.
        call_id = await originate(node, "busy", "listen")
        await node.ended(3, 20)
        assert node.record(call_id).call.disposition == "busy"

        # Asterisk's own records agree about what was answered.
        answered = [row for row in pbx.cdrs() if row["disposition"] == "ANSWERED"]
        assert len(answered) == 2
        assert await node.stop() == 0
        contacts = await pbx.cli("pjsip show contacts")
        assert f"127.0.0.1:{node.sip_port}" not in contacts, "a node that leaves unregisters"
        assert PASSWORD not in node.log.read_text()


async def test_a_wrong_password_is_reported_with_what_to_do(monkeypatch):
    monkeypatch.setenv("TRUNK_PASSWORD", "wrong")
    async with Asterisk() as pbx, Node(extra=TRUNK.format(address=pbx.address, user=USER)) as node:

        async def refused() -> bool:
            return (await registration(node))["state"] == "refused"

        await node.until(refused, 15)
        state = await registration(node)
        assert state["sip_status"] in (401, 403)
        assert float(str(state["next_try_s"])) > 30, "no hammering: registrars block addresses for that"
        assert "trunk pbx: refused" in node.log.read_text()


def _heard(turns: list[TurnRecord]) -> str:
    return normalise(" ".join(turn.caller_text for turn in turns))
