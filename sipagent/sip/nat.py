"""Which address of ours the world sees, where a NAT stands between (RFC 4787), and how we come to know it.

Three ways, the first that says something counts: the operator's ([sip] and [media] public_host), a registrar's own
words (`received` and `rport` in its answer to REGISTER, RFC 3581) for the trunk's traffic, and STUN servers (where
there are none, the first registrar) for everybody beyond our networks. SDP asks `media_towards`; Contact and the edge
follow by `on_public`, and the Contact of a lane without an edge by PJSIP's doing.

IPv6 is translated by nobody: a peer there is told the address that it sees anyway, [media] host6 or the one on the way.

Ports: a NAT gives RTP a port of its own choice, and we say ours. The far side answers to where our packets come from
(symmetric RTP, RFC 4961), as every carrier's border does; what a NAT does with ports is asked and told for the case
that one does not.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sipagent.core.clock import now
from sipagent.core.events import EventSink, PublicAddressChanged
from sipagent.sip import addresses, stun
from sipagent.sip.stun import Binding, StunError

log = logging.getLogger("sipagent.sip")

Mapped = Literal["", "none", "same", "varying"]

_ANYWHERE = ("", "0.0.0.0", "::")
# Where nobody needs our public address: RFC 1918, loopback, link-local, and a carrier's own NAT (RFC 6598).
_NEAR = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10")
)
_LOOKUP_S = 5.0
_FIRST_LOOK_S = 5.0  # that a start of the node waits
_VIEWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a decision about our address goes by; "" is not known."""

    configured: str = ""  # public, by the operator
    bound: str = ""  # "" for every interface
    bound6: str = ""  # the same for IPv6, which nobody translates: we say what the peer sees anyway
    learned: str = ""  # public, by STUN or a registrar


def media_host(known: Known, views: Mapping[str, str], *, far: str, local: str) -> str:
    """The address for SDP to a peer. `far`: its address; `local`: ours on the way there.

    `views`: how each server that we register with sees us, by its address.
    """
    if addresses.is_ipv6(local):
        return known.bound6 or local
    if known.configured:
        return known.configured
    if far in views:
        return views[far]
    ours = known.bound or local
    if known.learned and _is_near(ours) and not _is_near(far):
        return known.learned
    return ours


def mapping(bindings: Sequence[Binding], local: tuple[str, int]) -> Mapped:
    """What a NAT does to a port of ours: nothing, the same for all destinations, or another for each ("symmetric").

    `bindings`: of one socket, by different servers or ports. "" when a single answer leaves it open.
    """
    seen = {(binding.host, binding.port) for binding in bindings}
    if seen == {local}:
        return "none"
    return "varying" if len(seen) > 1 else "same" if len(bindings) > 1 else ""


