"""A caller at the PBX is handed on: by us and by the PBX, blindly and after a talk. Who ends up with whom is heard."""

import asyncio

import pytest

from sipagent.core.states import TransferState
from sipagent.core.termination import Cause, EndedBy
from sipagent.store.records import FullCall, TransferRecord
from tests.interop.audio import seconds_of, spoken
from tests.interop.node import TONE_HZ, Node
from tests.peers.baresip import TONE_HZ as PHONE_HZ
from tests.peers.baresip import Baresip
from tests.peers.pbx import PHONE, Pbx
from tests.peers.pbx import TONE_HZ as PBX_HZ
from tests.system.wire import Capture
from tests.wait import until

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]


BLIP = {"play": "blip.wav"}  # Asterisk joins the channels a moment after our answer; before, it takes no REFER


async def caller(pbx: Pbx, node: Node, extension: Baresip, number: str, trunk: str = "plain") -> str:
    """The telephone of the PBX calls us, as that number."""
    since = len(node.events)
    await extension.command("dial", f"sip:to_{trunk}_{number}@{pbx.address}")
    return str((await node.event("CallCreated", since=since, direction="inbound")).call_id)


def outcome(record: FullCall) -> TransferRecord:
    return record.transfers[-1]


async def hears(extension: Baresip, hz: float, seconds: float = 0.6) -> None:
    await until(lambda: seconds_of(extension.heard(), hz) > seconds, f"{seconds} s of {hz:g} Hz at the telephone")


async def test_we_transfer_blindly(pbx: Pbx, node: Node, extension: Baresip) -> None:
    target = f"sip:toneblind@{pbx.address}"
    await node.route("5001", "answer", BLIP, {"transfer": {"target": target, "via": "refer"}}, "hangup")
    seen = len(pbx.manager.events)
    record = await node.ended(await caller(pbx, node, extension, "5001"))
    assert (record.call.cause, record.call.ended_by) == (Cause.TRANSFERRED, EndedBy.AGENT), record.transfers
    last = outcome(record)
    assert (last.kind, last.state, last.sip_status, last.target) == ("blind", TransferState.COMPLETED, 200, target)
    told = await pbx.manager.event("BlindTransfer", since=seen)
    assert (told["Result"], told["Extension"], told["IsExternal"]) == ("Success", "toneblind", "Yes")
    assert told["TransfererChannel"].startswith("PJSIP/plain-")
    await hears(extension, PBX_HZ)
    assert [each["Exten"] for each in await pbx.channels()] == ["toneblind"]
    await extension.command("hangup")


async def test_a_transfer_that_asterisk_refuses_leaves_the_caller_with_us(
    pbx: Pbx, node: Node, extension: Baresip
) -> None:
    target = f"sip:toneno@{pbx.address}"
    await node.route(
        "5002", "answer", BLIP, {"transfer": {"target": target, "via": "refer"}}, {"play": "short.wav"}, "hangup"
    )
    record = await node.ended(await caller(pbx, node, extension, "5002", trunk="norefer"))
    last = outcome(record)
    assert (last.state, last.sip_status) == (TransferState.FAILED, 603)
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.AGENT)
    await hears(extension, TONE_HZ)


async def test_where_refer_is_refused_we_join_the_two_ourselves(pbx: Pbx, node: Node, extension: Baresip) -> None:
    await node.route("5003", "answer", BLIP, {"transfer": {"target": "tonebridge", "via": "auto"}}, "hangup")
    call_id = await caller(pbx, node, extension, "5003", trunk="norefer")
    await hears(extension, PBX_HZ)
    channels = [each["Channel"].rpartition("-")[0] for each in await pbx.channels()]
    assert sorted(channels) == ["PJSIP/norefer", "PJSIP/norefer", "PJSIP/phone"], "we are in the middle"
    await asyncio.sleep(0.5)
    await extension.command("hangup")
    record = await node.ended(call_id)
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.CALLER)
    assert [(leg.direction, leg.ended_by) for leg in record.call.legs] == [
        ("inbound", EndedBy.CALLER),
        ("outbound", EndedBy.CALLER),
    ]
    last = outcome(record)
    assert (last.kind, last.state) == ("bridge", TransferState.COMPLETED)
    assert seconds_of(pbx.heard("tonebridge"), PHONE_HZ) > 0.4
    await until_free(pbx)


