"""What no SIPp can send: messages beyond every bound."""

import asyncio
import contextlib
import socket

import pytest

from sipagent.sip.protocol import IncomingCall
from tests.peers import sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


def request(number: int, size: int = 0) -> bytes:
    head = (
        "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\n"
        f"Via: SIP/2.0/TCP 127.0.0.1:5999;branch=z9hG4bK{number}\r\n"
        f"From: <sip:a@b>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: big-{number}\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 70\r\n"
    )
    padding = "X-Padding: " + "a" * 1000 + "\r\n"
    return (head + padding * (size // len(padding)) + "Content-Length: 0\r\n\r\n").encode()


async def test_70_kb_over_tcp_cost_nobody_anything(agent: Agent) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.settings.port)
    writer.write(request(1))
    assert b"branch=z9hG4bK1" in await asyncio.wait_for(reader.read(4000), 5)
    writer.write(request(2, 70_000))  # PJSIP takes 4,000 bytes and drops what is longer
    await asyncio.sleep(0.5)
    writer.write(request(3))
    answer = await asyncio.wait_for(reader.read(4000), 5)
    assert b"branch=z9hG4bK3" in answer and b"branch=z9hG4bK2" not in answer
    writer.close()
    (await sipp.run("uac-inbound-answered.xml", target=agent.address, duration_ms=50)).check()
    assert len(agent.readies) == 1 and len(agent.all(IncomingCall)) == 1


async def test_nobody_subscribes_and_makes_us_answer_a_challenge(agent: Agent) -> None:
    """PJSIP would send NOTIFY to the Contact, and a digest of our password to whoever challenges that."""
    host, _, port = agent.address.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.setblocking(False)
        own = stranger.getsockname()[1]
        subscribe = (
            f"SUBSCRIBE sip:sipagent@{agent.address} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKs1\r\n"
            "From: <sip:a@b>;tag=1\r\nTo: <sip:sipagent@127.0.0.1>\r\nCall-ID: subscribe\r\nCSeq: 1 SUBSCRIBE\r\n"
            f"Contact: <sip:a@127.0.0.1:{own}>\r\nEvent: presence\r\nExpires: 3600\r\nMax-Forwards: 70\r\n"
            "Content-Length: 0\r\n\r\n"
        )
        stranger.sendto(subscribe.encode(), (host, int(port)))
        loop = asyncio.get_running_loop()
        answers = [await asyncio.wait_for(loop.sock_recv(stranger, 4000), 20)]
        with contextlib.suppress(TimeoutError):
            answers.append(await asyncio.wait_for(loop.sock_recv(stranger, 4000), 1))
    assert answers[0].startswith(b"SIP/2.0 4") and not any(answer.startswith(b"NOTIFY") for answer in answers)
