"""SIPp, the independent caller and callee: runs a scenario of `sipp-scenarios/` and tells what became of it.

result = await run("uac-inbound-answered.xml", target="127.0.0.1:5060", duration_ms=500)
result.check()
"""

import asyncio
import contextlib
import csv
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers import PeerMissing
from tests.peers.ports import free_block, free_port

SCENARIOS = Path(__file__).resolve().parents[2] / "sipp-scenarios"
_MEDIA_PORTS = 24


@dataclass(frozen=True, slots=True)
class SippResult:
    scenario: str
    code: int  # SIPp's exit status: 0 all calls passed; -1 killed at the time limit
    successful: int
    failed: int
    errors: str  # what SIPp wrote about unexpected messages
    messages: str  # every SIP message, as SIPp logs them
    stats: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        return self.code == 0 and self.failed == 0

    def check(self) -> None:
        """Raises AssertionError with what SIPp saw instead of what it expected."""
        if not self.ok:
            raise AssertionError(
                f"{self.scenario}: SIPp ended with {self.code}, {self.successful} calls passed, {self.failed} failed\n"
                f"{self.errors[-2500:] or self.messages[-2500:]}"
            )

    def received(self, start: str) -> list[str]:
        """The messages SIPp received whose start line begins so, oldest first."""
        return [text for text in _blocks(self.messages, "received") if text.startswith(start)]

    def sent(self, start: str) -> list[str]:
        return [text for text in _blocks(self.messages, "sent") if text.startswith(start)]


class Sipp:
    """One running SIPp. A callee (no target) listens on ``port`` from `start` on."""

    def __init__(
        self,
        scenario: str | Path,
        *,
        target: str | None = None,
        port: int = 0,
        media_port: int = 0,
        service: str = "service",
        calls: int = 1,
        rate: float = 10.0,
        limit: int = 0,
        duration_ms: int = 500,
        timeout_s: float = 15.0,
        speech: Path | None = None,
        args: Sequence[str] = (),
        host: str = "127.0.0.1",
        media_host: str = "127.0.0.1",
    ) -> None:
        """``speech``: headerless G.711 for scenarios that play it. ``limit``: calls at a time, 0 for no limit."""
        self.scenario = Path(scenario) if "/" in str(scenario) else SCENARIOS / scenario
        self.target = target
        self.host, self.media_host = host, media_host
        self.port = port or free_port()
        self.media_port = media_port or free_block(_MEDIA_PORTS)
        self.service = service
        self.calls = calls
        self.rate = rate
        self.limit = limit
        self.duration_ms = duration_ms
        self.timeout_s = timeout_s
        self.speech = speech
        self.args = tuple(args)
        self.folder = Path(tempfile.mkdtemp(prefix="sipp-"))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def uri(self) -> str:
        return f"sip:{self.service}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self) -> "Sipp":
        program = shutil.which("sipp")
        if program is None:
            raise PeerMissing("SIPp is not installed: apt-get install sip-tester")
        if self.speech is not None:
            shutil.copy(self.speech, self.folder / "speech.ulaw")
        command = [program]
        if self.target is not None:
            command.append(self.target)
        command += ["-sf", str(self.scenario), "-i", self.host, "-p", str(self.port), "-s", self.service]
        command += ["-mi", self.media_host, "-mp", str(self.media_port), "-m", str(self.calls), "-r", str(self.rate)]
        command += ["-d", str(self.duration_ms), "-nostdin", "-trace_err", "-error_file", "errors.log"]
        command += ["-trace_msg", "-message_file", "messages.log", "-trace_stat", "-stf", "stats.csv", "-fd", "1"]
        if self.limit:
            command += ["-l", str(self.limit)]
        with (self.folder / "console.log").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *self.args,
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=console,
            )
        if self.target is None:
            await self._listening()
        return self

    async def wait(self) -> SippResult:
        """The result; a SIPp that is not through in time is killed, and its result says -1."""
        process = self._process
        assert process is not None, "start() first"
        try:
            async with asyncio.timeout(self.timeout_s):
                code = await process.wait()
        except TimeoutError:
            code = -1
        finally:
            await self.stop()
        stats = _last_row(self.folder / "stats.csv")
        result = SippResult(
            scenario=self.scenario.name,
            code=code,
            successful=int(stats.get("SuccessfulCall(C)", "0")),
            failed=int(stats.get("FailedCall(C)", "0")),
            errors=_read(self.folder / "console.log") + _read(self.folder / "errors.log"),
            messages=_read(self.folder / "messages.log"),
            stats=stats,
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        return result

    def dialog(self) -> str:
        """The dialog of a caller that has been answered, as Replaces names it to the other side (RFC 3891)."""
        ok = next(text for text in _blocks(_read(self.folder / "messages.log"), "received") if "200 OK" in text)
        header = {name.lower(): value for name, _, value in (line.partition(": ") for line in ok.splitlines())}
        tags = [header[name].strip().partition("tag=")[2] for name in ("to", "from")]
        return f"{header['call-id'].strip()};to-tag={tags[0]};from-tag={tags[1]}"

    async def stop(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def __aenter__(self) -> "Sipp":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _listening(self) -> None:
        """SIPp binds some 100 ms after it starts; an INVITE before that is lost for half a second."""
        wanted = f":{self.port:04X} "
        for _ in range(200):
            tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("udp", "tcp", "udp6"))
            if wanted in tables:
                return
            if self._process is None or self._process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        raise AssertionError(f"SIPp did not listen on port {self.port}: {_read(self.folder / 'console.log')}")


async def run(
    scenario: str | Path,
    *,
    target: str,
    service: str = "service",
    calls: int = 1,
    rate: float = 10.0,
    limit: int = 0,
    duration_ms: int = 500,
    timeout_s: float = 15.0,
    speech: Path | None = None,
    args: Sequence[str] = (),
) -> SippResult:
    """A caller's scenario from start to end."""
    sipp = Sipp(
        scenario,
        target=target,
        service=service,
        calls=calls,
        rate=rate,
        limit=limit,
        duration_ms=duration_ms,
        timeout_s=timeout_s,
        speech=speech,
        args=args,
    )
    await sipp.start()
    return await sipp.wait()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _last_row(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with path.open(newline="", errors="replace") as file:
        rows = list(csv.reader(file, delimiter=";"))
    return dict(zip(rows[0], rows[-1], strict=False)) if len(rows) > 1 else {}


def _blocks(log: str, direction: str) -> list[str]:
    """SIPp's message log: a rule with the time, a line saying how many bytes went which way, the message."""
    found: list[str] = []
    for block in re.split(r"^-{20,} [0-9-]+ [0-9:.]+\n", log, flags=re.MULTILINE)[1:]:
        head, _, text = block.partition("\n")
        if direction in head:
            found.append(text.strip("\r\n"))
    return found
