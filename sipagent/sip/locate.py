"""Where a SIP URI leads (RFC 3263): NAPTR says which transports a domain speaks, SRV which servers, A their addresses.

PJSIP does the second and third by itself; NAPTR, the order by weight, and going on to the next server it does not.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from sipagent.sip import message
from sipagent.sip.names import HostsFile
from sipagent.sip.servers import DEFAULT_PORTS, MAX_SERVERS, Server, is_address

LOOKUP_S = 3.0
SHORTEST_S, LONGEST_S = 30.0, 3600.0  # between two looks at one name, whatever the TTL says
_MAX_RECORDS = 16
_NAPTR = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
_SRV = {"udp": "_sip._udp.", "tcp": "_sip._tcp.", "tls": "_sips._tcp."}


class Unlocated(Exception):
    """Nothing was found; the text is a sentence for the operator."""


class Resolver(Protocol):
    """Records of one kind of a name, and how long they hold (s). Empty when there are none; raises Unlocated."""

    async def look_up(self, name: str, kind: str) -> tuple[list[Any], float]: ...


class DnsResolver:
    """Asks the name servers, ``address`` or ``address:port``, without the machine's search domains."""

    def __init__(self, servers: Iterable[str]) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        found: list[str | dns.nameserver.Nameserver] = []
        for server in servers:
            host, _, port = server.partition(":")
            found.append(dns.nameserver.Do53Nameserver(host, int(port or 53)))
        self._resolver.nameservers = found
        self._resolver.lifetime = LOOKUP_S
        self._resolver.search = []

    async def look_up(self, name: str, kind: str) -> tuple[list[Any], float]:
        try:
            answer = await self._resolver.resolve(f"{name.rstrip('.')}.", kind, search=False)
        except dns.resolver.NoAnswer:
            return [], SHORTEST_S
        except dns.resolver.NXDOMAIN:
            return [], SHORTEST_S
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise Unlocated(f"no name server answers for {name} ({type(error).__name__}): check DNS") from error
        return list(answer)[:_MAX_RECORDS], float(answer.rrset.ttl if answer.rrset is not None else SHORTEST_S)


class Locator:
    """Finds the servers of SIP URIs, by the hosts file and by DNS.

    >>> import asyncio
    >>> locator = Locator(DnsResolver(["192.0.2.53"]), HostsFile())
    >>> asyncio.run(locator.locate("sip:192.0.2.1;transport=tcp"))[0]
    [Server(host='192.0.2.1', port=5060, transport='tcp', priority=0, weight=0)]
    """

    def __init__(self, resolver: Resolver, hosts: HostsFile, *, ipv6: bool = False) -> None:
        """``ipv6``: where a name has no IPv4 address, one of IPv6 will do."""
        self._ipv6 = ipv6
        self._resolver = resolver
        self._hosts = hosts

    async def locate(self, uri: str) -> tuple[list[Server], float]:
        """The servers of the URI, with how long (s) that may be believed. Raises Unlocated."""
        address = message.parse_address(f"<{uri}>")
        host = address.host
        if not host:
            raise Unlocated(f"{uri or 'the address'} is no SIP URI with a host")
        secure = uri.lower().startswith("sips:")
        wanted = "tls" if secure else address.uri_params.get("transport", "").lower()
        if wanted and wanted not in DEFAULT_PORTS:
            raise Unlocated(f"transport `{wanted}` is none of udp, tcp, tls")
        known = host if is_address(host) else self._hosts.address(host)
        if known:
            return [_server(known, address.port, wanted)], LONGEST_S
        if address.port:
            return await self._addresses(host, address.port, wanted)
        for transport, name in await self._services(host, wanted):
            found, ttl = await self._srv(name, transport)
            if found:  # the preferred transport that is there
                return found[:MAX_SERVERS], _bounded(ttl)
        return await self._addresses(host, 0, wanted)

    async def _services(self, host: str, wanted: str) -> list[tuple[str, str]]:
        """Transports and SRV names to ask for, the preferred first."""
        if wanted:
            return [(wanted, _SRV[wanted] + host)]
        records, _ = await self._resolver.look_up(host, "NAPTR")
        found: list[tuple[int, int, str, str]] = []
        for record in records:
            transport = _NAPTR.get(record.service.decode("ascii", "replace").upper())
            # TLS without being asked for needs the edge; it is taken when the trunk says so.
            if transport in ("udp", "tcp") and record.flags.lower() == b"s":
                found.append((record.order, record.preference, transport, str(record.replacement).rstrip(".")))
        if found:
            return [(transport, name) for _, _, transport, name in sorted(found)][:2]
        return [("udp", _SRV["udp"] + host), ("tcp", _SRV["tcp"] + host)]

    async def _srv(self, name: str, transport: str) -> tuple[list[Server], float]:
        records, ttl = await self._resolver.look_up(name, "SRV")
        found: list[Server] = []
        trouble: Unlocated | None = None
        for record in sorted(records, key=lambda record: (record.priority, -record.weight))[:MAX_SERVERS]:
            target = str(record.target).rstrip(".")
            if not target:
                continue  # "." says that the service is not there (RFC 2782)
            try:
                for address, held in await self._a(target):
                    found.append(Server(address, record.port, transport, record.priority, record.weight))
                    ttl = min(ttl, held)
            except Unlocated as error:
                trouble = error
        if trouble is not None and not found:
            raise trouble
        return found, ttl

    async def _addresses(self, host: str, port: int, wanted: str) -> tuple[list[Server], float]:
        pairs = await self._a(host)
        if not pairs:
            raise Unlocated(
                f"{host} has no address in DNS: check the spelling of the trunk's host, and the name servers"
            )
        return [_server(address, port, wanted) for address, _ in pairs][:MAX_SERVERS], _bounded(
            min(ttl for _, ttl in pairs)
        )

    async def _a(self, host: str) -> list[tuple[str, float]]:
        known = self._hosts.address(host)
        if known:
            return [(known, LONGEST_S)]
        records, ttl = await self._resolver.look_up(host, "A")
        if not records and self._ipv6:
            records, ttl = await self._resolver.look_up(host, "AAAA")
        return [(str(record.address), ttl) for record in records]


def _server(host: str, port: int, wanted: str) -> Server:
    transport = wanted or "udp"
    return Server(host.strip("[]"), port or DEFAULT_PORTS[transport], transport)


def _bounded(ttl: float) -> float:
    return min(max(ttl, SHORTEST_S), LONGEST_S)
