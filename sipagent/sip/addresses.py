"""This machine's own addresses, as the kernel has them (Linux)."""

import array
import contextlib
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

_SIOCGIFCONF = 0x8912
_ENTRY = 40  # bytes of struct ifreq on 64-bit Linux: the name, then a sockaddr_in
_MOST = 256
_GLOBAL_SCOPE = "00"
_SOMEWHERE = "192.0.2.1"  # of nobody (RFC 5737): any address beyond our own networks


def ipv4() -> list[str]:
    """Of every interface that is up, loopback first."""
    buffer = array.array("B", bytes(_ENTRY * _MOST))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        (length,) = struct.unpack("i", fcntl.ioctl(probe, _SIOCGIFCONF, request)[:4])
    found = {socket.inet_ntoa(bytes(buffer[at + 20 : at + 24])) for at in range(0, length, _ENTRY)}
    return sorted(found, key=lambda address: (not address.startswith("127."), address))


def ipv6() -> list[str]:
    """The loopback's and the global ones; link-local addresses serve nobody beyond the next switch."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            words = line.split()
            address = ipaddress.IPv6Address(int(words[0], 16))
            if words[3] == _GLOBAL_SCOPE or address.is_loopback:
                found.append(str(address))
    return sorted(found, key=lambda address: (address != "::1", address))


def is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, with brackets or without."""
    return host.count(":") > 1


def with_port(host: str, port: int) -> str:
    """``host:port``, with the brackets that IPv6 needs."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def way_to(peer: str) -> tuple[str, str]:
    """The address of a peer (host, or host:port; IPv6 then in brackets) and ours on the way there. What cannot be
    found out is "" and the loopback's. May look the name up, and wait for that.
    """
    host = peer.partition("]")[0].strip("[") if peer.startswith("[") else peer
    if not is_ipv6(host):
        host = host.partition(":")[0]
    family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # no packet is sent: the kernel only picks the route
            return str(probe.getpeername()[0]), str(probe.getsockname()[0])
        except OSError:
            return "", "::1" if family == socket.AF_INET6 else "127.0.0.1"


def towards(host: str) -> str:
    """Our IPv4 address on the way to this host, on the way out when there is none or it cannot be looked up."""
    for far in (host, _SOMEWHERE):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            if far:
                probe.connect((far, 9))  # no packet is sent: the kernel only picks the route
                return str(probe.getsockname()[0])
    return "127.0.0.1"
