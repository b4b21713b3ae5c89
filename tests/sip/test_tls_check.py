"""What a trunk's server proves by its certificate, and what the operator is told when it does not."""

import asyncio
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sipagent.core.states import TrunkState
from sipagent.sip.edge_script import Tls
from sipagent.sip.registration import RegistrationPolicy
from sipagent.sip.routing import candidates
from sipagent.sip.servers import Server
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.tls_check import CertificateCheck
from sipagent.sip.trunk_state import CERTIFICATE_S, DISTRUST_S, SUSPECT_S, TrunkHealth
from sipagent.sip.trunks import out_of_reach
from tests.peers.papers import Papers

SERVER = Server("192.0.2.1", 5061, "tls")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


def check(papers: Papers, authority: str = "authority", ours: str = "edge") -> CertificateCheck:
    return CertificateCheck(
        Tls(certificate=papers.certificate(ours), key=papers.key(ours), ca=papers.certificate(authority))
    )


@contextmanager
def serving(papers: Papers, name: str, *, clients: str = "") -> Iterator[Server]:
    """``clients``: the authority that clients need a certificate of. In a thread: asyncio sends no alerts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.certificate(name), papers.key(name))
    if clients:
        context.load_verify_locations(papers.certificate(clients))
        context.verify_mode = ssl.CERT_REQUIRED

    class Stay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as secure:
                secure.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stay) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Server("127.0.0.1", server.server_address[1], "tls")
        server.shutdown()
        thread.join()


async def test_a_server_by_the_name_in_its_certificate_is_trusted(papers: Papers) -> None:
    with serving(papers, "pbx", clients="authority") as server:
        for host, name in (("localhost", ""), ("127.0.0.1", ""), ("192.0.2.9", "localhost"), ("other.example", "*")):
            assert (await check(papers).ask(server, host, name)).trusted, (host, name)


@pytest.mark.parametrize(
    ("certificate", "authority", "says"),
    [
        ("pbx", "stranger", "`tls_ca`"),
        ("stranger", "authority", "is signed by itself"),
        ("expired", "authority", "has expired"),
        ("other", "authority", "is for carrier.example, not for localhost"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said(
    papers: Papers, certificate: str, authority: str, says: str
) -> None:
    with serving(papers, certificate) as server:
        verdict = await check(papers, authority).ask(server, "localhost")
    assert verdict.trusted is False and says in verdict.sentence and server.address in verdict.sentence


async def test_a_server_that_refuses_our_certificate(papers: Papers) -> None:
    with serving(papers, "pbx", clients="stranger") as server:
        verdict = await check(papers).ask(server, "localhost")
    assert verdict.trusted is False and "does not trust our certificate's authority" in verdict.sentence


async def test_who_speaks_no_tls_and_who_is_not_there(papers: Papers) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"SIP/2.0 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    server = Server("127.0.0.1", listening.sockets[0].getsockname()[1], "tls")
    verdict = await check(papers).ask(server, "localhost")
    assert verdict.trusted is False and "does not speak TLS" in verdict.sentence
    listening.close()
    await listening.wait_closed()
    verdict = await check(papers).ask(server, "localhost")
    assert verdict.trusted is None and "cannot be reached" in verdict.sentence


# --- what follows from it ---


def test_nothing_goes_to_a_server_before_its_certificate_is_good() -> None:
    trunk = TrunkSettings(name="safe", domain="carrier.example", transport="tls")
    health = TrunkHealth("safe", options_s=30.0, secure=True)
    health.located([SERVER], "", 1.0)
    assert health.due(40.0) == [] and health.trusted() == []
    assert candidates("1", [trunk], {"safe": health.view()}, lambda: 0.0) == []
    health.looked_at(SERVER, False, "the certificate is wrong", 1.0)
    assert (health.view().state, health.view().reason) == (TrunkState.DOWN, "the certificate is wrong")
    assert candidates("1", [trunk], {"safe": health.view()}, lambda: 0.0) == []
    health.looked_at(SERVER, True, "", 6.0)
    assert (health.view().state, health.distrust) == (TrunkState.UP, "")
    assert [way.server for way in candidates("1", [trunk], {"safe": health.view()}, lambda: 0.0)] == [SERVER]


def test_a_server_that_is_away_keeps_the_trust_it_had() -> None:
    health = TrunkHealth("safe", options_s=30.0, secure=True)
    health.located([SERVER], "", 0.0)
    health.looked_at(SERVER, True, "", 0.0)
    health.looked_at(SERVER, None, "it cannot be reached", 300.0)
    assert health.distrust == ""
    health.looked_at(SERVER, False, "another's name", 305.0)
    health.looked_at(SERVER, None, "it cannot be reached", 310.0)
    assert health.distrust == "it cannot be reached"


def test_when_a_certificate_is_looked_at_again() -> None:
    health = TrunkHealth("safe", options_s=30.0, secure=True)
    health.located([SERVER], "", 0.0)
    assert health.to_look_at(0.0) == [SERVER]
    health.looked_at(SERVER, True, "", 0.0)
    assert health.to_look_at(CERTIFICATE_S - 1) == [] and health.to_look_at(CERTIFICATE_S) == [SERVER]
    health.suspect(1.0)
    assert health.to_look_at(1.0) == [] and health.to_look_at(SUSPECT_S) == [SERVER]
    at = SUSPECT_S
    for pause in (DISTRUST_S, DISTRUST_S * 2, DISTRUST_S * 4):
        health.looked_at(SERVER, False, "wrong", at)
        assert health.to_look_at(at + pause - 0.1) == []
        at += pause
        assert health.to_look_at(at) == [SERVER]


def test_a_registration_waits_for_the_certificate() -> None:
    policy = RegistrationPolicy("safe", random=lambda: 0.0)
    assert policy.bar("the certificate is wrong") and not policy.bar("the certificate is wrong")
    assert policy.view(0.0).sentence == "the certificate is wrong" and policy.due(0.0)


def test_which_trunks_are_spoken_to_over_tls(tmp_path: Path) -> None:
    def secure(**settings: str) -> bool:
        return TrunkSettings(name="t", **settings).secure  # type: ignore[arg-type]

    assert secure(registrar="sips:a.example") and secure(registrar="sip:a.example;transport=tls")
    assert secure(registrar="a.example", transport="tls") and secure(domain="b", outbound_proxy="sips:p.example")
    assert not secure(registrar="a.example") and not secure(registrar="sips:a.example", outbound_proxy="p.example")
    split = TrunkSettings(name="t", registrar="sips:a.example", domain="b.example")
    assert "two trunks" in out_of_reach(split, SipSettings(tls_certificate="c", tls_key="k"))
