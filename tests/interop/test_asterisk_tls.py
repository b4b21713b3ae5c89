"""Signalling by TLS through the edge, with certificates that both sides check, and SRTP with the keys it carries."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sipagent.core.errors import CapacityError
from sipagent.core.states import RegistrationState, TrunkState
from sipagent.core.termination import Cause, EndedBy
from tests.interop.agreement import agree
from tests.interop.audio import seconds_of, spoken
from tests.interop.conftest import PLAN, TRUNK
from tests.interop.node import TONE_HZ, Node
from tests.peers.asterisk import PASSWORD
from tests.peers.pbx import TONE_HZ as PBX_HZ
from tests.peers.pbx import Pbx
from tests.peers.ports import free_port
from tests.system.wire import Capture
from tests.wait import until

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]

TLS_PORT = free_port()


def settings(pbx: Pbx, authority: str, port: int = 0) -> str:
    papers = pbx.papers
    return (
        f'tls_port = {port or free_port()}\ntls_certificate = "{papers.certificate("edge")}"\n'
        f'tls_key = "{papers.key("edge")}"\ntls_ca = "{papers.certificate(authority)}"'
    )


def trunk(pbx: Pbx) -> str:
    more = 'transport = "tls"\nsrtp = "required"'
    return TRUNK.format(name="safe", address=f"localhost:{pbx.tls_port}", password=PASSWORD, more=more)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def safe(pbx: Pbx) -> AsyncIterator[Node]:
    async with Node(trunk(pbx), PLAN, sip=settings(pbx, "authority", TLS_PORT)) as node:
        yield node


async def test_it_registers_by_tls(pbx: Pbx, safe: Node) -> None:
    assert f"sip:safe@127.0.0.1:{TLS_PORT};transport=tls" in await pbx.cli("pjsip show aor safe")


async def test_we_call_by_tls_and_srtp(pbx: Pbx, safe: Node) -> None:
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        call = await safe.answered(await safe.call("shortsafe", "safe"))
        record = await safe.ended(call.id)
    leg = record.call.legs[0]
    assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.CALLEE)
    agree(record, await pbx.cdr(leg.sip_call_id))
    assert seconds_of(pbx.heard("shortsafe"), TONE_HZ) > 0.6
    ours = [packet for packet in wire.packets if packet.source == call.leg.port.port]
    assert len(ours) > 30 and seconds_of(spoken(ours), TONE_HZ) == 0
    messages = await safe.sip_messages(call.id, 6)
    assert all("RTP/SAVP" in text for text in messages if "m=audio" in text)


async def test_asterisk_calls_by_tls_and_srtp(pbx: Pbx, safe: Node) -> None:
    since = len(safe.events)
    with Capture(pbx.rtp_port, pbx.rtp_port + 39) as wire:
        channel = await pbx.call("safe", "tonesafe", caller="2002")
        call = await safe.incoming(since)
        record = await safe.ended(call.id)
    assert (record.call.trunk, record.call.ended_by) == ("safe", EndedBy.AGENT)
    agree(record, await pbx.cdr_of(channel))
    assert seconds_of(pbx.heard("tonesafe"), TONE_HZ) > 0.8
    # Neither an INVITE nor the keys in it went in clear.
    assert f"SIP request to UDP:127.0.0.1:{safe.sip_port}" not in re.sub(r" \(\d+ bytes\)", "", pbx.log())
    theirs = [packet for packet in wire.packets if packet.target == call.leg.port.port]
    assert len(theirs) > 30 and seconds_of(spoken(theirs), PBX_HZ) == 0


@pytest.mark.parametrize(
    ("authority", "more", "says"),
    [("stranger", "", "`tls_ca`"), ("authority", 'tls_name = "carrier.example"', "not for carrier.example")],
    ids=["untrusted", "another's name"],
)
async def test_a_registrar_whose_certificate_is_not_good_gets_nothing_and_we_say_why(
    pbx: Pbx, authority: str, more: str, says: str
) -> None:
    node = Node(trunk(pbx) + more, PLAN, sip=settings(pbx, authority))
    seen = len(pbx.log())
    try:
        await node.start(registered=False)

        def told() -> bool:
            view = node.app.registrar.states["safe"]
            return view.state is RegistrationState.UNREACHABLE and says in view.sentence

        await until(told, "sentence that says what to do", 1)
        state = node.app.registry.trunks.states["safe"]
        assert state.state is TrunkState.DOWN and says in state.reason
        with pytest.raises(CapacityError, match="the certificate of"):
            await node.call("shortsafe", "safe")
        await asyncio.sleep(1)
        assert not re.search(r"(REGISTER|OPTIONS|INVITE) sips?:", pbx.log()[seen:])
    finally:
        await node.app.close()


async def test_a_certificate_that_turns_bad_is_seen_when_the_edge_complains(pbx: Pbx) -> None:
    file = pbx.papers.folder / "changing.pem"
    file.write_text(Path(pbx.papers.certificate("authority")).read_text())
    async with Node(trunk(pbx) + "options_s = 1", PLAN, sip=settings(pbx, "changing")) as node:
        file.write_text(Path(pbx.papers.certificate("stranger")).read_text())
        edge = node.app.lane.edge
        assert edge is not None
        os.kill(edge.pid, signal.SIGTERM)  # it reads its certificates anew and finds the trunk's no longer good

        def told() -> bool:
            return "`tls_ca`" in node.app.registry.trunks.states["safe"].reason

        await until(told, "sentence that says what to do", 15)
