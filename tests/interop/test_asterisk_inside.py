"""What happens inside a call with Asterisk: early media, our hold, and where the PBX sends us."""

import asyncio
from collections import Counter

import click.testing
import pytest

from sipagent.calls import orders
from sipagent.cli import cli
from sipagent.core.states import TransferKind, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.sip.protocol import Replaces
from tests.interop.agreement import agree
from tests.interop.audio import seconds_of, spoken
from tests.interop.node import TONE_HZ, Node
from tests.interop.test_asterisk_transfer import hears, until_free
from tests.peers.baresip import Baresip
from tests.peers.pbx import TONE_HZ as PBX_HZ
from tests.peers.pbx import Pbx
from tests.system.wire import Capture

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]


async def test_early_media_of_asterisk_reaches_us_and_is_no_answer(pbx: Pbx, node: Node) -> None:
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        call_id = await node.call(f"sip:earlya@{pbx.address}", "plain")
        ringing = await node.event("LegRinging", call_id=call_id)
        assert ringing.sip_status == 183
        record = await node.ended(call_id)
    leg = record.call.legs[0]
    assert (record.call.disposition, record.call.answered_at, leg.sip_status) == (Disposition.BUSY, None, 486)
    assert leg.packets_in is not None and leg.packets_in >= 35
    came = spoken(packet for packet in wire.packets if packet.source in range(pbx.rtp_port, pbx.rtp_port + 40))
    assert seconds_of(came, PBX_HZ) > 0.6
    agree(record, await pbx.cdr(leg.sip_call_id))


async def test_our_early_media_is_heard_before_the_call_is_refused(pbx: Pbx, node: Node, extension: Baresip) -> None:
    await node.route("6001", {"ring": 0.2}, {"play": {"file": "short.wav", "early": True}}, {"reject": 480})
    since = len(node.events)
    await extension.command("dial", f"sip:to_plain_6001@{pbx.address}")
    created = await node.event("CallCreated", since=since, direction="inbound")
    record = await node.ended(created.call_id)
    assert (record.call.answered_at, record.call.disposition, record.call.sip_status) == (
        None,
        Disposition.REJECTED,
        480,
    )
    await hears(extension, TONE_HZ)


async def test_we_hold_and_asterisk_knows(pbx: Pbx, node: Node) -> None:
    call = await node.answered(await node.call(f"sip:tonehold@{pbx.address}", "plain"))
    seen = len(pbx.manager.events)
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        await asyncio.sleep(0.5)
        orders.hold(call, "silence")
        held = await pbx.manager.event("Hold", since=seen)
        at = len(wire.packets)
        await asyncio.sleep(0.5)
        resumed = len(wire.packets)
        orders.resume(call)
        await pbx.manager.event("Unhold", since=seen)
        await asyncio.sleep(0.6)
        call.hangup()
        record = await node.ended(call.id)
    assert held["Channel"].startswith("PJSIP/plain-")
    agree(record, await pbx.cdr(record.call.legs[0].sip_call_id))
    ours = [packet.source == call.leg.port.port for packet in wire.packets]
    before, between, after = (
        spoken(packet for packet, our in zip(wire.packets[part], ours[part], strict=True) if our)
        for part in (slice(0, at), slice(at + 4, resumed), slice(resumed, None))
    )
    assert seconds_of(before, TONE_HZ) > 0.3
    assert seconds_of(between, TONE_HZ) == 0, "they heard us while they were on hold"
    assert seconds_of(after, TONE_HZ) > 0.3
    assert seconds_of(pbx.heard("tonehold"), TONE_HZ) > 0.6


