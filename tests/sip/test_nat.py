"""Our public address: who says it, who is told it, and what happens when it changes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from sipagent.core.events import Event, EventHub, PublicAddressChanged
from sipagent.sip.message import seen_as
from sipagent.sip.nat import Known, Nat, mapping, media_host
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.stun import Binding
from tests.peers.stun import StunServer
from tests.sip.agent import Agent

CARRIER, LAN = "198.51.100.7", "192.168.1.20"


@pytest.mark.parametrize(
    ("known", "views", "far", "local", "said"),
    [
        (Known(), {}, CARRIER, "192.168.1.5", "192.168.1.5"),
        (Known(bound="10.0.0.5"), {}, CARRIER, "10.0.0.5", "10.0.0.5"),
        (Known(configured="203.0.113.9"), {CARRIER: "203.0.113.1"}, CARRIER, "192.168.1.5", "203.0.113.9"),
        (Known(learned="203.0.113.8"), {CARRIER: "203.0.113.1"}, CARRIER, "192.168.1.5", "203.0.113.1"),
        (Known(learned="203.0.113.8"), {}, CARRIER, "192.168.1.5", "203.0.113.8"),
        (Known(learned="203.0.113.8", bound="10.0.0.5"), {}, CARRIER, "10.0.0.5", "203.0.113.8"),
        (Known(learned="203.0.113.8"), {}, LAN, "192.168.1.5", "192.168.1.5"),  # a PBX beside us
        (Known(learned="203.0.113.8"), {}, CARRIER, "203.0.113.77", "203.0.113.77"),  # no NAT on this way
        (Known(learned="203.0.113.8"), {}, "", "127.0.0.1", "127.0.0.1"),  # nothing is known of the peer
        (Known(configured="203.0.113.9", learned="203.0.113.8"), {}, "2001:db8::7", "2001:db8::1", "2001:db8::1"),
        (Known(bound6="2001:db8::2"), {}, "2001:db8::7", "2001:db8::1", "2001:db8::2"),
    ],
)
def test_what_sdp_says(known: Known, views: dict[str, str], far: str, local: str, said: str) -> None:
    assert media_host(known, views, far=far, local=local) == said


def test_what_a_nat_does_to_ports() -> None:
    ours, mapped, other = ("10.0.0.5", 4000), Binding("203.0.113.8", 61000), Binding("203.0.113.8", 61001)
    assert mapping([Binding(*ours)], ours) == "none"
    assert mapping([mapped], ours) == ""
    assert mapping([mapped, mapped], ours) == "same"
    assert mapping([mapped, other], ours) == "varying"


@pytest.mark.parametrize(
    ("via", "seen"),
    [
        ("SIP/2.0/UDP 10.0.0.5:5060;rport=40001;branch=z;received=203.0.113.9", "203.0.113.9:40001"),
        ("SIP/2.0/UDP 10.0.0.5:5060;rport=5060;branch=z", "10.0.0.5:5060"),
        ("SIP/2.0/UDP 10.0.0.5:5060;rport;branch=z", ""),
        ("SIP/2.0/UDP 10.0.0.5:5060;received=203.0.113.9;rport=x", ""),
        ("", ""),
    ],
)
def test_a_registrars_view_stands_in_via(via: str, seen: str) -> None:
    assert seen_as(via) == seen


class Watched:
    """A Nat on loopback with what it told."""

    def __init__(self, *servers: str, public_host: str = "") -> None:
        hub = EventHub()
        self.events: list[Event] = []
        self.public: list[str] = []
        hub.subscribe(self.events.append)
        self.nat = Nat(public_host=public_host, bound="127.0.0.1", stun_servers=servers, every_s=0.1, events=hub)
        self.nat.on_public = self.public.append

    async def __aenter__(self) -> "Watched":
        await self.nat.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.nat.close()

    def told(self) -> list[tuple[str, str, str, str]]:
        found = [event for event in self.events if isinstance(event, PublicAddressChanged)]
        return [(event.by, event.address, event.before, event.mapping) for event in found]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_stun_tells_the_address_and_every_new_one() -> None:
    async with StunServer() as first, StunServer() as second:
        first.seen_as = second.seen_as = ("203.0.113.8", 61000)
        servers = [f"127.0.0.1:{server.port}" for server in (first, second)]
        async with Watched("no.such.host.invalid", *servers) as watched:
            assert watched.told() == [("stun", "203.0.113.8", "", "same")]
            assert watched.nat.public_towards(CARRIER) == "203.0.113.8"
            assert watched.nat.media_towards(f"{CARRIER}:5060") == "203.0.113.8"
            assert watched.nat.public_towards("127.0.0.1") == ""
            first.seen_as, second.seen_as = ("203.0.113.99", 61000), ("203.0.113.99", 61001)
            await until(lambda: len(watched.public) == 2)
            assert watched.told()[1:] == [("stun", "203.0.113.99", "203.0.113.8", "varying")]
            assert watched.nat.media_towards(CARRIER) == "203.0.113.99"
            first.answer = second.answer = lambda _: None  # gone: what was known stays
            await asyncio.sleep(0.3)
            assert watched.nat.media_towards(CARRIER) == "203.0.113.99"
        assert watched.public == ["203.0.113.8", "203.0.113.99"]


async def test_one_server_with_a_second_address_tells_what_the_nat_does() -> None:
    async with StunServer() as second, StunServer(other=("127.0.0.1", second.port)) as first:
        first.seen_as, second.seen_as = ("203.0.113.8", 61000), ("203.0.113.8", 62000)
        async with Watched(f"127.0.0.1:{first.port}") as watched:
            assert watched.nat.mapping == "varying"
        assert second.requests == first.requests[:1]  # from the same socket


async def test_what_the_operator_says_is_not_asked_about() -> None:
    async with StunServer() as server, Watched(f"127.0.0.1:{server.port}", public_host="203.0.113.1") as watched:
        assert watched.nat.media_towards(CARRIER) == "203.0.113.1"
        assert watched.nat.public_towards(CARRIER) == ""
        assert server.requests == [] and watched.told() == []


async def test_a_registrars_view_is_for_its_own_traffic() -> None:
    async with Watched() as watched:
        seen = watched.nat.seen_by_registrar
        seen("pbx", "127.0.0.2:5060", "203.0.113.9:40001")
        seen("pbx", "127.0.0.2:5060", "203.0.113.9:40001")
        seen("pbx", "127.0.0.2:5060", "203.0.113.9:40002")  # the NAT began anew
        seen("bad", "127.0.0.3:5060", "a name\r\nc=IN IP4 6.6.6.6:1")
        seen("bad", "", "")
        assert watched.nat.media_towards("127.0.0.2:5060") == "203.0.113.9"
        assert watched.nat.media_towards("127.0.0.3:5060") == "127.0.0.1"
        assert watched.told() == [
            ("registrar of pbx", "203.0.113.9:40001", "", ""),
            ("registrar of pbx", "203.0.113.9:40002", "203.0.113.9:40001", ""),
        ]
        assert watched.public == ["203.0.113.9"]
        assert watched.nat.media_towards(CARRIER) == "203.0.113.9"  # nobody else says anything
        for number in range(1000):
            seen("pbx", f"10.0.{number // 256}.{number % 256}:5060", "203.0.113.9:1")
        assert len(watched.nat._views) <= 256


class Registrar(asyncio.DatagramProtocol):
    """Grants everything, says that it sees us at ``seen``, and counts what keeps a NAT open."""

    def __init__(self) -> None:
        self.seen = ("203.0.113.9", 40001)
        self.contacts: list[str] = []
        self.keepalives = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @property
    def address(self) -> str:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if not data.strip():
            self.keepalives += 1
            return
        text = data.decode()
        contact = re.findall(r"^Contact: <sip:[^@]*@([^;>]+)", text, re.MULTILINE)
        self.contacts += contact
        host, port = self.seen
        head = re.findall(r"^(?:From|To|Call-ID|CSeq|Contact|Expires): .*\r$", text, re.MULTILINE)
        via = re.findall(r"^Via: .*", text, re.MULTILINE)[0].strip().replace(";rport", f";rport={port};received={host}")
        lines = ["SIP/2.0 200 OK", via, *(line.strip() for line in head), "Content-Length: 0", "", ""]
        assert self._transport is not None
        self._transport.sendto("\r\n".join(lines).encode(), addr)


@pytest.fixture
async def registrar() -> AsyncIterator[Registrar]:
    transport, registrar = await asyncio.get_running_loop().create_datagram_endpoint(
        Registrar, local_addr=("127.0.0.1", 0)
    )
    yield registrar
    transport.close()


async def test_contact_follows_what_the_registrar_sees_and_the_way_in_is_kept_open(registrar: Registrar) -> None:
    trunk = TrunkSettings(name="pbx", registrar=registrar.address, username="100", password="x", expires_s=60)
    agent = Agent(trunks=[trunk], keepalive_s=1)
    async with agent:
        agent.registrar.start()
        await agent.until(lambda: "203.0.113.9:40001" in registrar.contacts, "Contact as seen")
        await agent.until(lambda: len(agent.results) > 0, "a result")
        assert (agent.results[0].seen, agent.results[0].server) == ("203.0.113.9:40001", registrar.address)
        assert agent.results[0].seen != registrar.contacts[0]  # the first REGISTER did not know
        await agent.until(lambda: registrar.keepalives >= 2, "two keep-alives")
