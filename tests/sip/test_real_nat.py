"""Behind a NAT of the kernel's: found by STUN, registered, called through it, and moved to another address."""

import asyncio
import sys

import pytest

from sipagent.core.events import Event, EventHub, PublicAddressChanged
from sipagent.sip import sdp
from sipagent.sip.nat import Nat
from sipagent.sip.protocol import Answer, IncomingCall, Register
from sipagent.sip.settings import TrunkSettings
from tests.peers.kamailio import PASSWORD, Kamailio
from tests.peers.nat import NEXT_PUBLIC, OUTSIDE, PUBLIC, NatNetwork
from tests.peers.sipp import Sipp
from tests.sip.agent import MEDIA_PORT, Agent

pytestmark = pytest.mark.peer


async def test_a_registered_node_is_called_through_the_nat_and_follows_its_move() -> None:
    with NatNetwork() as net:
        with net.outside():
            stun = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.peers.stun", f"{OUTSIDE}:3478", f"{OUTSIDE}:3479"),
                stdout=asyncio.subprocess.PIPE,
            )
            assert stun.stdout is not None and await stun.stdout.readline() == b"ready\n"
            registrar = await Kamailio(host=OUTSIDE, port=5060).start()
        try:
            with net.inside():
                await behind(net, registrar)
        finally:
            stun.terminate()
            await stun.wait()
            await registrar.stop()


async def behind(net: NatNetwork, registrar: Kamailio) -> None:
    hub, events = EventHub(), list[Event]()
    hub.subscribe(events.append)
    nat = Nat(public_host="", bound="", stun_servers=[OUTSIDE], every_s=0.3, events=hub)
    await nat.start()
    assert (nat.public_towards(OUTSIDE), nat.mapping) == (PUBLIC, "same")
    trunk = TrunkSettings(name="pbx", registrar=registrar.address, username="100", password=PASSWORD)
    agent = Agent(trunks=[trunk], host="0.0.0.0", tcp=False)

    def answer(call: IncomingCall) -> None:
        host = nat.media_towards(call.source)
        text = sdp.build_answer(sdp.parse(call.sdp), host=host, port=MEDIA_PORT, session_id=1)
        agent.lane.send(Answer(call=call.call, sdp=text))

    agent.on_call = answer
    async with agent:
        agent.registrar.start()
        await agent.until(lambda: agent.results[-1:] != [] and agent.results[-1].expires_s > 0, "registration", 10)
        first = agent.results[-1]
        assert first.seen.startswith(f"{PUBLIC}:") and f"@{first.seen}" in first.contact

        ok = await called(net, registrar)
        assert f"c=IN IP4 {PUBLIC}" in ok and f"Contact: <sip:100@{first.seen}" in ok

        net.move()
        await agent.until(lambda: nat.public_towards(OUTSIDE) == NEXT_PUBLIC, "the new address", 10)
        agent.lane.send(Register(account="pbx"))
        await agent.until(lambda: f"@{NEXT_PUBLIC}:" in agent.results[-1].contact, "registration anew", 10)
        assert f"c=IN IP4 {NEXT_PUBLIC}" in await called(net, registrar)
    await nat.close()
    told = [(event.address, event.before) for event in events if isinstance(event, PublicAddressChanged)]
    assert told == [(PUBLIC, ""), (NEXT_PUBLIC, PUBLIC)]


async def called(net: NatNetwork, registrar: Kamailio) -> str:
    """The 200 that a caller outside gets."""
    caller = Sipp("uac-inbound-answered.xml", target=registrar.address, service="100", args=("-i", OUTSIDE))
    with net.outside():
        await caller.start()
    result = await caller.wait()
    result.check()
    return result.received("SIP/2.0 200")[0]
