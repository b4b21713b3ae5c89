"""Asterisk as a subject: its `Echo()`, and its AudioSocket with an asyncio server behind, called by SIP.

The Asterisk is the one the tests use (`tests.peers.asterisk`), with the bench's own endpoint and extensions.
`python -m bench.peers` is the AudioSocket server; it is started by `AsteriskAudioSocket`.
"""

import argparse
import asyncio
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench.rig import FIRST_PORT, LAST_PORT, ROOT, SOURCE_PORT, cores, pin
from tests.peers.asterisk import Asterisk, Installation

AUDIO_PORT = 9092
ANSWER_S = 60.0  # for all calls of a run
RESEND_S = 1.0
AT_ONCE = 16  # INVITEs under way; more make Asterisk's task queues complain
_HEADER = 3  # of an AudioSocket message: kind, length of what follows (big-endian)
_AUDIO = 0x10

_PJSIP = """
[global]
type=global

[udp]
type=transport
protocol=udp
bind=127.0.0.1:{port}

[bench]
type=endpoint
context=bench
disallow=all
allow=ulaw
direct_media=no
dtmf_mode=rfc4733

[bench]
type=identify
endpoint=bench
match=127.0.0.1
"""

_EXTENSIONS = f"""
[bench]
exten => echo,1,Answer()
 same => n,Echo()
exten => _first.,1,Set(GLOBAL(CALL${{EXTEN:5}})=${{CHANNEL}})
 same => n,Answer()
 same => n,Wait(3600)
exten => _other.,1,Answer()
 same => n,Bridge(${{GLOBAL(CALL${{EXTEN:5}})}})
exten => agent,1,Answer()
 same => n,AudioSocket(40325ec2-5efd-4bd3-805f-53576e581d13,127.0.0.1:{AUDIO_PORT})
"""


class _Server(Asterisk):
    """With as many RTP ports and files as a load needs."""

    def __init__(self, without: tuple[str, ...]) -> None:
        super().__init__()
        self._without = without

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _configure(self, found: Installation) -> None:
        super()._configure(found)
        etc = self.folder / "etc"
        (etc / "pjsip.conf").write_text(_PJSIP.format(port=self.port))
        (etc / "extensions.conf").write_text(_EXTENSIONS)
        (etc / "rtp.conf").write_text(f"[general]\nrtpstart={FIRST_PORT}\nrtpend={LAST_PORT}\n")
        with (etc / "modules.conf").open("a") as modules:
            modules.write("load=res_audiosocket.so\nload=app_audiosocket.so\nload=func_global.so\n")
            modules.writelines(f"noload={name}.so\n" for name in self._without)
        with (self.folder / "asterisk.conf").open("a") as options:
            options.write("maxfiles = 65536\n")
            if os.geteuid() == 0:
                options.write("highpriority = yes\n")  # SCHED_RR 10: the engine runs with SCHED_FIFO 10


# --- a small SIP user agent client --------------------------------------------------------------------------------


class _Dialog(NamedTuple):
    to: str  # with the far end's tag
    contact: str
    rtp_port: int


class Caller:
    """Places calls over UDP whose RTP comes from the generator's ports (RFC 3261, no more than a load needs)."""

    def __init__(self, target: int) -> None:
        self._target = ("127.0.0.1", target)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._port = self._socket.getsockname()[1]
        self._dialogs: dict[int, _Dialog] = {}

    def place(self, extensions: Mapping[int, str]) -> list[int]:
        """Calls these, by number. Returns the far end's RTP ports once all have answered.

        Raises SystemExit when one does not.
        """
        waiting: dict[int, float] = {}
        began = time.monotonic()
        following = iter(extensions)
        while missing := extensions.keys() - self._dialogs.keys():
            while len(waiting) < AT_ONCE and (number := next(following, None)) is not None:
                waiting[number] = 0.0
            moment = time.monotonic()
            if moment - began > ANSWER_S:
                raise SystemExit(f"Asterisk did not answer {len(missing)} of {len(extensions)} calls in {ANSWER_S:g} s")
            for number, sent in waiting.items():
                if moment - sent > RESEND_S:
                    self._invite(number, extensions[number])
                    waiting[number] = moment
            self._take(RESEND_S)
            for number in waiting.keys() & self._dialogs.keys():
                del waiting[number]
        while self._take(0.6):  # an answer repeated, because our ACK came late
            pass
        return [self._dialogs[number].rtp_port for number in extensions]

    def hang_up(self) -> None:
        for number, dialog in self._dialogs.items():
            self._send("BYE", number, dialog.contact, dialog.to, 2)
            if number % AT_ONCE == 0:
                time.sleep(0.01)
        while self._take(0.3):
            pass
        self._dialogs.clear()
        self._socket.close()

    def _invite(self, number: int, extension: str) -> None:
        sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {SOURCE_PORT + 2 * number} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )
        uri = f"sip:{extension}@127.0.0.1:{self._target[1]}"
        self._send("INVITE", number, uri, f"<{uri}>", 1, sdp)

    def _send(self, method: str, number: int, uri: str, to: str, sequence: int, body: str = "") -> None:
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self._port};rport;branch=z9hG4bK{method}{number}",
            "Max-Forwards: 70",
            f"From: <sip:g{number}@127.0.0.1>;tag=g{number}",
            f"To: {to}",
            f"Call-ID: {number}@bench",
            f"CSeq: {sequence} {method}",
            f"Contact: <sip:g{number}@127.0.0.1:{self._port}>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self._socket.sendto(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), self._target)

    def _take(self, within_s: float) -> bool:
        """One message, if any comes."""
        self._socket.settimeout(within_s)
        try:
            text = self._socket.recv(65535).decode(errors="replace")
        except TimeoutError:
            return False
        found = re.search(r"^Call-ID: *(\d+)@bench", text, re.MULTILINE | re.IGNORECASE)
        if found and text.startswith("SIP/2.0") and re.search(r"^CSeq: *1 INVITE", text, re.MULTILINE):
            self._answered(int(found[1]), int(text[8:11]), text)
        return True

    def _answered(self, number: int, status: int, text: str) -> None:
        if status < 200:
            return
        if status >= 300:
            raise SystemExit(f"Asterisk refused call {number}: {text.splitlines()[0]}")
        to = re.search(r"^To: *(.*?)\r$", text, re.MULTILINE)
        contact = re.search(r"^Contact: *<(.*?)>", text, re.MULTILINE)
        port = re.search(r"^m=audio (\d+)", text, re.MULTILINE)
        assert to and contact and port, text
        dialog = _Dialog(to[1], contact[1], int(port[1]))
        self._dialogs[number] = dialog
        self._send("ACK", number, dialog.contact, dialog.to, 1)