async def test_we_transfer_after_a_talk(pbx: Pbx, node: Node, extension: Baresip) -> None:
    plan = {"target": "echoask", "kind": "attended"}
    await node.route("5004", "answer", BLIP, {"transfer": plan}, "hangup")
    seen = len(pbx.manager.events)
    record = await node.ended(await caller(pbx, node, extension, "5004"))
    last = outcome(record)
    assert (last.kind, last.state, last.sip_status) == ("attended", TransferState.COMPLETED, 200)
    assert record.call.cause == Cause.TRANSFERRED
    told = await pbx.manager.event("AttendedTransfer", since=seen)
    assert told["Result"] == "Success"
    await hears(extension, PHONE_HZ)  # the extension sends back what it hears
    channels = [each["Channel"].rpartition("-")[0] for each in await pbx.channels()]
    assert "PJSIP/plain" not in channels, "we are out of it"
    await extension.command("hangup")
    await until_free(pbx)


async def test_a_busy_target_brings_the_caller_back(pbx: Pbx, node: Node, extension: Baresip) -> None:
    plan = {"target": "cause17", "kind": "attended"}
    await node.route("5005", "answer", BLIP, {"transfer": plan}, {"play": "short.wav"}, "hangup")
    record = await node.ended(await caller(pbx, node, extension, "5005"))
    last = outcome(record)
    assert (last.state, last.sip_status, last.reason) == (TransferState.FAILED, 486, "the line is busy")
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.AGENT)
    await hears(extension, TONE_HZ)


async def test_the_pbx_transfers_us_after_a_talk(pbx: Pbx, node: Node, extension: Baresip) -> None:
    call = await node.answered(await node.call(f"sip:{PHONE}@{pbx.address}", "plain"))
    port = call.leg.port
    seen = len(pbx.manager.events)
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        await press(extension, "*2")
        await until(lambda: port.connected is not None and not port.connected.send, "hold during the consultation")
        await press(extension, "77")
        await hears(extension, PBX_HZ, 0.3)  # who is asked talks to the telephone, while we wait
        await extension.command("hangup")
        told = await pbx.manager.event("AttendedTransfer", since=seen)
        moved = len(wire.packets)
        await until(lambda: port.connected is not None and port.connected.send, "end of the hold")
        await asyncio.sleep(0.8)
    assert told["Result"] == "Success"
    came = [packet for packet in wire.packets[moved:] if packet.target == port.port]
    assert seconds_of(spoken(came), PBX_HZ) > 0.3
    assert not [each for each in await pbx.channels() if "phone" in each["Channel"]], "the telephone is out of it"
    call.hangup()
    record = await node.ended(call.id)
    assert (record.call.cause, record.transfers) == (Cause.NORMAL, [])


async def press(extension: Baresip, keys: str) -> None:
    for key in keys:
        await extension.command("sndcode", key)
        await asyncio.sleep(0.25)


async def test_a_refer_from_the_pbx_is_declined_unless_the_trunk_allows_it(pbx: Pbx, node: Node) -> None:
    since, seen = len(node.events), len(pbx.manager.events)
    await pbx.call("plain", "refertonex", caller="3002")
    call = await node.incoming(since)
    told = await pbx.manager.event("UserEvent", since=seen, UserEvent="Transferred")
    assert told["Status"] == "FAILURE"
    record = await node.ended(call.id)
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.CALLER)


async def until_free(pbx: Pbx) -> None:
    for _ in range(60):
        if not await pbx.channels():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"channels are left: {await pbx.channels()}")
