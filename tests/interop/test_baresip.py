"""A node and baresip, a telephone of another make: alone with us, and as a telephone of the PBX."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sipagent.core.events import CallQuality, DigitReceived
from sipagent.core.states import TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy
from tests.interop.agreement import agree
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


@pytest_asyncio.fixture(loop_scope="package")
async def phone() -> AsyncIterator[Baresip]:
    async with Baresip("ann") as phone:
        yield phone


async def test_it_calls_holds_resumes_presses_keys_and_hangs_up(node: Node, phone: Baresip) -> None:
    since = len(node.events)
    with Capture(node.media_port, node.media_port + 127) as wire:
        await phone.command("dial", f"sip:tone@127.0.0.1:{node.sip_port}")
        call = await node.incoming(since)
        port = call.leg.port
        await asyncio.sleep(0.6)
        await phone.command("hold")
        await until(lambda: port.connected is not None and not port.connected.send, "hold")
        held = len(wire.packets)
        await asyncio.sleep(0.5)
        assert not [packet for packet in wire.packets[held + 3 :] if packet.source == port.port], "we spoke on hold"
        await phone.command("resume")
        await until(lambda: port.connected is not None and port.connected.send, "resume")
        resumed = len(wire.packets)
        await asyncio.sleep(0.6)
        for key in "42#":
            await phone.command("sndcode", key)
            await asyncio.sleep(0.25)
        await phone.command("hangup")
        record = await node.ended(call.id)
    assert (record.call.ended_by, record.call.cause) == (EndedBy.CALLER, Cause.NORMAL)
    assert "".join(event.digit for event in node.of(call.id, DigitReceived)) == "42#"
    assert seconds_of(phone.heard(), TONE_HZ) > 0.4
    came = spoken(packet for packet in wire.packets if packet.target == port.port)
    assert seconds_of(came, PHONE_HZ) > 1.0
    assert seconds_of(spoken(packet for packet in wire.packets[resumed:] if packet.source == port.port), TONE_HZ) > 0.5


async def test_we_call_it_and_it_hangs_up(node: Node, phone: Baresip) -> None:
    call = await node.answered(await node.call(phone.uri, ""))
    await asyncio.sleep(0.8)
    await phone.command("hangup")
    record = await node.ended(call.id)
    assert (record.call.ended_by, record.call.cause) == (EndedBy.CALLEE, Cause.NORMAL)
    assert seconds_of(phone.heard(), TONE_HZ) > 0.4
    (quality,) = node.of(call.id, CallQuality, lambda event: event.final)
    assert quality.level_in_dbov == pytest.approx(-18, abs=2)


async def test_it_rings_and_declines_or_is_given_up(node: Node) -> None:
    async with Baresip("ann", answers=False) as phone:
        call_id = await node.call(phone.uri, "")
        await node.event("LegRinging", call_id=call_id)
        await phone.command("hangup")
        call = (await node.ended(call_id)).call
        assert (call.disposition, call.sip_status, call.ended_by) == (Disposition.BUSY, 486, EndedBy.CALLEE)
        since = len(phone.events)
        call_id = await node.call(phone.uri, "", ring_timeout_s=0.5)
        call = (await node.ended(call_id)).call
        assert (call.disposition, call.ended_by) == (Disposition.NO_ANSWER, EndedBy.SYSTEM)
        await phone.event("CALL_CLOSED", since=since)


async def test_we_transfer_it_to_another_telephone(node: Node, phone: Baresip) -> None:
    async with Baresip("bob") as other:
        steps = await node.steps("to-bob", "answer", {"transfer": other.uri})
        call_id = await node.call(phone.uri, "", steps)
        record = await node.ended(call_id)
        transfer = record.transfers[-1]
        assert (transfer.state, transfer.kind, transfer.target) == (TransferState.COMPLETED, "blind", other.uri)
        assert record.call.cause == Cause.TRANSFERRED
        await other.event("CALL_ESTABLISHED")
        await asyncio.sleep(0.8)
        assert seconds_of(other.heard(), PHONE_HZ) > 0.4, "the two are not connected"


async def test_as_a_telephone_of_the_pbx_it_holds_and_transfers_us(pbx: Pbx, node: Node, extension: Baresip) -> None:
    call = await node.answered(await node.call(f"sip:{PHONE}@{pbx.address}", "plain"))
    port = call.leg.port
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        await asyncio.sleep(0.6)
        await extension.command("hold")  # the PBX passes it on to us by a re-INVITE
        await until(lambda: port.connected is not None and not port.connected.send, "hold")
        await extension.command("resume")
        await until(lambda: port.connected is not None and port.connected.send, "resume")
        await asyncio.sleep(0.6)
        moved = len(wire.packets)
        await extension.command("transfer", f"sip:tonep@{pbx.address}")
        await asyncio.sleep(1.2)
    assert seconds_of(extension.heard(), TONE_HZ) > 0.4
    came = [packet for packet in wire.packets if packet.target == port.port]
    assert seconds_of(spoken(came), PHONE_HZ) > 0.5
    assert seconds_of(spoken(packet for packet in wire.packets[moved:] if packet.target == port.port), PBX_HZ) > 0.5
    (channel,) = await pbx.channels()  # the telephone is out of it
    assert (channel["Exten"], channel["ChannelStateDesc"]) == ("tonep", "Up")
    call.hangup()
    record = await node.ended(call.id)
    assert record.call.cause == Cause.NORMAL and record.transfers == []
    sip_call_id = record.call.legs[0].sip_call_id
    await until(lambda: [each for each in pbx.records() if each.exten == "tonep"], "second record of Asterisk")
    agree(record, *(each for each in pbx.records() if each.sip_call_id == sip_call_id))
