"""A name server of a few records, for one test; UDP on 127.0.0.1."""

import asyncio
from typing import Any

import dns.message
import dns.rcode
import dns.rrset

from tests.peers.ports import free_port


class NameServer(asyncio.DatagramProtocol):
    """``async with NameServer({"carrier.test. NAPTR": ["10 10 \\"s\\" ..."]}) as server:`` at ``server.address``.

    Records stand under "NAME TYPE", the name with its dot, as lines of a zone file. Names without any are unknown.
    """

    def __init__(self, records: dict[str, list[str]] | None = None, ttl: int = 60) -> None:
        self.records = records or {}
        self.ttl = ttl
        self.silent = False
        self.asked: list[str] = []
        self.port = free_port()
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> "NameServer":
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = question.to_text().split()[-1]
        name = question.name.to_text().lower()
        self.asked.append(f"{name} {kind}")
        if self.silent or self._transport is None:
            return
        response = dns.message.make_response(query)
        if not any(key.split()[0] == name for key in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        lines = self.records.get(f"{name} {kind}", [])
        if lines:
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", kind, *lines))
        self._transport.sendto(response.to_wire(), addr)