async def test_the_pbx_sends_us_on_by_refer(pbx: Pbx, node: Node) -> None:
    since, seen = len(node.events), len(pbx.manager.events)
    before = await pbx.call("follow", "refertoneto", caller="3003")
    call = await node.incoming(since)
    gone = await pbx.manager.event("Hangup", since=seen, Uniqueid=before)
    assert gone["Cause"] == "16"
    await asyncio.sleep(0.8)
    call.hangup()
    record = await node.ended(call.id)
    last = record.transfers[-1]
    assert (last.kind, last.state, last.sip_status) == (TransferKind.RECEIVED, TransferState.COMPLETED, 200)
    notified = [text for text in await node.sip_messages(call.id, 1) if text.startswith("NOTIFY ")]
    assert [text.strip().splitlines()[-1] for text in notified] == ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]
    first, second = record.call.legs
    assert (first.cause, second.to_number, second.cause) == (Cause.TRANSFERRED, "toneto", Cause.NORMAL)
    assert seconds_of(pbx.heard("toneto"), TONE_HZ) > 0.4
    cdr = await pbx.cdr(second.sip_call_id)
    assert (cdr.exten, cdr.disposition, cdr.endpoint) == ("toneto", "ANSWERED", "follow")


async def test_a_refer_to_where_it_is_busy_leaves_us_where_we_were(pbx: Pbx, node: Node) -> None:
    since, seen = len(node.events), len(pbx.manager.events)
    await pbx.call("follow", "refercause17", caller="3004")
    call = await node.incoming(since)
    told = await pbx.manager.event("UserEvent", since=seen, UserEvent="Transferred")
    assert told["Status"] == "FAILURE"
    record = await node.ended(call.id)
    assert (record.transfers[-1].state, record.transfers[-1].sip_status) == (TransferState.FAILED, 486)
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.CALLER)


async def test_the_pbx_takes_a_callers_place(pbx: Pbx, node: Node, extension: Baresip) -> None:
    """An INVITE with Replaces: the telephone is with us instead of who was before."""
    since, seen = len(node.events), len(pbx.manager.events)
    before = await pbx.call("plain", "tonebefore", caller="3005")
    call = await node.incoming(since)
    seen_by_them = call.leg.dialog
    assert seen_by_them is not None
    named = Replaces(seen_by_them.call_id, to_tag=seen_by_them.from_tag, from_tag=seen_by_them.to_tag)
    await asyncio.sleep(0.4)
    await pbx.manager.action("Setvar", Variable="REPLACES", Value=str(named).replace(";", r"\;"))
    await extension.command("dial", f"sip:replace_plain_1@{pbx.address}")
    gone = await pbx.manager.event("Hangup", since=seen, Uniqueid=before)
    assert gone["Cause"] == "16"
    await hears(extension, TONE_HZ)
    await extension.command("hangup")
    record = await node.ended(call.id)
    assert (record.transfers[-1].kind, record.transfers[-1].state) == (TransferKind.RECEIVED, TransferState.COMPLETED)
    assert [leg.from_number for leg in record.call.legs] == ["3005", "9001"]
    await until_free(pbx)


async def test_the_ladder_has_the_messages_that_asterisk_has(pbx: Pbx, node: Node) -> None:
    call = await node.answered(await node.call(f"sip:shortladder@{pbx.address}", "plain"))
    record = await node.ended(call.id)
    theirs = pbx.sip(record.call.legs[0].sip_call_id)
    assert len(theirs) >= 9  # INVITE, 401, ACK, INVITE, 100, 200, ACK, BYE, 200
    ours = await node.sip_messages(call.id, len(theirs))
    assert Counter(text.splitlines()[0] for text in ours) == Counter(theirs)
    file = node.folder / "call.pcap"
    command = ["calls", call.id, "--sip", "--pcap", str(file), "-c", str(node.folder / "sipagent.toml")]
    shown = await asyncio.to_thread(click.testing.CliRunner().invoke, cli, command)
    assert shown.exit_code == 0, shown.output
    assert "401" in shown.output and "BYE" in shown.output
    capture = file.read_bytes()
    assert all(text.encode() in capture for text in ours)
