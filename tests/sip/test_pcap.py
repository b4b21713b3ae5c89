"""Capture files as tshark, which is not ours, reads them."""

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sipagent.sip.pcap import Packet, capture
from tests.peers import PeerMissing

pytestmark = pytest.mark.peer

START = datetime(2026, 3, 29, 0, 59, 58, 123456, tzinfo=UTC)
INVITE = (
    "INVITE sip:100@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n"
    "From: <sip:200@192.0.2.1>;tag=1\r\nTo: <sip:100@192.0.2.9>\r\nCall-ID: a84b4c76e66710\r\nCSeq: 1 INVITE\r\n"
    "Content-Length: 0\r\n\r\n"
)
OK = INVITE.replace("INVITE sip:100@192.0.2.9 SIP/2.0", "SIP/2.0 200 OK")


def packet(
    text: str, number: int, *, transport: str = "UDP", far: str = "192.0.2.1:5062", near: str = "192.0.2.9:5060"
):
    return Packet(
        at=START + timedelta(milliseconds=100 * number),
        sent=number % 2 == 1,
        transport=transport,
        local=near,
        remote=far,
        size=len(text.encode()),
        text=text,
    )


async def tshark(folder: Path, packets: list[Packet], *fields: str) -> list[dict[str, Any]]:
    """The fields of each packet, by name; those that it has several times are lists."""
    program = shutil.which("tshark")
    if program is None:
        raise PeerMissing("tshark is not installed: apt-get install tshark")
    file = folder / "call.pcap"
    file.write_bytes(capture(packets))
    process = await asyncio.create_subprocess_exec(
        *(program, "-r", str(file), "-T", "json", *(word for field in fields for word in ("-e", field))),
        *("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    found = [entry["_source"].get("layers", {}) for entry in json.loads(out)]
    return [{name: values[0] if len(values) == 1 else values for name, values in entry.items()} for entry in found]


async def test_a_call_over_udp(tmp_path: Path) -> None:
    fields = "frame.time_epoch ip.src udp.srcport ip.dst udp.dstport sip.Method sip.Status-Code sip.Call-ID".split()
    fields += ["ip.checksum.status", "_ws.malformed"]
    invite, ok = await tshark(tmp_path, [packet(INVITE, 0), packet(OK, 1)], *fields)
    assert (invite["ip.src"], invite["udp.srcport"]) == ("192.0.2.1", "5062")
    assert (invite["ip.dst"], invite["udp.dstport"]) == ("192.0.2.9", "5060")
    assert (invite["sip.Method"], invite["sip.Call-ID"]) == ("INVITE", "a84b4c76e66710")
    assert float(invite["frame.time_epoch"]) == pytest.approx(START.timestamp(), abs=1e-6)
    assert (ok["ip.src"], ok["ip.dst"], ok["sip.Status-Code"]) == ("192.0.2.9", "192.0.2.1", "200")
    assert all(entry["ip.checksum.status"] == "1" and "_ws.malformed" not in entry for entry in (invite, ok))


async def test_over_tcp_several_messages_are_one_stream(tmp_path: Path) -> None:
    packets = [packet(text, number, transport="TCP") for number, text in enumerate((INVITE, OK, INVITE))]
    found = await tshark(tmp_path, packets, "sip.Method", "sip.Status-Code", "tcp.stream", "tcp.analysis.flags")
    assert [entry.get("sip.Method") or entry["sip.Status-Code"] for entry in found] == ["INVITE", "200", "INVITE"]
    assert {entry["tcp.stream"] for entry in found} == {"0"}
    assert not any("tcp.analysis.flags" in entry for entry in found)


async def test_over_ipv6(tmp_path: Path) -> None:
    packets = [packet(INVITE, 0, far="[2001:db8::1]:5060", near="[2001:db8::9]:5060")]
    (invite,) = await tshark(tmp_path, packets, "ipv6.src", "ipv6.dst", "sip.Method", "udp.checksum.status")
    assert invite == {
        "ipv6.src": "2001:db8::1",
        "ipv6.dst": "2001:db8::9",
        "sip.Method": "INVITE",
        "udp.checksum.status": "1",
    }


async def test_a_message_of_which_only_the_beginning_was_kept(tmp_path: Path) -> None:
    whole = packet(INVITE, 0)
    cut = Packet(**{name: getattr(whole, name) for name in Packet.__slots__} | {"text": INVITE[:200]})
    (found,) = await tshark(tmp_path, [cut], "frame.len", "frame.cap_len", "sip.Method")
    assert int(found["frame.len"]) - int(found["frame.cap_len"]) == len(INVITE) - 200
    assert found["sip.Method"] == "INVITE"


async def test_odd_addresses_and_no_messages(tmp_path: Path) -> None:
    assert len(capture([])) == 24
    (found,) = await tshark(tmp_path, [packet(INVITE, 0, far="a name:x")], "ip.src", "ip.dst")
    assert found == {"ip.src": "0.0.0.0", "ip.dst": "192.0.2.9"}
