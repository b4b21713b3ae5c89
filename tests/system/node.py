"""A node under test: `sipagent serve` as a user runs it, with a folder, a configuration and a dialplan of its own."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from sipagent.state_folder import local_key
from sipagent.store.queries import Queries
from sipagent.store.records import CallRecord, FullCall
from tests.peers.ports import free_block, free_port

START_S = 90.0

DIALPLAN = """\
routes:
  - {name: listen, called: ["listen", "sipagent"], steps: listen}
  - {name: short, called: ["short"], steps: short}
  - {name: talk, called: ["talk"], steps: talk}
  - {name: desk, called: ["desk"], steps: desk}
  - {name: hello, called: ["hello"], steps: hello}
  - {name: refuse, called: ["refuse"], steps: refuse}
  - {name: forward, called: ["forward"], steps: forward}
steps:
  listen: [answer, agent: listener]
  short: [answer, agent: okay]
  talk: [answer, agent: talker]
  desk: [answer, agent: desk]
  hello: [answer, say: "Hello, this is a short message.", hangup]
  refuse: [reject: 480]
  forward: [answer, transfer: "sip:human@example.test", say: "Nobody is there.", hangup]
agents:
  # Says nothing and writes down what it hears.
  listener:
    greeting: ""
    silence_s: 600
    unknown: [""]
    unknown_limit: 9999
    filler: ""
    barge_in: never
    intents: {none: {examples: ["zzz"], answer: "zzz"}}
  # Answers anything with one word.
  okay:
    greeting: ""
    silence_s: 600
    unknown: ["Okay."]
    unknown_limit: 9999
    intents: {none: {examples: ["zzz"], answer: "zzz"}}
  # Talks without end.
  talker:
    greeting: >-
      This is a long message that goes on and on, so that there is always something to hear on the line. It tells of
      the sea and the wind, of ships and harbours, of long nights on watch, and of mornings when the fog lifts at
      last. Then it starts again, with the sea and the wind, the ships and the harbours, the long nights and the fog
      that lifts. And once more it tells of the sea and of the wind, and it does not end before the caller does.
    silence_s: 600
    intents: {none: {examples: ["zzz"], answer: "zzz"}}
  desk:
    greeting: "Hello."
    silence_s: 600
    intents:
      hours: {examples: ["what are your opening hours", "when are you open"], answer: "From eight until six."}
      human:
        examples: ["let me talk to a human"]
        answer: "I will put you through."
        transfer: {target: "sip:human@example.test", via: refer}
      bye: {examples: ["goodbye", "bye bye"], answer: "Goodbye.", hangup: true}
"""


class Node:
    """``async with Node() as node:``; ends it by SIGTERM and checks nothing: tests do."""

    def __init__(self, *, extra: str = "", dialplan: str = DIALPLAN, media_ports: int = 256) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="node-"))
        self.sip_port = free_port()
        self.api_port = free_port()
        self.media_port, self.media_ports = free_block(media_ports), media_ports
        plans = self.folder / "dialplans"
        plans.mkdir()
        (plans / "test.yaml").write_text(dialplan)
        self.config = self.folder / "sipagent.toml"
        self.config.write_text(
            f'[node]\nname = "test"\nstate_dir = "{self.folder}"\ndialplans = "{plans}"\n'
            f'[sip]\nhost = "127.0.0.1"\nport = {self.sip_port}\n'
            f'[media]\nhost = "127.0.0.1"\n'
            f"port_min = {self.media_port}\nport_max = {self.media_port + media_ports - 1}\n"
            f"port_quarantine_s = 2\n[api]\nport = {self.api_port}\n" + extra
        )
        self.log = self.folder / "node.log"
        self.process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.sip_port}"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'sipagent.db'}"

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    async def __aenter__(self) -> "Node":
        await self.start()
        return self

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        await self.stop()
        if failure is None:  # a failed test leaves its log and its record to look at
            shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sipagent", "serve", "-c", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "SIPAGENT_LOG_FORMAT": "json"},
            )
        headers = {"x-api-key": local_key(self.folder)[0]}
        self._http = aiohttp.ClientSession(f"http://127.0.0.1:{self.api_port}", headers=headers)
        await self.until(self.ready, START_S)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and waits; the exit status."""
        if self._http is not None:
            await self._http.close()
            self._http = None
        process = self.process
        assert process is not None
        if process.returncode is None:
            process.send_signal(number)
            async with asyncio.timeout(30):
                await process.wait()
        assert process.returncode is not None
        return process.returncode

    async def ready(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            raise AssertionError(f"the node ended:\n{self.log.read_text()[-3000:]}")
        try:
            async with self.http.get("/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def health(self) -> dict[str, Any]:
        async with self.http.get("/healthz") as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def pids(self) -> dict[str, int]:
        processes: dict[str, int] = (await self.health())["processes"]
        return processes

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    # --- the record ---

    def calls(self) -> list[CallRecord]:
        queries = Queries(self.url)
        try:
            return queries.list_calls().calls
        finally:
            queries.close()

    def record(self, call_id: str) -> FullCall:
        queries = Queries(self.url)
        try:
            found = queries.get_call(call_id)
        finally:
            queries.close()
        assert found is not None
        return found

    async def ended(self, count: int, within_s: float = 40.0) -> list[FullCall]:
        """The records of all calls, newest first, once so many have ended."""

        async def enough() -> bool:
            return len([call for call in self.calls() if call.ended_at is not None]) >= count

        await self.until(enough, within_s)
        return [self.record(call.id) for call in self.calls()]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events as the log has them (no numbers, no words), oldest first."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == kind]

    @staticmethod
    async def until(condition: Callable[[], Any], within_s: float) -> None:
        """Polls an async condition."""
        async with asyncio.timeout(within_s):
            while not await condition():
                await asyncio.sleep(0.1)
