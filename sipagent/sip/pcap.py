"""A capture file (classic pcap) of SIP messages, for Wireshark and its like.

The lane sees messages, not packets: Ethernet, IP and UDP or TCP headers are made up around them. Addresses and ports of
the other side are true, ours too except for TCP connections that we opened. A message that went by TLS stands in
clear text. One of which only the beginning was kept is a packet cut short, as capture files know them.
"""

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

_MAGIC, _VERSION, _SNAP_LENGTH, _ETHERNET = 0xA1B2C3D4, (2, 4), 262144, 1
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP, _TCP = 17, 6
_PSH_ACK = 0x18
_OURS, _THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")  # locally administered
_MAX_IP = 65535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    at: datetime
    sent: bool
    transport: str  # "UDP" or a stream
    local: str  # host:port
    remote: str
    size: int  # bytes of the message on the wire
    text: str


def capture(packets: Iterable[Packet]) -> bytes:
    """The whole file."""
    parts = [struct.pack("<IHHiIII", _MAGIC, *_VERSION, 0, 0, _SNAP_LENGTH, _ETHERNET)]
    flows: dict[tuple[str, str], int] = {}  # bytes that went this way by TCP
    for packet in packets:
        payload = packet.text.encode()[:_SNAP_LENGTH]
        size = max(packet.size, len(payload))
        source, target = (packet.local, packet.remote) if packet.sent else (packet.remote, packet.local)
        sent, answered = flows.get((source, target), 0), flows.get((target, source), 0)
        frame = _frame(packet, source, target, payload, size, (sent + 1, answered + 1))
        if packet.transport.upper() != "UDP":
            flows[(source, target)] = sent + size
        since = packet.at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        seconds = since.days * 86400 + since.seconds
        parts.append(struct.pack("<IIII", seconds, since.microseconds, len(frame), len(frame) + size - len(payload)))
        parts.append(frame)
    return b"".join(parts)


def _frame(packet: Packet, source: str, target: str, payload: bytes, size: int, numbers: tuple[int, int]) -> bytes:
    (from_ip, from_port), (to_ip, to_port) = _address(source), _address(target)
    if from_ip.version != to_ip.version:  # one of them could not be read
        from_ip, to_ip = (ip if ip.version == 6 else ipaddress.IPv6Address(f"::ffff:{ip}") for ip in (from_ip, to_ip))
    if packet.transport.upper() == "UDP":
        protocol = _UDP
        head = struct.pack("!HHHH", from_port, to_port, min(8 + size, _MAX_IP), 0)
        if from_ip.version == 6:  # where 0 does not mean "none" (RFC 8200 section 8.1)
            pseudo = from_ip.packed + to_ip.packed + struct.pack("!II", 8 + size, protocol)
            checksum = _checksum(pseudo + head + payload) or 0xFFFF
            head = head[:6] + struct.pack("!H", checksum)
    else:
        protocol = _TCP
        sequence, acknowledged = (number & 0xFFFFFFFF for number in numbers)
        head = struct.pack("!HHIIBBHHH", from_port, to_port, sequence, acknowledged, 5 << 4, _PSH_ACK, 65535, 0, 0)
    hardware = _THEIRS + _OURS if packet.sent else _OURS + _THEIRS
    if from_ip.version == 4:
        length = min(20 + len(head) + size, _MAX_IP)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, protocol, 0) + from_ip.packed + to_ip.packed
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
        return hardware + struct.pack("!H", _IPV4) + ip + head + payload
    length = min(len(head) + size, _MAX_IP)
    ip = struct.pack("!IHBB", 6 << 28, length, protocol, 64) + from_ip.packed + to_ip.packed
    return hardware + struct.pack("!H", _IPV6) + ip + head + payload


def _address(text: str) -> tuple[Address, int]:
    host, _, port = text.rpartition(":")
    try:
        return ipaddress.ip_address(host.strip("[]")), int(port) & 0xFFFF
    except ValueError:
        return ipaddress.IPv4Address(0), 0


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