# --- the subjects -------------------------------------------------------------------------------------------------


class AsteriskEcho:
    """``async with AsteriskEcho(100) as subject:``; a new Asterisk with so many calls, each hearing itself."""

    name = "asterisk"
    extension = "echo"
    without: tuple[str, ...] = ()  # modules

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self.ports: list[int] = []
        self.pids: list[int] = []

    async def __aenter__(self) -> Self:
        self._server = _Server(self.without)
        await self._server.start()
        try:
            pin(self._server.pid, cores()[0][0])
            self.pids = [self._server.pid]
            self._caller = Caller(self._server.port)
            self.ports = await asyncio.to_thread(self._place)
        except BaseException:
            await self._server.__aexit__(None, None, None)
            raise
        return self

    def _place(self) -> list[int]:
        return self._caller.place(dict.fromkeys(range(self._calls), self.extension))

    async def figures(self) -> dict[str, float]:
        return {}

    def memory(self) -> dict[str, float]:
        lines = [line.split() for line in Path(f"/proc/{self._server.pid}/status").read_text().splitlines()]
        return {"rss_mb": next(int(words[1]) * 1024 / 1e6 for words in lines if words[0] == "VmRSS:")}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._caller.hang_up)
        await self._server.__aexit__(kind, error, trace)


class AsteriskBridge(AsteriskEcho):
    """Each two calls are bridged. `native`: Asterisk may hand packets on as they are, without its core."""

    name = "asterisk-bridge"

    def __init__(self, calls: int, *, native: bool = True) -> None:
        super().__init__(calls)
        self.without = () if native else ("bridge_native_rtp",)

    def _place(self) -> list[int]:
        first = self._caller.place({number: f"first{number}" for number in range(0, self._calls, 2)})
        second = self._caller.place({number + 1: f"other{number}" for number in range(0, self._calls, 2)})
        return [port for pair in zip(first, second, strict=True) for port in pair]


class AsteriskAudioSocket(AsteriskEcho):
    """The audio goes by AudioSocket (TCP, 16 bit linear) to a coroutine a call, which answers with what it heard.

    The server is handed 20 ms at a time, as Asterisk sends them; with a `chunk` of several frames it answers when it
    has so many. Its CPU time counts.
    """

    name = "audiosocket"
    extension = "agent"

    def __init__(self, calls: int, chunk: int = 1) -> None:
        super().__init__(calls)
        self._chunk = chunk

    async def __aenter__(self) -> Self:
        self._agents = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.peers", "--chunk", str(self._chunk)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._agents.stdout is not None
        await self._agents.stdout.readline()
        pin(self._agents.pid, cores()[1])
        try:
            await super().__aenter__()
        except BaseException:
            await self._end()
            raise
        self.pids.append(self._agents.pid)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._end()

    async def _end(self) -> None:
        assert self._agents.stdin is not None
        self._agents.stdin.close()
        await self._agents.wait()


# --- the AudioSocket server ---------------------------------------------------------------------------------------


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunk: int) -> None:
    frames: list[bytes] = []
    try:
        while True:
            header = await reader.readexactly(_HEADER)
            body = await reader.readexactly(int.from_bytes(header[1:], "big"))
            if header[0] != _AUDIO:
                continue
            frames.append(body)
            if len(frames) >= chunk:
                writer.write(b"".join(bytes([_AUDIO]) + len(part).to_bytes(2, "big") + part for part in frames))
                frames.clear()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(chunk: int) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(reader, writer, chunk)

    server = await asyncio.start_server(converse, "127.0.0.1", AUDIO_PORT, backlog=4096)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Internal: the AudioSocket server, see the module.")
    parser.add_argument("--chunk", type=int, required=True, help="frames answered at once")
    asyncio.run(serve(parser.parse_args().chunk))


if __name__ == "__main__":
    main()
