"""The ladder as a terminal shows it, from a record like any other."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sipagent.cli import cli
from sipagent.core.clock import Stamp
from sipagent.core.events import Event, SipMessage, SipMessages
from sipagent.store.engine import default_url, upgrade
from sipagent.store.recorder import Recorder
from tests.store.story import Story

SDP = "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"


def message(start: str, cseq: str, sdp: str = "") -> str:
    kind = "Content-Type: application/sdp\r\n" if sdp else ""
    return f"{start}\r\nCall-ID: a84b\r\nCSeq: {cseq}\r\n{kind}\r\n{sdp}"


class Wire:
    """SIP messages of a story's call."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._next: dict[int, int] = {}

    def says(
        self, t: float, text: str, *, sent: bool = False, dialog: int = 1, repeats: int | None = None, skip: int = 0
    ) -> Event:
        seq = self._next.get(dialog, 0) + skip
        self._next[dialog] = seq + 1
        at: Stamp = self.story.at(t)
        seen = SipMessage(
            seq=seq,
            at=at,
            sent=sent,
            transport="UDP",
            local="192.0.2.9:5060",
            remote="192.0.2.1:5060" if dialog > 0 else "203.0.113.7:5060",
            size=len(text),
            repeats=repeats,
            text=text if repeats is None else "",
        )
        leg = self.story.leg_id if dialog > 0 else ""
        return SipMessages(at=at, call_id=self.story.call_id, dialog=dialog, leg_id=leg, count=1, messages=(seen,))


async def record(folder: Path, events: list[Event]) -> None:
    upgrade(default_url(folder))
    recorder = Recorder(default_url(folder))
    recorder.start()
    for event in events:
        recorder.emit(event)
    assert await recorder.close() == 0


def show(folder: Path, *arguments: str) -> Result:
    environment = {"SIPAGENT_NODE_STATE_DIR": str(folder), "COLUMNS": "100"}
    return CliRunner().invoke(cli, ["calls", "last", *arguments], env=environment, catch_exceptions=False)


@pytest.fixture
async def answered(tmp_path: Path) -> Path:
    """In on the left, out on the right, with a retransmission and messages that were not kept."""
    story = Story()
    wire = Wire(story)
    offer = SDP.format(host="192.0.2.1", port=4000)
    events = [
        *story.arrives(),
        wire.says(0.0, message("INVITE sip:100@192.0.2.9 SIP/2.0", "1 INVITE", offer)),
        wire.says(0.002, message("SIP/2.0 100 Trying", "1 INVITE"), sent=True),
        wire.says(0.1, message("INVITE sip:200@203.0.113.7 SIP/2.0", "1 INVITE", offer), sent=True, dialog=-1),
        wire.says(0.6, "", sent=True, dialog=-1, repeats=0),
        wire.says(0.7, message("SIP/2.0 486 Busy \x1b[31mHere", "1 INVITE"), dialog=-1, skip=3),
        *story.ends(),
    ]
    await record(tmp_path, events)
    return tmp_path


def test_two_legs_side_by_side(answered: Path) -> None:
    lines = show(answered, "--sip").output.splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "+4930123456 → 100" in text
    names = next(line for line in lines if "sipagent" in line)
    assert names.index("192.0.2.1:5060") < names.index("sipagent") < names.index("203.0.113.7:5060")
    invite, trying, out, again, gap, busy = [line for line in lines if "│─" in line or "─│" in line or "⋮" in line]
    assert "0.000  │─ INVITE ─" in invite and "►│" in invite and "PCMU 192.0.2.1:4000 sendrecv" in invite
    assert "0.002  │◄─" in trying and "─ 100 Trying ─│" in trying
    assert out.index("─ INVITE") > out.index("│", 12)  # between us and the right
    assert "─ ↻ INVITE ─" in again and "sent again after 0.5 s" in again
    assert "⋮ 3 not kept" in gap
    assert "◄" in busy and "486 Busy" in busy and "\x1b" not in busy
    assert lines[-1] == "5 messages by UDP, 1 of them sent again (↻), 3 more not kept"


def test_with_the_messages_in_full(answered: Path) -> None:
    text = show(answered, "--sip", "--full").output
    assert "1.  0.000 s  UDP  192.0.2.1:5060 → 192.0.2.9:5060" in text
    assert "c=IN IP4 192.0.2.1" in text
    assert "\x1b" not in text


def test_as_json(answered: Path) -> None:
    page = json.loads(show(answered, "--sip", "--json").output)
    assert page["not_kept"] == 3
    invite, _, _, again, busy = page["data"]
    assert (invite["method"], invite["sdp"]) == ("INVITE", "PCMU 192.0.2.1:4000 sendrecv")
    assert again["repeats"] == 0 and again["text"] == page["data"][2]["text"] and again["offset_ms"] == 600
    assert (busy["status"], busy["method"], busy["sent"]) == (486, "INVITE", False)


def test_a_capture_file_is_its_owners_only(answered: Path, tmp_path: Path) -> None:
    file = tmp_path / "call.pcap"
    assert "5 messages written to" in show(answered, "--pcap", str(file)).stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().count(b"INVITE sip:200@203.0.113.7") == 2  # the repeated one is a packet like any other


async def test_many_attempts_one_below_the_other(tmp_path: Path) -> None:
    story = Story()
    wire = Wire(story)
    tries = [wire.says(i, message("INVITE sip:x SIP/2.0", "1 INVITE"), sent=True, dialog=-1 - i) for i in range(3)]
    await record(tmp_path, [*story.arrives(), *tries])
    text = show(tmp_path, "--sip").output
    assert text.count("sipagent") == 3 and text.count("│─ INVITE ─") == 3


async def test_a_call_without_messages_says_so(tmp_path: Path) -> None:
    await record(tmp_path, Story().arrives())
    assert "no SIP messages on record" in show(tmp_path, "--sip").output


@pytest.mark.parametrize("arguments", [["--sip"], ["--pcap", "x"], ["last", "--full"]])
def test_what_cannot_be_meant_is_said(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["calls", *arguments], standalone_mode=True)
    assert result.exit_code == 2
