"""The STUN client against a server of the tests' own and the RFC's test vectors."""

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipagent.sip import stun
from sipagent.sip.stun import Binding, StunError
from tests.peers.stun import StunServer, attribute, message, success


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        yield sock


async def test_a_server_tells_our_address(sock: socket.socket) -> None:
    async with StunServer() as server:
        found = await stun.ask(server.address, sock)
        assert (found.host, found.port, found.other) == (*sock.getsockname(), None)
        server.seen_as, server.other = ("203.0.113.9", 40001), ("203.0.113.1", 3479)
        assert await stun.ask(server.address, sock) == Binding("203.0.113.9", 40001, ("203.0.113.1", 3479))


async def test_a_lost_request_is_sent_again(sock: socket.socket) -> None:
    async with StunServer() as server:
        server.answer = lambda data: success(data, ("203.0.113.9", 1)) if len(server.requests) > 1 else None
        assert (await stun.ask(server.address, sock)).host == "203.0.113.9"
        assert len(server.requests) == 2


async def test_answers_to_nobodys_question_are_passed_over(sock: socket.socket) -> None:
    async with StunServer() as server, StunServer() as stranger:

        def answer(data: bytes) -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:  # the right bytes from another address
                forger.sendto(success(data, ("198.51.100.6", 6)), sock.getsockname())
            return success(data, ("203.0.113.9", 9))

        server.answer = answer
        sock.setblocking(True)
        sock.sendto(b"\x00", stranger.address)
        sock.setblocking(False)
        assert (await stun.ask(server.address, sock)).host == "203.0.113.9"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda data: message(0x0111, data, attribute(9, b"\0\0\x04\x14Wrong")), "420 Wrong"),
        (lambda data: message(0x0101, data, attribute(0x0020, b"\0\1")), "names no address"),
        (lambda data: message(0x0101, data, b""), "names no address"),
    ],
)
async def test_a_server_that_does_not_help_says_why(sock: socket.socket, answer: object, why: str) -> None:
    async with StunServer() as server:
        server.answer = answer  # type: ignore[assignment]
        with pytest.raises(StunError, match=why):
            await stun.ask(server.address, sock)


async def test_nobody_there(sock: socket.socket) -> None:
    with pytest.raises(StunError, match="it does not answer|it cannot be reached"):
        await stun.ask(("127.0.0.1", 9), sock)


def test_the_vectors_of_rfc_5769() -> None:
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    ipv4 = bytes.fromhex("0101000c2112a442") + transaction + bytes.fromhex("002000080001a147e112a643")
    assert stun.parse(ipv4, transaction) == Binding("192.0.2.1", 32853)
    hidden = "0113a9faa5d3f179bc25f4b5bed2b9d9"
    ipv6 = bytes.fromhex("010100182112a442") + transaction + bytes.fromhex("002000140002a147" + hidden)
    assert stun.parse(ipv6, transaction) == Binding("2001:db8:1234:5678:11:2233:4455:6677", 32853)


def test_an_old_server_does_not_hide_the_address() -> None:
    transaction = bytes(12)
    value = struct.pack("!BBH4s", 0, 1, 5060, bytes([203, 0, 113, 9]))
    data = message(0x0101, stun.request(transaction), attribute(0x0001, value))
    assert stun.parse(data, transaction) == Binding("203.0.113.9", 5060)


@given(st.binary(max_size=200))
def test_rubbish_is_no_answer(data: bytes) -> None:
    transaction = bytes(12)
    assert stun.parse(data, transaction) is None
    framed = message(0x0101, stun.request(transaction), data)
    try:
        found = stun.parse(framed, transaction)
    except StunError:
        return
    assert found is not None and 0 < found.port < 65536
