"""The servers behind a trunk's name and the order to try them in (RFC 3263, RFC 2782). Pure."""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
MAX_SERVERS = 8


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """One address that requests can be sent to. ``priority`` and ``weight`` are those of its SRV record."""

    host: str  # an IP address
    port: int
    transport: str  # "udp", "tcp" or "tls"
    priority: int = 0
    weight: int = 0

    @property
    def address(self) -> str:
        """For people: ``192.0.2.1:5060`` and the transport where it is not UDP."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + ("" if self.transport == "udp" else f" over {self.transport.upper()}")

    @property
    def uri(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sip:{host}:{self.port};transport={self.transport}"

    @property
    def route(self) -> str:
        """What sends a request here; PJSIP follows it and does not show it (`hide`)."""
        return f"{self.uri};lr;hide"


def in_order(servers: Iterable[Server], random: Callable[[], float]) -> list[Server]:
    """By priority; within one priority drawn by weight, so that load spreads as the records ask (RFC 2782)."""
    left = sorted(servers, key=lambda server: (server.priority, server.weight))
    found: list[Server] = []
    while left:
        group = [server for server in left if server.priority == left[0].priority]
        mark = random() * sum(server.weight for server in group)
        chosen = group[-1]
        for server in group:
            mark -= server.weight
            if mark < 0:
                chosen = server
                break
        found.append(chosen)
        left.remove(chosen)
    return found


def is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return False
