"""Calls with IPv6 in the signalling, in the audio, or in both: through the edge and the media process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sipagent.core.events import LegAnswered
from tests.interop.node import Node
from tests.media.peer import Peer, codes
from tests.peers.sipp import SCENARIOS, Sipp
from tests.wait import until

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]

PLAN = "{routes: [{name: all, steps: tone}], steps: {tone: [answer, play: tone.wav]}, agents: {}}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Node]:
    async with Node("", PLAN, sip='host6 = "::1"') as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def peer() -> AsyncIterator[Peer]:
    peer = Peer(host="::1")
    yield peer
    peer.close()


def scenario(name: str, peer: Peer, folder: Path) -> Path:
    """With the audio at the peer: SIPp would bind the port itself."""
    changed = folder / name
    changed.write_text((SCENARIOS / name).read_text().replace("[media_port]", str(peer.port)))
    return changed


async def talks(node: Node, call_id: str, peer: Peer) -> None:
    """Audio goes both ways between ::1 and ::1."""
    answered = await node.event("LegAnswered", call_id=call_id)
    assert isinstance(answered, LegAnswered)
    port = node.live(call_id).leg.port
    assert (answered.local_media, answered.remote_media) == (f"[::1]:{port.port}", f"[::1]:{peer.port}")
    peer.target = ("::1", port.port)
    await peer.paced([peer.packet(payload, skip=True) for payload in codes(20)])
    await until(lambda: port.figures().packets_in >= 20, "audio of the peer", 3)
    await until(lambda: len(peer.received) > 20, "audio of ours", 3)
    assert port.source == ("::1", peer.port)


@pytest.mark.parametrize("signalling", ["::1", "127.0.0.1"])
async def test_a_caller_with_audio_on_ipv6(node: Node, peer: Peer, signalling: str, tmp_path: Path) -> None:
    since = len(node.events)
    target = f"[::1]:{node.sip_port}" if ":" in signalling else node.address
    caller = Sipp(
        scenario("uac-inbound-answered.xml", peer, tmp_path),
        target=target,
        host=signalling,
        media_host="::1",
        duration_ms=1500,
    )
    await caller.start()
    call = await node.incoming(since)
    await talks(node, call.id, peer)
    (await caller.wait()).check()


async def test_we_call_over_ipv6(node: Node, peer: Peer, tmp_path: Path) -> None:
    played = scenario("uas-outbound-answered.xml", peer, tmp_path)
    async with Sipp(played, host="::1", media_host="::1", service="tone") as callee:
        call_id = await node.call(callee.uri, "")
        peer.payload_type = 8  # as the scenario answers
        await talks(node, call_id, peer)
        node.live(call_id).hangup()
        (await callee.wait()).check()


async def test_a_caller_with_ipv6_in_the_signalling_alone(node: Node) -> None:
    since = len(node.events)
    caller = Sipp("uac-inbound-answered.xml", target=f"[::1]:{node.sip_port}", host="::1")
    await caller.start()
    call = await node.incoming(since)
    answered = await node.event("LegAnswered", call_id=call.id)
    assert answered.local_media == f"127.0.0.1:{call.leg.port.port}"
    (await caller.wait()).check()
