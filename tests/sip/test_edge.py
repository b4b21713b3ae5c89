"""The edge as the world meets it: who it takes calls from, by which transport, and where it sends them."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import click.testing
import pytest
import pytest_asyncio

from sipagent.cli import cli
from sipagent.core.errors import SetupError
from sipagent.sip.edge import Installation, contact_towards, wait_for_ports
from sipagent.sip.edge_script import Listen
from sipagent.sip.protocol import Answered, Hangup, IncomingCall, Reject
from sipagent.sip.settings import SipSettings
from tests.peers import sipp
from tests.peers.papers import Papers
from tests.peers.ports import free_port
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(papers: Papers) -> AsyncIterator[Agent]:
    async with Agent(
        max_calls=6,
        host6="::1",
        tls_port=free_port(),
        tls_certificate=papers.certificate("edge"),
        tls_key=papers.key("edge"),
        tls_ca=papers.certificate("authority"),
        tls_clients="verified",
    ) as agent:
        yield agent


@pytest.fixture
def node(shared: Agent) -> Agent:
    shared.facts.clear()
    shared.on_call = shared.answer
    return shared


async def exchange(port: int, message: str) -> str:
    """The first response to a datagram from nobody in particular, "" for none within 0.7 s."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.bind(("127.0.0.1", 0))
        text = message.replace("\n", "\r\n").replace("PORT", str(sender.getsockname()[1]))
        await loop.sock_sendto(sender, text.encode(), ("127.0.0.1", port))
        try:
            async with asyncio.timeout(0.7):
                while True:
                    answer = (await loop.sock_recv(sender, 65536)).decode()
                    if not answer.startswith("SIP/2.0 100"):
                        return answer
        except TimeoutError:
            return ""


def request(method: str, uri: str, *headers: str, tag: str = "", body: str = "") -> str:
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.1:PORT;branch=z9hG4bK{free_port()};rport",
        f"From: <sip:a@127.0.0.1>;tag={free_port()}",
        f"To: <{uri}>{tag}",
        f"Call-ID: {free_port()}@test",
        f"CSeq: 1 {method}",
        "Contact: <sip:a@127.0.0.1:PORT>",
        "Max-Forwards: 10",
        *headers,
        f"Content-Length: {len(body)}",
        "",
        body,
    ]
    return "\n".join(lines)


async def test_callers_over_tcp_and_ipv6_are_known_by_their_own_address(node: Agent) -> None:
    (await sipp.run("uac-inbound-answered.xml", target=node.address, duration_ms=50, args=["-t", "t1"])).check()
    six = Sipp("uac-inbound-answered.xml", target=f"[::1]:{node.settings.port}", duration_ms=50, host="[::1]")
    await six.start()
    (await six.wait()).check()
    by_tcp, by_six = node.all(IncomingCall)
    assert by_tcp.source.startswith("127.0.0.1:") and by_six.source.startswith("[::1]:")


async def test_a_source_that_strangers_claim_is_not_believed(node: Agent) -> None:
    node.on_call = lambda call: node.lane.send(Reject(call=call.call, status=480))
    answer = await exchange(
        node.settings.port, request("INVITE", f"sip:x@{node.address}", "X-Sipagent-Source: 192.0.2.7:5060")
    )
    assert answer.startswith("SIP/2.0 480")
    call = node.all(IncomingCall)[0]
    assert call.source.startswith("127.0.0.1:") and not any("source" in name.lower() for name in call.headers)


