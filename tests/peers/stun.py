"""A STUN server (RFC 5389, OTHER-ADDRESS of RFC 5780), written apart from the client: `python -m tests.peers.stun`.

As a program it takes HOST:PORT [OTHER_HOST:OTHER_PORT] and answers until it is ended.
"""

import asyncio
import ipaddress
import struct
import sys
from collections.abc import Callable

COOKIE = b"\x21\x12\xa4\x42"
Address = tuple[str, int]


class StunServer(asyncio.DatagramProtocol):
    """``async with StunServer():`` answers truly unless told how to: ``seen_as`` gives an address, ``answer`` bytes."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, other: Address | None = None) -> None:
        self.host, self.port, self.other = host, port, other
        self.seen_as: Address | None = None
        self.answer: Callable[[bytes], bytes | None] | None = None
        self.requests: list[Address] = []
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> Address:
        return self.host, self.port

    async def __aenter__(self) -> "StunServer":
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        source = (str(addr[0]), int(addr[1]))
        if len(data) < 20 or data[:2] != b"\x00\x01" or data[4:8] != COOKIE:
            return
        self.requests.append(source)
        reply = self.answer(data) if self.answer is not None else success(data, self.seen_as or source, self.other)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, source)


def success(request: bytes, seen: Address, other: Address | None = None) -> bytes:
    host = ipaddress.ip_address(seen[0])
    family = 1 if host.version == 4 else 2
    pad = COOKIE + request[8:20]
    hidden = bytes(a ^ b for a, b in zip(host.packed, pad, strict=False))
    value = struct.pack("!BBH", 0, family, seen[1] ^ 0x2112) + hidden
    software = attribute(0x8022, b"test server")
    more = (
        attribute(0x802C, struct.pack("!BBH", 0, 1, other[1]) + ipaddress.ip_address(other[0]).packed) if other else b""
    )
    return message(0x0101, request, software + attribute(0x0020, value) + more)


def message(kind: int, request: bytes, attributes: bytes) -> bytes:
    return struct.pack("!HH", kind, len(attributes)) + request[4:20] + attributes


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def _parsed(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _serve(arguments: list[str]) -> None:
    addresses = [_parsed(text) for text in arguments]
    first = StunServer(*addresses[0], other=addresses[1] if len(addresses) > 1 else None)
    async with first:
        if len(addresses) > 1:
            await StunServer(*addresses[1]).__aenter__()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
