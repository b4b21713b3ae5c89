"""Trunks as they come and go: OPTIONS to real servers, names from a real name server, calls in by digest."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest

from sipagent.core.events import TrunkChanged
from sipagent.core.states import RegistrationState, TrunkState
from sipagent.sip import trunk_state
from sipagent.sip.locate import DnsResolver, Locator
from sipagent.sip.names import HostsFile
from sipagent.sip.network import source_address
from sipagent.sip.protocol import Answered, Ended, Hangup, IncomingCall, OptionsResult, Reject
from sipagent.sip.routing import candidates
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.trunk_watch import TrunkWatch
from sipagent.sip.trunks import Known, Trunks, Unproven
from tests.peers import sipp
from tests.peers.dns import NameServer
from tests.peers.kamailio import PASSWORD, Kamailio
from tests.peers.nat import GATEWAY, INSIDE, NEXT_INSIDE, NatNetwork
from tests.peers.ports import free_port
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


class Watched:
    """An agent whose trunks are watched, with a name server of the test's own."""

    def __init__(
        self,
        *settings: TrunkSettings,
        names: NameServer | None = None,
        max_calls: int = 0,
        host: str = "127.0.0.1",
        source: Callable[[str], str] | None = None,
    ) -> None:
        self.trunks = Trunks(settings)
        self.agent = Agent(trunks=settings, max_calls=max_calls, host=host)
        self.source = "127.0.0.1"
        resolver = DnsResolver([names.address if names is not None else "127.0.0.1:9"])
        self.watch = TrunkWatch(
            self.trunks,
            self.agent.lane,
            self.agent.hub,
            Locator(resolver, HostsFile()),
            source=source or (lambda _host: self.source),
        )
        self.watch.registrations = lambda: self.agent.registrar.states
        self.watch.on_moved = self.agent.registrar.address_changed
        self.agent.registrar.servers = self.watch.servers
        self.agent.lane.on_fact = self._fact

    def _fact(self, fact: object) -> None:
        if isinstance(fact, OptionsResult):
            self.watch.on_fact(fact)
        else:
            self.agent._remember(fact)  # type: ignore[arg-type]

    async def __aenter__(self) -> "Watched":
        await self.watch.prepare()
        await self.agent.__aenter__()
        self.agent.registrar.start()
        self.watch.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.watch.close()
        await self.agent.__aexit__()

    def state(self, name: str) -> TrunkState:
        return self.trunks.states[name].state

    async def becomes(self, name: str, state: TrunkState, within_s: float = 30.0) -> None:
        await self.agent.until(lambda: self.state(name) is state, f"{name} {state}", within_s)

    async def registers_with(self, contact: str) -> None:
        def is_so() -> bool:
            last = self.agent.results[-1:]
            return bool(last) and last[0].expires_s > 0 and contact in last[0].contact

        await self.agent.until(is_so, f"registration of {contact}", 15)

    def changes(self) -> list[tuple[str, TrunkState]]:
        return [(event.trunk, event.state) for event in self.agent.events if isinstance(event, TrunkChanged)]


@pytest.fixture
async def kamailio() -> AsyncIterator[Kamailio]:
    async with Kamailio(expires_s=60) as kamailio:
        yield kamailio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_state, "ANSWER_S", 0.5)


async def test_a_trunk_goes_down_and_comes_back_as_its_server_does(kamailio: Kamailio) -> None:
    pbx = TrunkSettings(name="pbx", domain=kamailio.address, options_s=0.3)
    async with Watched(pbx) as watched:
        await asyncio.sleep(1.0)
        assert (watched.state("pbx"), watched.changes()) == (TrunkState.UP, [])
        await kamailio.stop()
        await watched.becomes("pbx", TrunkState.DOWN)
        assert "does not answer OPTIONS" in watched.trunks.states["pbx"].reason
        await kamailio.start()
        await watched.becomes("pbx", TrunkState.UP)
        assert watched.changes() == [("pbx", TrunkState.DOWN), ("pbx", TrunkState.UP)]


@pytest.mark.parametrize("max_calls", [0, 5], ids=["one lane", "behind the edge"])
async def test_of_the_servers_that_dns_names_a_dead_one_is_passed_over(kamailio: Kamailio, max_calls: int) -> None:
    dead = free_port()
    records = {
        "carrier.test. NAPTR": ['1 1 "s" "SIP+D2U" "" _sip._udp.carrier.test.'],
        "_sip._udp.carrier.test. SRV": [f"10 0 {dead} a.carrier.test.", f"20 0 {kamailio.port} a.carrier.test."],
        "a.carrier.test. A": ["127.0.0.1"],
    }
    async with NameServer(records) as names:
        carrier = TrunkSettings(
            name="carrier", registrar="carrier.test", username="alice", password=PASSWORD, options_s=0.3
        )
        async with Watched(carrier, names=names, max_calls=max_calls) as watched:
            ways = candidates("+4930123", [carrier], watched.trunks.states, lambda: 0.5)
            assert [way.server.port for way in ways if way.server] == [dead, kamailio.port]
            await watched.becomes("carrier", TrunkState.DEGRADED)
            (way,) = candidates("+4930123", [carrier], watched.trunks.states, lambda: 0.5)
            assert way.server is not None and way.server.port == kamailio.port
            async with Sipp("uas-outbound-answered.xml") as callee:
                next_hop = {"X-Next-Hop": f"sip:127.0.0.1:{callee.port}"}
                call = watched.agent.dial(way.uri, account="carrier", headers=next_hop, route=way.route)
                await watched.agent.fact(Answered, call=call)
                watched.agent.lane.send(Hangup(call=call))
                result = await callee.wait()
            result.check()
            (invite,) = result.received("INVITE")
            assert invite.startswith("INVITE sip:+4930123@carrier.test ")