async def test_tls_is_verified_both_ways(node: Agent, papers: Papers) -> None:
    context = ssl.create_default_context(cafile=papers.certificate("authority"))
    context.check_hostname = False
    address = ("127.0.0.1", node.settings.tls_port)
    options = request("OPTIONS", f"sip:{node.address}").replace("UDP", "TLS").replace("PORT", "9")

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        try:
            writer.write(options.replace("\n", "\r\n").encode())
            async with asyncio.timeout(3):
                return await reader.readline()
        finally:
            writer.close()

    with pytest.raises((ssl.SSLError, ConnectionError)):  # without a certificate
        assert not await ask()
        raise ConnectionError("closed without a word")
    context.load_cert_chain(papers.certificate("stranger"), papers.key("stranger"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert not await ask()
        raise ConnectionError("closed without a word")
    context.load_cert_chain(papers.certificate("edge"), papers.key("edge"))
    assert await ask() == b"SIP/2.0 200 OK\r\n"


@pytest.mark.parametrize(("authority", "reached"), [("authority", True), ("stranger", False)])
async def test_calls_out_over_tls_reach_only_who_is_vouched_for(
    node: Agent, papers: Papers, authority: str, reached: bool
) -> None:
    name = "edge" if reached else "stranger"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(papers.certificate(name), papers.key(name))
    server.load_verify_locations(papers.certificate("authority"))
    server.verify_mode = ssl.CERT_REQUIRED if reached else ssl.CERT_NONE
    seen: asyncio.Queue[str] = asyncio.Queue(4)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.put_nowait(head)
        wanted = ("Via:", "From:", "To:", "Call-ID:", "CSeq:", "Record-Route:")
        kept = [line for line in head.split("\r\n") if line.startswith(wanted)]
        answer = ["SIP/2.0 486 Busy Here", *kept, "Content-Length: 0", "", ""]
        writer.write("\r\n".join(answer).replace("\r\nTo: ", "\r\nTo: ").encode())
        await writer.drain()

    port = free_port()
    listening = await asyncio.start_server(serve, "127.0.0.1", port, ssl=server)
    async with listening:
        ended = await node.ended(node.dial(f"sip:x@127.0.0.1:{port};transport=tls"), within_s=15)
    assert (ended.status, ended.by_remote) == ((486, True) if reached else (ended.status, False))
    assert seen.empty() is not reached
    if reached:
        assert "SIP/2.0/TLS" in seen.get_nowait()


async def test_it_relays_for_nobody(node: Agent) -> None:
    victim = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", victim))
        sink.setblocking(False)
        route = f"Route: <sip:{node.address};lr>, <sip:127.0.0.1:{victim};lr>"
        for text in (
            request("BYE", f"sip:x@127.0.0.1:{victim}", tag=";tag=1"),
            request("BYE", f"sip:x@127.0.0.1:{victim}", route, tag=";tag=1"),
            request("BYE", f"sip:x@{node.address};sl={victim}", tag=";tag=1"),
            request("INVITE", f"sip:x@{node.address};sl={victim}", route, tag=";tag=1"),
        ):
            assert (await exchange(node.settings.port, text)).startswith("SIP/2.0 481")
        assert (await exchange(node.settings.port, request("REGISTER", f"sip:{node.address}"))).startswith(
            "SIP/2.0 405"
        )
        with pytest.raises(BlockingIOError):
            sink.recv(100)
    assert node.all(IncomingCall) == []


async def test_what_no_lane_could_read_is_refused(node: Agent) -> None:
    big = request("INVITE", f"sip:x@{node.address}", *[f"X-Fill-{i}: {'x' * 200}" for i in range(20)])
    assert (await exchange(node.settings.port, big)).startswith("SIP/2.0 513")
    hops = request("INVITE", f"sip:x@{node.address}").replace("Max-Forwards: 10", "Max-Forwards: 0")
    assert (await exchange(node.settings.port, hops)).startswith("SIP/2.0 483")


async def test_a_front_gives_a_call_to_the_next_node_when_one_cannot(tmp_path: Path) -> None:
    front_port, silent = free_port(), free_port()
    config = tmp_path / "sipagent.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path}"\n[sip]\nhost = "127.0.0.1"\nport = {front_port}\n')
    async with Agent(fronts=("127.0.0.1",)) as one, Agent(fronts=("127.0.0.1",)) as two:
        nodes = [f"--node={agent.address}=2" for agent in (one, two)]
        arguments = [
            "edge",
            "-c",
            str(config),
            *nodes,
            f"--node=127.0.0.1:{silent}=2",
            "--out",
            str(tmp_path),
            "--check",
        ]
        done = await asyncio.to_thread(click.testing.CliRunner().invoke, cli, arguments)
        assert done.exit_code == 0, done.output
        kamailio = await asyncio.create_subprocess_exec(
            *(Installation.find().program, "-f", str(tmp_path / "kamailio.cfg"), "-DD", "-E", "-Y", str(tmp_path)),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            for _ in range(50):
                if await exchange(front_port, request("OPTIONS", f"sip:127.0.0.1:{front_port}")):
                    break
            target = f"127.0.0.1:{front_port}"
            callers = await sipp.run(
                "uac-inbound-answered.xml", target=target, calls=4, rate=20, limit=4, duration_ms=2500, timeout_s=20
            )
            callers.check()
            assert one.all(Answered) and two.all(Answered) and len(one.all(Answered) + two.all(Answered)) == 4
            answered = len(two.all(Answered))
            assert {call.source.split(":")[0] for call in one.all(IncomingCall)} == {"127.0.0.1"}
            via = next(line for line in callers.sent("INVITE")[0].splitlines() if line.startswith("Via:"))
            assert one.all(IncomingCall)[0].source == via.split()[2].split(";")[0], (
                "the caller's address, not the front's"
            )

            # One that is full or draining is passed over within the attempt; what a node decides stands.
            one.on_call = lambda call: one.lane.send(
                Reject(call=call.call, status=503, headers={"X-Sipagent-Final": "node"})
            )
            for _ in range(2):
                (await sipp.run("uac-inbound-answered.xml", target=target, duration_ms=50, timeout_s=20)).check()
            assert len(two.all(Answered)) == answered + 2
            one.on_call = lambda call: one.lane.send(Reject(call=call.call, status=486))
            two.on_call = lambda call: two.lane.send(Reject(call=call.call, status=486))
            before = len(one.all(IncomingCall) + two.all(IncomingCall))
            (await sipp.run("uac-inbound-over-limit-expect-486.xml", target=target, timeout_s=20)).check()
            assert len(one.all(IncomingCall) + two.all(IncomingCall)) == before + 1
        finally:
            kamailio.terminate()
            await kamailio.wait()


async def test_a_draining_node_keeps_its_calls_and_takes_no_more() -> None:
    async with Agent(max_calls=6) as agent:
        async with Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address) as caller:
            call = await agent.fact(Answered)
            await agent.lane.drain()
            options = await exchange(agent.settings.port, request("OPTIONS", f"sip:{agent.address}"))
            assert options.startswith("SIP/2.0 503") and "Retry-After" in options
            (await sipp.run("uac-inbound-over-limit-expect-503.xml", target=agent.address)).check()
            agent.lane.send(Hangup(call=call.call))
            (await caller.wait()).check()


async def test_a_taken_port_is_a_sentence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        agent = Agent(port=sock.getsockname()[1], max_calls=6)
        with pytest.raises(SetupError, match="UDP port .* is taken"):
            await agent.lane.start()
        assert agent.lane.pids == {}


async def test_certificates_that_cannot_be_read_are_a_sentence() -> None:
    with pytest.raises(SetupError, match="tls_key: /nowhere"):
        await Agent(tls_certificate=__file__, tls_key="/nowhere").lane.start()


@pytest.mark.parametrize(
    ("peer", "contact"),
    [
        ("", "192.0.2.1:5060"),
        ("sip:reg.example", "192.0.2.1:5060"),
        ("sip:reg.example;transport=tcp", "192.0.2.1:5060;transport=tcp"),
        ("sip:reg.example;transport=tls", "192.0.2.1:5061;transport=tls"),
    ],
)
async def test_contact_says_how_this_peer_reaches_us(peer: str, contact: str) -> None:
    assert contact_towards(peer, SipSettings(host="10.0.0.1", public_host="192.0.2.1")) == contact


async def test_ports_of_an_edge_that_is_leaving_are_waited_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as before:
        before.bind(("127.0.0.1", 0))
        listens = [Listen("udp", "127.0.0.1", before.getsockname()[1])]
        with pytest.raises(SetupError, match="is taken by another program"):
            await wait_for_ports(listens, 0.1)
        asyncio.get_running_loop().call_later(0.2, before.close)
        await wait_for_ports(listens, 5.0)
