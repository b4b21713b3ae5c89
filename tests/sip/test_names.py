"""Host names in all the places where a peer may put one: the lane's one thread must never wait for a name server."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipagent.sip import names
from sipagent.sip.protocol import Answered, Ended, Hangup
from tests.peers import sipp
from tests.peers.sipp import SCENARIOS, Sipp
from tests.sip.agent import Agent

CONTACT = "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>"


@pytest.fixture
async def deaf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose name server never answers, and whose lane may be silent for 1 s."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr("sipagent.sip.names.RESOLV_CONF", path)
    monkeypatch.setattr("sipagent.sip.client._PING_S", 0.25)
    async with Agent() as agent:
        yield agent


def changed(tmp_path: Path, scenario: str, old: str, new: str) -> Path:
    text = (SCENARIOS / scenario).read_text()
    assert old in text
    path = tmp_path / scenario
    path.write_text(text.replace(old, new))
    return path


async def the_lane_turns(agent: Agent) -> None:
    begun = time.monotonic()
    (await sipp.run("uac-inbound-answered.xml", target=agent.address, duration_ms=50)).check()
    assert time.monotonic() - begun < 2.5
    assert agent.lost == 0


@pytest.mark.peer
@pytest.mark.parametrize(
    "header", ["Contact: <sip:sipp@phone.invalid>", f"Record-Route: <sip:proxy.invalid;lr>\n{CONTACT}"]
)
async def test_a_name_on_the_way_back_to_the_caller(deaf: Agent, tmp_path: Path, header: str) -> None:
    scenario = changed(tmp_path, "uac-inbound-agent-hangs-up.xml", CONTACT, header)
    async with Sipp(scenario, target=deaf.address):  # its BYE does not find it
        call = await deaf.fact(Answered)
        deaf.lane.send(Hangup(call=call.call))
        await the_lane_turns(deaf)


@pytest.mark.peer
@pytest.mark.parametrize("address", ["media.invalid", "999.1.1.1"])
async def test_a_name_in_a_callees_answer(deaf: Agent, tmp_path: Path, address: str) -> None:
    scenario = changed(
        tmp_path, "uas-outbound-answered.xml", "c=IN IP[media_ip_type] [media_ip]", f"c=IN IP4 {address}"
    )
    async with Sipp(scenario) as callee:
        call = deaf.dial(callee.uri)
        await deaf.until(lambda: bool(deaf.all(Answered, call) or deaf.all(Ended, call)), "an end of the set-up")
        deaf.lane.send(Hangup(call=call))
        await the_lane_turns(deaf)
        await deaf.ended(call)


@pytest.mark.peer
async def test_a_name_called(deaf: Agent) -> None:
    deaf.dial("sip:bob@phone.invalid")
    await the_lane_turns(deaf)
    async with Sipp("uas-outbound-answered.xml") as callee:
        call = deaf.dial(f"sip:bob@localhost:{callee.port}")
        await deaf.fact(Answered, call=call)
        deaf.lane.send(Hangup(call=call))
        result = await callee.wait()
    result.check()
    (invite,) = result.received("INVITE")
    assert invite.startswith(f"INVITE sip:bob@127.0.0.1:{callee.port} ")
    assert "To: sip:bob@localhost" in invite or "To: <sip:bob@localhost" in invite


def test_name_servers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert names.name_servers(path) == ["127.0.0.1"]
    path.write_text("# x\nsearch example.com\nnameserver fe80::1%eth0\n nameserver\t192.0.2.1 \nnameserver x\n")
    assert names.name_servers(path) == ["192.0.2.1"]
    path.write_text("".join(f"nameserver 192.0.2.{number}\n" for number in range(9)))
    assert names.name_servers(path) == ["192.0.2.0", "192.0.2.1", "192.0.2.2"]


def test_the_hosts_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = names.HostsFile(path)
    assert (hosts.address("localhost"), hosts.address("pbx")) == ("127.0.0.1", "")
    path.write_text("::1 localhost pbx\n192.0.2.7\tPBX pbx.lan # office\n\n192.0.2.8 pbx #pbx2\nnonsense\n")
    assert [hosts.address(name) for name in ("pbx", "pbx.lan.", "pbx2", "::1")] == ["192.0.2.7", "192.0.2.7", "", ""]


def test_the_host_of_a_uri_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("192.0.2.7 pbx\n")
    hosts = names.HostsFile(path)
    for uri, expected in {
        "sip:pbx": "sip:192.0.2.7",
        "sip:pbx:5070;transport=tcp": "sip:192.0.2.7:5070;transport=tcp",
        "SIP:a;b=c@PBX?x=pbx": "SIP:a;b=c@192.0.2.7?x=pbx",
        "sip:pbx@other": "sip:pbx@other",
        "sip:a@[::1]:5060": "sip:a@[::1]:5060",
        "sip:not a uri": "sip:not a uri",
        "tel:pbx": "tel:pbx",
        "": "",
    }.items():
        assert hosts.substitute(uri) == expected


def test_the_c_library_asks_no_name_server() -> None:
    code = (
        "import socket, time\n"
        "from sipagent.sip.names import forbid_waiting_lookups\n"
        "forbid_waiting_lookups()\n"
        "begun = time.monotonic()\n"
        "try: socket.getaddrinfo('sip.carrier.invalid', None)\n"
        "except socket.gaierror as error: print(error.errno == socket.EAI_AGAIN, time.monotonic() - begun < 0.5)\n"
    )
    if any("resolve" in line for line in Path("/etc/nsswitch.conf").read_text().splitlines() if "hosts:" in line):
        pytest.skip("names go by way of systemd-resolved here")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "True True\n"
