"""Calls between a node and Asterisk, in both directions: what each hears, and what each writes down."""

import asyncio

import pytest

from sipagent.core.events import CallQuality
from sipagent.core.termination import Cause, Disposition, EndedBy
from tests.interop.agreement import agree
from tests.interop.audio import dbfs, seconds_of, spoken
from tests.interop.node import TONE_HZ, Node
from tests.peers.pbx import ENDPOINTS, Pbx
from tests.peers.pbx import TONE_HZ as PBX_HZ
from tests.system.wire import Capture

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]


def uri(pbx: Pbx, extension: str) -> str:
    return f"sip:{extension}@{pbx.address}"


async def test_every_trunk_registers_for_itself(pbx: Pbx, node: Node) -> None:
    contacts = await pbx.cli("pjsip show contacts")
    for name in ENDPOINTS:
        assert f"{name}/sip:{name}@127.0.0.1:{node.sip_port}" in contacts


@pytest.mark.parametrize(("trunk", "codec"), [("plain", "PCMU"), ("info", "PCMA")])
async def test_we_call_and_hang_up(pbx: Pbx, node: Node, trunk: str, codec: str) -> None:
    extension = f"tone{trunk}"
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        call = await node.answered(await node.call(uri(pbx, extension), trunk))
        (channel,) = await pbx.channels()
        assert (channel["ChannelStateDesc"], channel["Exten"]) == ("Up", extension)
        await asyncio.sleep(1.5)
        call.hangup()
        record = await node.ended(call.id)
    leg = record.call.legs[0]
    assert (record.call.trunk, record.call.ended_by, leg.codec) == (trunk, EndedBy.OPERATOR, codec)
    agree(record, await pbx.cdr(leg.sip_call_id))
    assert await pbx.channels() == []
    # Each heard the other's tone, and as loud as it was played.
    heard = pbx.heard(extension)
    assert seconds_of(heard, TONE_HZ) > 1.0
    assert dbfs(heard[4000:8000]) == pytest.approx(-15, abs=1)
    came = spoken(packet for packet in wire.packets if packet.target == call.leg.port.port)
    assert seconds_of(came, PBX_HZ) > 1.0
    assert leg.packets_in is not None and abs(leg.packets_in * 160 - len(came)) <= 3 * 160
    (quality,) = node.of(call.id, CallQuality, lambda event: event.final)
    assert quality.level_in_dbov == pytest.approx(-18, abs=2)  # dBov: a full-scale sine has -3


@pytest.mark.parametrize("trunk", ["plain", "secure"])
async def test_asterisk_calls_and_hangs_up(pbx: Pbx, node: Node, trunk: str) -> None:
    since = len(node.events)
    channel = await pbx.call(trunk, f"short{trunk}")
    call = await node.incoming(since)
    record = await node.ended(call.id)
    assert (record.call.trunk, record.call.from_number) == (trunk, "1001")
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.CALLER)
    agree(record, await pbx.cdr_of(channel))
    assert seconds_of(pbx.heard(f"short{trunk}"), TONE_HZ) > 0.7


async def test_asterisk_calls_and_we_hang_up(pbx: Pbx, node: Node) -> None:
    since, seen = len(node.events), len(pbx.manager.events)
    channel = await pbx.call("plain", "toneb", caller="2001")
    call = await node.incoming(since)
    record = await node.ended(call.id)
    assert (record.call.route, record.call.ended_by) == ("short", EndedBy.AGENT)
    agree(record, await pbx.cdr_of(channel))
    hangup = await pbx.manager.event("Hangup", since=seen, Uniqueid=channel)
    assert hangup["Cause"] == "16"
    assert 0.9 < seconds_of(pbx.heard("toneb"), TONE_HZ) < 1.1  # the whole of the message, and nothing else


async def test_srtp_hides_what_both_hear(pbx: Pbx, node: Node) -> None:
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        call = await node.answered(await node.call(uri(pbx, "tonesecure"), "secure"))
        await asyncio.sleep(1.2)
        call.hangup()
        record = await node.ended(call.id)
    agree(record, await pbx.cdr(record.call.legs[0].sip_call_id))
    assert seconds_of(pbx.heard("tonesecure"), TONE_HZ) > 0.8
    (quality,) = node.of(call.id, CallQuality, lambda event: event.final)
    assert quality.level_in_dbov == pytest.approx(-18, abs=2)  # what we deciphered is the tone
    for packets in (
        [packet for packet in wire.packets if packet.target == call.leg.port.port],
        [packet for packet in wire.packets if packet.source == call.leg.port.port],
    ):
        assert len(packets) > 40
        assert seconds_of(spoken(packets), PBX_HZ) == seconds_of(spoken(packets), TONE_HZ) == 0


@pytest.mark.parametrize(
    ("extension", "status", "disposition", "cause"),
    [
        ("cause17", 486, Disposition.BUSY, Cause.BUSY),
        ("cause1", 404, Disposition.FAILED, Cause.REFUSED),
        ("cause19", 480, Disposition.NO_ANSWER, Cause.NO_ANSWER),
        ("cause21", 403, Disposition.FAILED, Cause.REFUSED),
        ("cause34", 503, Disposition.FAILED, Cause.REFUSED),
        ("cause58", 488, Disposition.FAILED, Cause.NO_CODEC),
    ],
)
async def test_asterisk_refuses(
    pbx: Pbx, node: Node, extension: str, status: int, disposition: Disposition, cause: Cause
) -> None:
    record = await node.ended(await node.call(uri(pbx, extension), "plain"))
    call = record.call
    assert (call.sip_status, call.disposition, call.cause) == (status, disposition, cause)
    assert (call.ended_by, call.answered_at) == (EndedBy.CALLEE, None)
    cdr = await pbx.cdr(call.legs[0].sip_call_id)
    assert cdr.answer == 0 and cdr.disposition != "ANSWERED"


async def test_nobody_answers_at_asterisk(pbx: Pbx, node: Node) -> None:
    call_id = await node.call(uri(pbx, "ring"), "plain", ring_timeout_s=1.0)
    await node.event("LegRinging", call_id=call_id)
    (channel,) = await pbx.channels()
    assert channel["ChannelStateDesc"] == "Ring"
    record = await node.ended(call_id)
    assert (record.call.disposition, record.call.ended_by) == (Disposition.NO_ANSWER, EndedBy.SYSTEM)
    agree(record, await pbx.cdr(record.call.legs[0].sip_call_id))
    assert await pbx.channels() == []


async def test_our_refusal_is_what_asterisk_tells(pbx: Pbx, node: Node) -> None:
    since, seen = len(node.events), len(pbx.manager.events)
    channel = await pbx.call("plain", "tonec", caller="4001")
    created = await node.event("CallCreated", since=since, direction="inbound")
    record = await node.ended(created.call_id)
    assert (record.call.disposition, record.call.sip_status) == (Disposition.REJECTED, 486)
    hangup = await pbx.manager.event("Hangup", since=seen, Uniqueid=channel)
    assert hangup["Cause"] == "17"
    cdr = await pbx.cdr_of(channel)
    assert (cdr.disposition, cdr.answer) == ("BUSY", 0)
