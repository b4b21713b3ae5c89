"""RFC 3263 with a name server on the wire."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipagent.sip import locate
from sipagent.sip.locate import DnsResolver, Locator, Unlocated
from sipagent.sip.names import HostsFile
from tests.peers.dns import NameServer

RECORDS = {
    "carrier.test. NAPTR": [
        '20 10 "s" "SIP+D2U" "" _sip._udp.carrier.test.',
        '10 10 "s" "SIP+D2T" "" _sip._tcp.carrier.test.',
        '5 10 "s" "SIPS+D2T" "" _sips._tcp.carrier.test.',
        '1 1 "u" "E2U+sip" "!^.*$!sip:x@y!" .',
    ],
    "_sip._tcp.carrier.test. SRV": [
        "20 0 5070 b.carrier.test.",
        "10 60 5060 a.carrier.test.",
        "10 40 5061 c.carrier.test.",
    ],
    "_sip._udp.carrier.test. SRV": ["10 0 5060 a.carrier.test."],
    "_sips._tcp.carrier.test. SRV": ["10 0 5061 a.carrier.test."],
    "a.carrier.test. A": ["192.0.2.1"],
    "b.carrier.test. A": ["192.0.2.2", "192.0.2.3"],
    "c.carrier.test. A": ["192.0.2.4"],
    "_sip._udp.plain.test. SRV": ["1 0 5080 a.carrier.test."],
    "nowhere.test. SRV": ["0 0 0 ."],
    "_sip._udp.nowhere.test. SRV": ["0 0 0 ."],
    "bare.test. A": ["192.0.2.9"],
}


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with NameServer(RECORDS) as server:
        yield server


def locator(server: NameServer, hosts: Path = Path("/none")) -> Locator:
    return Locator(DnsResolver([server.address]), HostsFile(hosts))


async def found(server: NameServer, uri: str) -> list[str]:
    servers, held_s = await locator(server).locate(uri)
    assert locate.SHORTEST_S <= held_s <= locate.LONGEST_S
    return [f"{it.priority}/{it.weight} {it.address}" for it in servers]


async def test_naptr_chooses_the_transport_and_srv_the_servers(server: NameServer) -> None:
    first, second, *others = await found(server, "sip:carrier.test")
    assert (first, second) == ("10/60 192.0.2.1:5060 over TCP", "10/40 192.0.2.4:5061 over TCP")
    assert sorted(others) == ["20/0 192.0.2.2:5070 over TCP", "20/0 192.0.2.3:5070 over TCP"]


async def test_a_transport_or_a_port_that_is_given_is_not_asked_for(server: NameServer) -> None:
    assert await found(server, "sip:carrier.test;transport=udp") == ["10/0 192.0.2.1:5060"]
    assert await found(server, "sips:carrier.test") == ["10/0 192.0.2.1:5061 over TLS"]
    assert not any("NAPTR" in asked for asked in server.asked)
    server.asked.clear()
    assert await found(server, "sip:bare.test:5099;transport=tcp") == ["0/0 192.0.2.9:5099 over TCP"]
    assert server.asked == ["bare.test. A"]


async def test_without_naptr_srv_is_asked_and_without_that_the_address(server: NameServer) -> None:
    assert await found(server, "sip:plain.test") == ["1/0 192.0.2.1:5080"]
    assert await found(server, "sip:bare.test") == ["0/0 192.0.2.9:5060"]
    assert server.asked[-4:] == [
        "bare.test. NAPTR",
        "_sip._udp.bare.test. SRV",
        "_sip._tcp.bare.test. SRV",
        "bare.test. A",
    ]


async def test_ipv6_serves_where_there_is_no_ipv4_and_the_edge_speaks_it(server: NameServer) -> None:
    server.records = {"six.test. AAAA": ["2001:db8::7"]}
    with pytest.raises(Unlocated, match="has no address"):
        await locator(server).locate("sip:six.test:5060")
    servers, _ = await Locator(DnsResolver([server.address]), HostsFile(Path("/none")), ipv6=True).locate(
        "sip:six.test:5060"
    )
    assert servers[0].route == "sip:[2001:db8::7]:5060;transport=udp;lr;hide"


async def test_addresses_and_the_hosts_file_need_no_name_server(server: NameServer, tmp_path: Path) -> None:
    assert await found(server, "sip:192.0.2.7") == ["0/0 192.0.2.7:5060"]
    assert await found(server, "sip:[2001:db8::7];transport=tls") == ["0/0 [2001:db8::7]:5061 over TLS"]
    path = tmp_path / "hosts"
    path.write_text("192.0.2.8 pbx.lan\n")
    servers, _ = await locator(server, path).locate("sip:pbx.lan:5070")
    assert [it.address for it in servers] == ["192.0.2.8:5070"]
    assert server.asked == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sip:unknown.test", "has no address in DNS"),
        ("sip:nowhere.test", "has no address in DNS"),
        ("sip:a.test;transport=sctp", "none of udp, tcp, tls"),
        ("sip:", "no SIP URI with a host"),
        ("", "no SIP URI with a host"),
    ],
)
async def test_what_cannot_be_located_says_why(server: NameServer, uri: str, words: str) -> None:
    with pytest.raises(Unlocated, match=words):
        await locator(server).locate(uri)


async def test_a_name_server_that_does_not_answer(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.silent = True
    monkeypatch.setattr(locate, "LOOKUP_S", 0.3)
    with pytest.raises(Unlocated, match="no name server answers for carrier.test"):
        await locator(server).locate("sip:carrier.test")


async def test_what_dns_says_is_bounded(server: NameServer) -> None:
    many = [f"1 0 {5000 + n} a.carrier.test." for n in range(100)]
    server.records = {"_sip._udp.big.test. SRV": many[:25], "a.carrier.test. A": ["192.0.2.1"]}
    assert len(await found(server, "sip:big.test;transport=udp")) == 8
