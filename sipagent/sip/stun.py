"""A STUN client (RFC 5389, RFC 8489): how a server out there sees a UDP socket of ours.

Encoding and decoding are plain functions; `ask` does the network. What a server says is believed only in answer to a
request of ours: from its address, with the 96 bits that we chose.
"""

import asyncio
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from sipagent.core.errors import SipagentError

PORT = 3478
BINDING_REQUEST, BINDING_SUCCESS, BINDING_ERROR = 0x0001, 0x0101, 0x0111
MAPPED_ADDRESS, ERROR_CODE, XOR_MAPPED_ADDRESS, OTHER_ADDRESS = 0x0001, 0x0009, 0x0020, 0x802C
MAGIC = 0x2112A442
HEADER = struct.Struct("!HHI12s")
_IPV4, _IPV6 = 1, 2
_MAX_DATAGRAM = 1500
_RETRANSMIT_S = (0.5, 1.0, 1.5)  # RTO of section 7.2.1, given up earlier: a start of the node waits for this


class StunError(SipagentError):
    """No answer that tells an address; the text is for the engineer."""


@dataclass(frozen=True, slots=True)
class Binding:
    """How a server sees us, host and port; ``other``: where the server answers besides (RFC 5780), None if nowhere."""

    host: str
    port: int
    other: tuple[str, int] | None = None


def request(transaction: bytes) -> bytes:
    """A Binding request. `transaction`: 12 random bytes."""
    return HEADER.pack(BINDING_REQUEST, 0, MAGIC, transaction)


def parse(data: bytes, transaction: bytes) -> Binding | None:
    """None for what is no answer to this transaction. Raises StunError for a refusal or an answer without address."""
    if len(data) < HEADER.size:
        return None
    kind, length, magic, answered = HEADER.unpack_from(data)
    if magic != MAGIC or answered != transaction or kind not in (BINDING_SUCCESS, BINDING_ERROR):
        return None
    attributes = _attributes(data[HEADER.size : HEADER.size + length])
    if kind == BINDING_ERROR:
        value = attributes.get(ERROR_CODE, b"")
        code = value[2] % 8 * 100 + value[3] if len(value) >= 4 else 0
        raise StunError(f"it refuses the request ({code} {value[4:100].decode('utf-8', 'replace')})")
    for attribute, xor in ((XOR_MAPPED_ADDRESS, True), (MAPPED_ADDRESS, False)):
        found = _address(attributes.get(attribute, b""), transaction, xor=xor)
        if found is not None:
            return Binding(*found, _address(attributes.get(OTHER_ADDRESS, b""), transaction, xor=False))
    raise StunError("its answer names no address")


async def ask(server: tuple[str, int], sock: socket.socket) -> Binding:
    """Ask from this bound, non-blocking UDP socket; takes at most 3 s. Raises StunError.

    `server`: address and port, no name.
    """
    loop = asyncio.get_running_loop()
    transaction = os.urandom(12)
    for patience in _RETRANSMIT_S:
        try:
            await loop.sock_sendto(sock, request(transaction), server)
            async with asyncio.timeout(patience):
                while True:
                    data, source = await loop.sock_recvfrom(sock, _MAX_DATAGRAM)
                    if source[:2] == server and (found := parse(data, transaction)) is not None:
                        return found
        except TimeoutError:
            continue
        except OSError as error:
            raise StunError(f"it cannot be reached: {error.strerror}") from error
    raise StunError("it does not answer")


def _attributes(data: bytes) -> dict[int, bytes]:
    """The first of each kind; a value that runs past the end is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + length]
        if len(value) == length:
            found.setdefault(kind, value)
        at += 4 + (length + 3 & ~3)  # padded to four bytes (section 15)
    return found


def _address(value: bytes, transaction: bytes, *, xor: bool) -> tuple[str, int] | None:
    """(XOR-)MAPPED-ADDRESS, sections 15.1 and 15.2."""
    if len(value) < 4:
        return None
    _, family, port = struct.unpack_from("!BBH", value)
    address = value[4:]
    if xor:
        mask = struct.pack("!I", MAGIC) + transaction
        port ^= MAGIC >> 16
        address = bytes(a ^ b for a, b in zip(address, mask, strict=False))
    if (family, len(address)) not in ((_IPV4, 4), (_IPV6, 16)) or port == 0:
        return None
    return str(ipaddress.ip_address(address)), port