async def test_a_name_that_nobody_knows_takes_the_trunk_down_until_it_is_known(
    kamailio: Kamailio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipagent.sip.trunk_watch._RETRY_S", 0.3)
    async with NameServer() as names:
        pbx = TrunkSettings(name="pbx", domain=f"pbx.test:{kamailio.port}", options_s=0.3)
        async with Watched(pbx, names=names) as watched:
            await watched.becomes("pbx", TrunkState.DOWN)
            assert "pbx.test has no address in DNS" in watched.trunks.states["pbx"].reason
            names.records["pbx.test. A"] = ["127.0.0.1"]
            await watched.becomes("pbx", TrunkState.UP)


async def test_a_new_address_of_ours_registers_anew_and_the_state_follows(
    kamailio: Kamailio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipagent.sip.trunk_watch._ADDRESSES_EVERY_S", 0.2)
    kam = TrunkSettings(name="kam", registrar=kamailio.address, username="alice", password=PASSWORD, options_s=0)
    async with Watched(kam) as watched:
        registrar = watched.agent.registrar
        await watched.agent.until(lambda: registrar.states["kam"].state is RegistrationState.REGISTERED, "registration")
        watched.source = ""
        await asyncio.sleep(0.5)
        before = kamailio.registers("alice", saved=True)
        watched.source = "127.0.0.1"  # the network is back
        await watched.agent.until(lambda: kamailio.registers("alice", saved=True) > before, "a new registration")
        await watched.agent.until(lambda: registrar.states["kam"].state is RegistrationState.REGISTERED, "registration")
        before = kamailio.registers("alice", saved=True)
        watched.source = "127.0.0.2"
        await watched.agent.until(lambda: kamailio.registers("alice", saved=True) > before, "a new registration")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_node_that_gets_another_address_is_reached_there(transport: Literal["udp", "tcp"]) -> None:
    with NatNetwork() as net:
        with net.gateway():
            registrar = await Kamailio(host=GATEWAY, port=5060, expires_s=120).start()
        try:
            with net.inside():
                pbx = TrunkSettings(
                    name="pbx", registrar=GATEWAY, username="100", password=PASSWORD, transport=transport, options_s=1.0
                )
                async with Watched(pbx, host="0.0.0.0", source=source_address) as watched:
                    await watched.registers_with(f"@{INSIDE}:")
                    net.move_inside()
                    await watched.registers_with(f"@{NEXT_INSIDE}:")
                    caller = Sipp("uac-inbound-answered.xml", target=f"{GATEWAY}:5060", service="100", duration_ms=50)
                    caller.args = ("-i", GATEWAY)
                    with net.gateway():
                        await caller.start()
                    (await caller.wait()).check()
                    await watched.becomes("pbx", TrunkState.UP)
        finally:
            await registrar.stop()


class Guarded(Agent):
    """Takes calls from who proves to be `ann` of the trunk `road`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        road = TrunkSettings(
            name="road", accept="digest", inbound_username="ann", inbound_password="secret", **settings
        )
        self.trunks = Trunks([road])
        self.on_call = self._identify

    async def __aenter__(self) -> "Guarded":
        await super().__aenter__()
        return self

    def _identify(self, call: IncomingCall) -> None:
        found = self.trunks.identify(call, now=asyncio.get_running_loop().time())
        if isinstance(found, Unproven):
            self.lane.send(Reject(call=call.call, status=401, challenges=found.challenges))
        elif isinstance(found, Known):
            self.answer(call)
        else:
            self.lane.send(Reject(call=call.call, status=found.status))


async def test_callers_prove_themselves_by_md5() -> None:
    # Debian's SIPp gives up where it is offered SHA-256 too.
    async with Guarded(inbound_algorithms=("MD5",)) as agent:
        (await sipp.run("uac-inbound-digest.xml", target=agent.address, duration_ms=100)).check()
        (await sipp.run("uac-inbound-digest-wrong-expect-403.xml", target=agent.address)).check()
        await agent.until(lambda: [fact.status for fact in agent.all(Ended)].count(401) == 2, "two challenges")
        assert agent.trunks.counters["road"].refused_password == 1


async def test_callers_prove_themselves_by_sha_256() -> None:
    road = TrunkSettings(name="road", domain="sipagent.test", username="ann", password="secret", register=False)
    async with Guarded() as callee, Agent(trunks=[road]) as caller:
        caller.registrar.start()
        call = caller.dial("sip:100@sipagent.test", account="road", route=[f"sip:{callee.address};lr;hide"])
        await caller.fact(Answered, call=call)
        proven = callee.all(IncomingCall)[-1]
        assert "algorithm=SHA-256" in proven.authorization[0]
        caller.lane.send(Hangup(call=call))
        await caller.ended(call)
