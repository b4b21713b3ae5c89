"""Behind a NAT of the kernel's: found by STUN, registered, called through it, and moved to another address."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator

import pytest

from sipagent.core.events import Event, EventHub, PublicAddressChanged
from sipagent.sip import sdp
from sipagent.sip.nat import Nat
from sipagent.sip.protocol import Answer, IncomingCall, Register, RegistrationResult
from sipagent.sip.settings import TrunkSettings
from tests.peers.kamailio import PASSWORD, Kamailio
from tests.peers.nat import NEXT_PUBLIC, OUTSIDE, PUBLIC, NatNetwork
from tests.peers.sipp import Sipp
from tests.sip.agent import MEDIA_PORT, Agent

pytestmark = pytest.mark.peer


@pytest.fixture
async def world() -> AsyncIterator[tuple[NatNetwork, Kamailio]]:
    """The NAT, with STUN and a registrar outside; the test itself is inside."""
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
                yield net, registrar
        finally:
            stun.terminate()
            await stun.wait()
            await registrar.stop()


class Node:
    """An agent and what it knows of its address, joined as a node joins them."""

    def __init__(self, registrar: Kamailio, stun_servers: tuple[str, ...] = (), max_calls: int = 0) -> None:
        trunk = TrunkSettings(name="pbx", registrar=registrar.address, username="100", password=PASSWORD)
        self.agent = Agent(trunks=[trunk], host="0.0.0.0", tcp=False, max_calls=max_calls, stun_servers=stun_servers)
        self.events: list[Event] = []
        hub = EventHub()
        hub.subscribe(self.events.append)
        self.nat = Nat(public_host="", bound="", stun_servers=stun_servers, every_s=0.3, events=hub)
        lane = self.agent.lane
        lane.public_towards, self.nat.on_public = self.nat.public_towards, lane.learned_address
        known = lane.on_registration
        assert known is not None

        def registration(fact: RegistrationResult) -> None:
            if fact.status == 200:
                self.nat.seen_by_registrar(fact.account, fact.server, fact.seen)
            known(fact)

        lane.on_registration = registration
        self.agent.on_call = self._answer

    async def __aenter__(self) -> "Node":
        await self.nat.start()
        await self.agent.__aenter__()
        self.agent.registrar.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.agent.__aexit__()
        await self.nat.close()

    async def registered_at(self, host: str) -> RegistrationResult:
        results = self.agent.results
        await self.agent.until(lambda: bool(results) and f"@{host}:" in results[-1].contact, f"Contact at {host}", 15)
        return results[-1]

    def told(self) -> list[tuple[str, str]]:
        changes = [event for event in self.events if isinstance(event, PublicAddressChanged)]
        return [(event.address.partition(":")[0], event.before.partition(":")[0]) for event in changes]

    def _answer(self, call: IncomingCall) -> None:
        host = self.nat.media_towards(call.source)
        text = sdp.build_answer(sdp.parse(call.sdp), host=host, port=MEDIA_PORT, session_id=1)
        self.agent.lane.send(Answer(call=call.call, sdp=text))


async def test_a_registered_node_is_called_through_the_nat_and_follows_its_move(
    world: tuple[NatNetwork, Kamailio],
) -> None:
    net, registrar = world
    async with Node(registrar, stun_servers=(OUTSIDE,)) as node:
        assert (node.nat.public_towards(OUTSIDE), node.nat.mapping) == (PUBLIC, "same")
        first = await node.registered_at(PUBLIC)
        assert first.seen.startswith(f"{PUBLIC}:") and f"@{first.seen}" in first.contact
        ok = await called(net, registrar)
        assert f"c=IN IP4 {PUBLIC}" in ok and f"Contact: <sip:100@{first.seen}" in ok

        net.move()
        await node.agent.until(lambda: node.nat.public_towards(OUTSIDE) == NEXT_PUBLIC, "the new address", 10)
        node.agent.lane.send(Register(account="pbx"))
        await node.registered_at(NEXT_PUBLIC)
        assert f"c=IN IP4 {NEXT_PUBLIC}" in await called(net, registrar)
        assert [change for change in node.told() if change[0] == NEXT_PUBLIC][0] == (NEXT_PUBLIC, PUBLIC)


async def test_with_an_edge_in_front_the_registrars_word_is_enough(world: tuple[NatNetwork, Kamailio]) -> None:
    net, registrar = world
    async with Node(registrar, max_calls=6) as node:
        assert node.agent.lane.edge is not None
        first = await node.registered_at(PUBLIC)
        assert first.seen.startswith(f"{PUBLIC}:") and first.server == registrar.address
        ok = await called(net, registrar)
        # Which lane has the call is chance, and so is the user: only one of them has the registration.
        assert f"c=IN IP4 {PUBLIC}" in ok and re.search(rf"Contact: <sip:(100|sipagent)@{PUBLIC}:", ok)
        assert f"Record-Route: <sip:{PUBLIC}" in ok and "10.99." not in ok
        assert node.told() == [(PUBLIC, "")]


async def called(net: NatNetwork, registrar: Kamailio) -> str:
    """The 200 that a caller outside gets."""
    caller = Sipp("uac-inbound-answered.xml", target=registrar.address, service="100", args=("-i", OUTSIDE))
    with net.outside():
        await caller.start()
    result = await caller.wait()
    result.check()
    return result.received("SIP/2.0 200")[0]
