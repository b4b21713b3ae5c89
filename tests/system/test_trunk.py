"""The whole node against a real Asterisk: registration, calls in both directions, words in the record."""

import signal

import pytest

from sipagent.store.records import TurnRecord
from tests.peers import kamailio
from tests.peers.asterisk import PASSWORD, USER, Asterisk
from tests.peers.kamailio import Kamailio
from tests.peers.ports import free_port
from tests.peers.sipp import Sipp
from tests.system.node import Node
from tests.system.test_calls import originate
from tests.wait import until
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


TWO = """
[[trunks]]
name = "first"
domain = "127.0.0.1:{first}"
options_s = 0
[[trunks]]
name = "second"
domain = "127.0.0.1:{second}"
options_s = 0
country_code = "49"
number_format = "national"
identity_headers = ["P-Asserted-Identity"]
priority = 1
"""


async def test_a_call_goes_by_the_second_trunk_where_the_first_one_fails():
    callee = Sipp("uas-outbound-callee-hangs-up.xml", duration_ms=300)
    trunks = TWO.format(first=free_port(), second=callee.port)
    async with callee, Node(extra=trunks) as node:
        body = {"to_number": "+49301234567", "from_number": "+49309999999", "dialplan": "short", "timeout_s": 20}
        async with node.http.post("/api/v1/voice/calls/initiate", json=body) as response:
            call_id = (await response.json())["id"]
        (ended,) = await node.ended(1, 30)
        result = await callee.wait()
        (invite,) = result.received("INVITE")
        assert f"INVITE sip:0301234567@127.0.0.1:{callee.port} " in invite
        assert "P-Asserted-Identity: <sip:0309999999@127.0.0.1>" in invite
        record = node.record(call_id)
        assert (ended.call.id, ended.call.disposition) == (call_id, "answered")
        legs = [(leg.disposition, leg.sip_status) for leg in record.call.legs]
        assert legs == [("no_answer", 408), ("answered", 200)], "every way is on record"


OLD = """
[[trunks]]
name = "old"
peers = ["127.0.0.1"]
[[trunks]]
name = "kam"
registrar = "{address}"
username = "alice"
password = {{ env = "TRUNK_PASSWORD" }}
"""
NEW = """
[[trunks]]
name = "other"
registrar = "{address}"
username = "bob"
password = {{ env = "TRUNK_PASSWORD" }}
peers = ["127.0.0.1"]
max_calls_in = 1
"""
LANES = "[limits]\nmax_calls = 7\n"  # two lanes and one to spare, behind an edge


async def test_trunks_are_reloaded_while_calls_are_up(monkeypatch):
    monkeypatch.setenv("TRUNK_PASSWORD", kamailio.PASSWORD)
    async with Kamailio() as registrar, Node(extra=LANES + OLD.format(address=registrar.address)) as node:
        before = node.config.read_text()

        async def names() -> list[str]:
            async with node.http.get("/api/v1/trunks") as response:
                return [trunk["name"] for trunk in (await response.json())["data"]]

        async def reloaded(text: str, says: str) -> None:
            node.config.write_text(text)
            said = node.log.read_text().count(says)
            assert node.process is not None
            node.process.send_signal(signal.SIGHUP)
            await until(lambda: node.log.read_text().count(says) > said, says, 60)

        async def registered() -> bool:
            return (await registration(node))["state"] == "registered"

        await node.until(registered, 30)

        async def talking() -> bool:
            return int((await node.health())["calls_active"]) == 1

        async with Sipp("uac-inbound-agent-hangs-up.xml", target=node.target, service="listen", timeout_s=60) as caller:
            await node.until(talking, 30)
            (first,) = await until(node.calls, "record of the call")
            await reloaded(before + '[[trunks]]\nname = "odd"\nexpires_s = 1\n', "dialplans and trunks not reloaded")
            await reloaded(before + '[[trunks]]\nname = "old"\n', "2 trunks are named `old`")
            assert await names() == ["old", "kam"] and await registered()
            await reloaded(before.partition("[[trunks]]")[0] + NEW.format(address=registrar.address), "trunks reloaded")
            assert await names() == ["other"]
            assert "SAVED REGISTER alice expires=0" in registrar.log()
            await node.until(registered, 30)
            assert registrar.registers("bob", saved=True) == 1
            # The call of the trunk that is gone is still up, and takes none of the new one's channels.
            second = Sipp("uac-inbound-caller-hangs-up.xml", target=node.target, service="listen", duration_ms=200)
            async with second:
                (await second.wait()).check()
            await node.until(talking, 30)
            async with node.http.post(f"/api/v1/voice/calls/{first.id}/hangup") as response:
                assert response.status < 300
            (await caller.wait()).check()
        ended = {call.call.trunk: call.call.cause for call in await node.ended(2, 20)}
        assert ended == {"old": "normal", "other": "normal"}
        assert kamailio.PASSWORD not in node.log.read_text()


def _heard(turns: list[TurnRecord]) -> str:
    return normalise(" ".join(turn.caller_text for turn in turns))