class Nat:
    """Watches our public address. `on_public` hears of every new one."""

    def __init__(
        self,
        *,
        public_host: str,
        bound: str,
        stun_servers: Sequence[str],
        every_s: float,
        events: EventSink,
        bound6: str = "",
    ) -> None:
        """`bound`: the host of our sockets, `bound6` of those for IPv6. `stun_servers`: host[:port], asked in order
        until two have answered.
        """
        self.on_public: Callable[[str], None] | None = None
        self.mapping: Mapped = ""
        self._known = Known(
            configured=public_host,
            bound="" if bound in _ANYWHERE else bound,
            bound6="" if bound6 in _ANYWHERE else bound6,
        )
        self._views: dict[str, str] = {}  # how servers see our host, by their address
        self._seen_by: dict[str, str] = {}  # host:port, by trunk
        self._learned_by = ""  # the trunk whose registrar told our public address
        self._servers = stun_servers
        self._every_s = every_s
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._complained = ""

    async def start(self) -> None:
        """Asks STUN once, if there are servers, and from then on now and again."""
        if self._servers and not self._known.configured:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LOOK_S):
                    await self._look()
            self._task = asyncio.create_task(self._watch(), name="stun")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def seen_by_registrar(self, trunk: str, server: str, address: str) -> None:
        """What an answer to REGISTER says; both host:port, "" where it says nothing."""
        host, seen = server.rpartition(":")[0], address.rpartition(":")[0]
        if not _is_address(host) or not _is_address(seen):
            return
        if host not in self._views and len(self._views) >= _VIEWS:
            del self._views[next(iter(self._views))]
        self._views[host] = seen
        before = self._seen_by.get(trunk, "")
        if before != address:
            self._seen_by[trunk] = address
            self._tell(f"registrar of {trunk}", address, before)
        behind = _is_near(self._known.bound or addresses.way_to(host)[1]) and not _is_near(seen)
        # One registrar's word goes for all the others' (of several uplinks one is chosen), where STUN is not asked.
        if behind and not self._servers and self._learned_by in ("", trunk):
            self._learned_by = trunk
            self._learn(seen)

    def forget(self, trunk: str) -> None:
        """The trunk is gone: another's registrar may tell our public address from now on."""
        self._seen_by.pop(trunk, None)
        if self._learned_by == trunk:
            self._learned_by = ""

    def media_towards(self, peer: str) -> str:
        """Our address as a peer (host or host:port) should see it in SDP. May look the name up, and wait for that."""
        far, local = addresses.way_to(peer)
        return media_host(self._known, self._views, far=far, local=local)

    def public_towards(self, peer: str) -> str:
        """What was learned, for a peer beyond our networks; else "". May look the name up, and wait for that."""
        if self._known.configured or not self._known.learned or addresses.is_ipv6(peer):
            return ""
        far, local = addresses.way_to(peer)
        host = media_host(self._known, {}, far=far, local=local)
        return host if host == self._known.learned else ""

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._look()

    async def _look(self) -> None:
        bindings, local, trouble = await _survey(self._servers, self._known.bound)
        if not bindings:
            if trouble != self._complained:
                log.warning("no STUN server tells our address", extra={"say": trouble})
            self._complained = trouble
            return
        self._complained = ""
        self.mapping = mapping(bindings, local) or self.mapping
        host, before = bindings[0].host, self._known.learned
        if host == before:
            return
        self._tell("stun", host, before)
        if self.mapping == "varying":
            log.warning("the NAT is symmetric: audio comes only from peers that answer to where ours comes from")
        self._learn(host)

    def _learn(self, host: str) -> None:
        if self._known.configured or host == self._known.learned:
            return
        self._known = replace(self._known, learned=host)
        if self.on_public is not None:
            self.on_public(host)

    def _tell(self, by: str, address: str, before: str) -> None:
        log.info("public address", extra={"by": by, "address": address, "before": before, "mapping": self.mapping})
        self._events.emit(PublicAddressChanged(at=now(), by=by, address=address, before=before, mapping=self.mapping))


async def _survey(servers: Sequence[str], bound: str) -> tuple[list[Binding], tuple[str, int], str]:
    """Up to two answers to one socket, that socket's own address, and what went wrong last."""
    found: list[Binding] = []
    trouble = ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((bound, 0))
        port = sock.getsockname()[1]
        local = ("", port)
        for server in servers:
            try:
                address = await _resolve(server)
                found.append(await stun.ask(address, sock))
                local = (bound or addresses.way_to(address[0])[1], port)
                other = found[-1].other
                if len(found) == 1 and other is not None and other != address:
                    with contextlib.suppress(StunError):
                        found.append(await stun.ask(other, sock))
            except StunError as error:
                trouble = f"{server}: {error}"
            if len(found) > 1:
                break
    return found, local, trouble


async def _resolve(server: str) -> tuple[str, int]:
    host, _, port = server.partition(":")
    try:
        async with asyncio.timeout(_LOOKUP_S):
            entries = await asyncio.get_running_loop().getaddrinfo(
                host, int(port or stun.PORT), family=socket.AF_INET, type=socket.SOCK_DGRAM
            )
    except (OSError, TimeoutError) as error:
        raise StunError("its name cannot be looked up") from error
    address = entries[0][4]
    return str(address[0]), int(address[1])


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_near(address: str) -> bool:
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError:
        return True  # a name, or nothing known: the public address would be a guess
    return any(found in network for network in _NEAR)
