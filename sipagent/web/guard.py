"""Where a URL that somebody gave may lead: public addresses, and those the operator allows.

A name is judged by the addresses it resolves to, and the connection goes to one of exactly these; so neither a name
that points inside nor one that changes between question and connection leads into the operator's own network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from sipagent.core.errors import ConfigError, NotAllowed

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_LOOKUPS = 8  # at once; further ones wait, which counts to their time
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class Guard:
    def __init__(self, allow: Sequence[str] = (), setting: str = "[tools] allow") -> None:
        """``setting`` is where `allow` stands. Raises ConfigError for an entry that is neither a network nor a name."""
        self.setting = setting
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._names: set[str] = set()
        # Not the event loop's threads: a name server that is slow to answer must not keep calls from their sounds.
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="lookup")
        for entry in allow:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not entry or "/" in entry or ":" in entry:
                    raise ConfigError(f"{setting}: {entry!r} is neither a network, an address nor a name") from None
                self._names.add(entry.lower())

    def admits(self, host: str, address: str) -> bool:
        """Whether a connection may be made to this address under this name."""
        if host.lower().rstrip(".") in self._names:
            return True
        try:
            found = _meant(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return _is_public(found) or any(found in network for network in self._networks)

    def check_literal(self, host: str) -> None:
        """For a host that is an address: no name is resolved then. Raises NotAllowed."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            if _is_old_ipv4(host):
                raise NotAllowed("its address is not written as four decimal numbers") from None
            if ":" in host:
                raise NotAllowed("its address is no IPv6 address") from None
            return
        if not self.admits(host, host):
            raise NotAllowed(f"its address is not public and not in the operator's `{self.setting}`")

    async def addresses(self, host: str) -> list[str]:
        """What the name resolves to, or the address itself. Raises NotAllowed if any of it may not be reached, OSError
        if there is none."""
        self.check_literal(host)
        found = await self.look_up(host, 0, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
        addresses = list(dict.fromkeys(str(to[0]) for *_, to in found))
        if not all(self.admits(host, address) for address in addresses):
            raise NotAllowed(f"an address of it is not public and not in the operator's `{self.setting}`")
        return addresses

    async def look_up(self, host: str, port: int, **more: int) -> list[Any]:
        """What `socket.getaddrinfo` finds, admitted or not. Raises OSError."""
        look = partial(socket.getaddrinfo, host, port, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, look)


def _is_old_ipv4(host: str) -> bool:
    """One that the system reads as an address where we see a name: 127.1, 2130706433, 0x7f.1."""
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def _meant(address: Address) -> Address:
    """The IPv4 address inside of an IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    inside = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or inside)


class GuardedResolver(AbstractResolver):
    """Resolves names to those of their addresses that the guard admits."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError when the name has no address that may be reached."""
        found = await self._guard.look_up(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        admitted = [
            ResolveResult(
                hostname=host, host=str(to[0]), port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, to in found
            if self._guard.admits(host, str(to[0]))
        ]
        if not admitted:
            raise OSError(None, f"not a public address, and not in the operator's `{self._guard.setting}`")
        return admitted

    async def close(self) -> None:
        pass


class GuardedConnector(aiohttp.TCPConnector):
    """Looks at the host of every request, those of redirects too: an address in a URL is not resolved."""

    def __init__(self, guard: Guard, limit: int = 100, limit_per_host: int = 0) -> None:
        super().__init__(resolver=GuardedResolver(guard), limit=limit, limit_per_host=limit_per_host)
        self._guard = guard

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> aiohttp.connector.Connection:
        """Raises NotAllowed."""
        self._guard.check_literal(req.url.host or "")
        return await super().connect(req, traces, timeout)
