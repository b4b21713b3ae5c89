"""`sipagent demo`: a real call between two separate sets of processes on this machine.

The node runs as `sipagent serve` in a process of its own; this process is the caller's telephone. What the agent
understood and said comes from the node's event stream and its record; what the caller heard comes from the telephone's
own ears.
"""

import asyncio
import difflib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
from rich.console import Console
from rich.text import Text

from sipagent.cli import show
from sipagent.cli.options import json_option, print_json
from sipagent.config import PREFIX, Config, state_dir
from sipagent.core.errors import SetupError
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.phone import Phone, PhoneCall, PhoneSettings
from sipagent.speech.settings import SpeechSettings
from sipagent.state_folder import local_key
from sipagent.store.queries import Queries
from sipagent.store.records import FullCall

NODE_MEDIA_PORTS = (21000, 21998)
PHONE_MEDIA_PORTS = (31000, 31998)
NODE_START_S = 90.0
_NUMBER_WORDS = frozenset("two four six eight twelve forty five eighty one hundred twenty dollars".split())
ALIKE = 0.6  # share of the words, in order, that two texts must have in common to count as the same


@dataclass(frozen=True, slots=True)
class Line:
    """What the caller says, what the agent should understand and answer."""

    text: str
    intent: str
    answer: str  # words that the caller must hear
    interrupt_after_s: float = 0.0  # > 0: speaks into the agent's answer after so long, instead of waiting for its end


SCRIPT = (
    Line("Hello. What are your opening hours?", "hours", "open from eight in the morning until six in the evening"),
    Line("How much does a check up cost?", "price", "and a cleaning is"),
    Line("And where can I park my car?", "location", "there is free parking", interrupt_after_s=4.0),
)


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """One real call on this machine: no account, no trunk, no configuration, no root.

    A caller rings the front-desk agent over SIP, speaks over RTP, is understood and answered by local models,
    interrupts one answer, and hangs up. Exit status 0 only if the words were recognised and the answers were right.
    """
    # Nothing of the surroundings: neither a sipagent.toml here nor settings in the environment.
    folder = state_dir(Config(), os.environ) / "demo"
    folder.mkdir(mode=0o700, exist_ok=True)
    console = Console(stderr=as_json, highlight=False)
    facts = asyncio.run(_demo(folder, console))
    if as_json:
        print_json(facts)
    if facts["problems"]:
        raise click.exceptions.Exit(1)


async def _demo(folder: Path, console: Console) -> dict[str, Any]:
    sip_port, api_port = _free_port(socket.SOCK_DGRAM), _free_port(socket.SOCK_STREAM)
    config = _write_config(folder, sip_port, api_port)
    phone = Phone(PhoneSettings(media_ports=PHONE_MEDIA_PORTS), SpeechSettings())
    console.print("[dim]starting a node and a telephone, each with processes and models of its own …[/]")
    async with _node(config, folder, api_port) as api:
        await phone.start()
        try:
            watching = asyncio.create_task(_watch(api, console))
            console.print(f"[dim]calling sip:100@127.0.0.1:{sip_port}[/]\n")
            heard, recording = await _ring(phone, f"sip:100@127.0.0.1:{sip_port}", folder, console)
            call_id = await _recorded(folder)
            watching.cancel()
            await asyncio.wait({watching})
        finally:
            await phone.close()
    queries = Queries(_database(folder))
    record = queries.get_call(call_id)
    queries.close()
    assert record is not None
    problems = _judge(record, heard)
    console.print("\n[bold]The record[/]")
    console.print(show.call_record(record))
    console.print(f"\nrecording  {recording}\nmore       sipagent calls last -c {config}")
    if problems:
        console.print("\n" + "\n".join(f"[red]✗[/] {problem}" for problem in problems))
    else:
        console.print("\n[green]✓[/] every word that mattered was understood, answered and heard")
    return {
        "call": msgspec.to_builtins(record.call),
        "turns": msgspec.to_builtins(record.turns),
        "caller_said": [line.text for line in SCRIPT],
        "caller_heard": heard,
        "recording": str(recording),
        "problems": problems,
    }


# --- the caller -----------------------------------------------------------------------------------------------


async def _ring(phone: Phone, uri: str, folder: Path, console: Console) -> tuple[list[str], Path]:
    call = await phone.call(uri)
    if not await call.answered(10.0):
        why = call.leg.ended.result().cause if call.over else "nothing came back for 10 s"
        raise SetupError(f"the node did not answer the call ({why}); see {folder / 'node.log'}")
    call.on_heard = lambda text: console.print(Text.assemble(("  caller hears  ", "dim"), (text, "dim")))
    await call.until_quiet(1.0, 15.0)
    for line, following in zip(SCRIPT, [*SCRIPT[1:], None], strict=True):
        console.print(Text.assemble(("  caller says   ", "bold"), line.text))
        await call.say(line.text)
        await _hear_out(call, following)
        console.print()
    await call.hang_up()
    recording = folder / "call.wav"
    call.tape.write(recording)
    return call.heard, recording


async def _hear_out(call: PhoneCall, following: Line | None) -> None:
    """Listens to the answer: to its end, or until it is time to interrupt."""
    if following is not None and following.interrupt_after_s:
        await call.until_speaking(following.interrupt_after_s, 15.0)
    else:
        await call.until_quiet(1.5, 30.0)


# --- the node -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Api:
    http: aiohttp.ClientSession
    url: str


@asynccontextmanager
async def _node(config: Path, folder: Path, api_port: int) -> AsyncIterator[_Api]:
    """`sipagent serve` as a process; its output goes to a file, shown when it fails."""
    log = folder / "node.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sipagent", "serve", "-c", str(config), stdin=asyncio.subprocess.DEVNULL,
            stdout=out, stderr=out, env=_environment(),
        )  # fmt: skip
    try:
        headers = {"x-api-key": local_key(folder)[0]}
        async with aiohttp.ClientSession(headers=headers) as http:
            api = _Api(http, f"http://127.0.0.1:{api_port}")
            await _until_ready(api, process, log)
            yield api
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 20.0)
            except TimeoutError:
                process.kill()
                await process.wait()


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX) or key == "SIPAGENT_MODELS"}
    return {**kept, "SIPAGENT_LOG_FORMAT": "json"}


async def _until_ready(api: _Api, process: asyncio.subprocess.Process, log: Path) -> None:
    for _ in range(int(NODE_START_S / 0.2)):
        if process.returncode is not None:
            text = await asyncio.to_thread(log.read_text, "utf-8", "replace")
            last = (text.strip().splitlines() or ["it said nothing"])[-1]
            raise SetupError(f"the node did not start: {last.removeprefix('sipagent: ')}")
        with suppress(aiohttp.ClientError):
            async with api.http.get(f"{api.url}/readyz") as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.2)
    raise SetupError(f"the node was not ready within {NODE_START_S:.0f} s; see {log}")


async def _watch(api: _Api, console: Console) -> None:
    """Shows what the agent understands and says, as it happens."""
    painters: dict[str, Callable[[dict[str, Any]], Text]] = {
        "PartialTranscript": lambda e: Text.assemble(("  agent hears   ", "dim"), (e["text"] + " …", "dim italic")),
        "CallerSaid": lambda e: Text.assemble(("  agent hears   ", "green"), e["text"]),
        "AgentSpeaking": _speaking,
        "AgentInterrupted": lambda e: Text("  agent stops, having said: " + e["heard_text"], "yellow"),
    }
    timeout = aiohttp.ClientTimeout(total=None)
    async with api.http.get(f"{api.url}/api/v1/events/stream", timeout=timeout) as response:
        kind = ""
        async for raw in response.content:
            line = raw.decode("utf-8").strip()
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:") and kind in painters:
                console.print(painters[kind](json.loads(line[5:])["data"]))


def _speaking(event: dict[str, Any]) -> Text:
    said = Text.assemble(("  agent says    ", "bold cyan"), event["text"])
    if event.get("latency") is None:
        return said
    return Text.assemble("    ", show.latency_bar(event["latency"], 800.0), "\n", said)


async def _recorded(folder: Path) -> str:
    """The call's id once its end is on record."""
    queries = Queries(_database(folder))
    try:
        for _ in range(100):
            page = await asyncio.to_thread(queries.list_calls)
            if page.calls and page.calls[0].ended_at is not None:
                return page.calls[0].id
            await asyncio.sleep(0.1)
    finally:
        queries.close()
    raise SetupError(f"the call's end did not reach the record within 10 s; see {folder / 'node.log'}")


def _database(folder: Path) -> str:
    return f"sqlite:///{folder / 'sipagent.db'}"


def _write_config(folder: Path, sip_port: int, api_port: int) -> Path:
    config = folder / "sipagent.toml"
    low, high = NODE_MEDIA_PORTS
    config.write_text(
        "# Written by `sipagent demo`; each run writes it anew.\n"
        f"[node]\nstate_dir = {json.dumps(str(folder))}\n"
        f'[sip]\nhost = "127.0.0.1"\nport = {sip_port}\n'
        f'[media]\nhost = "127.0.0.1"\nport_min = {low}\nport_max = {high}\n'
        f"[api]\nport = {api_port}\n",
        "utf-8",
    )
    return config


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- was it right? --------------------------------------------------------------------------------------------


def _judge(record: FullCall, heard: list[str]) -> list[str]:
    """What was not as it should be, in sentences; empty when the conversation really took place."""
    problems: list[str] = []
    turns = [turn for turn in record.turns if turn.caller_text]
    if len(turns) != len(SCRIPT):
        problems.append(f"the caller spoke {len(SCRIPT)} times, the record has {len(turns)} turns")
    everything_heard = " ".join(heard)
    for line, turn in zip(SCRIPT, turns, strict=False):
        if _alike(line.text, turn.caller_text) < ALIKE:
            problems.append(f"“{line.text}” was recognised as “{turn.caller_text}”")
        if turn.intent != line.intent:
            problems.append(f"“{line.text}” was understood as {turn.intent or 'nothing'}, not {line.intent}")
        if _best(line.answer, everything_heard) < ALIKE:
            problems.append(f"the caller did not hear “{line.answer}”")
    interrupted = [turn.intent for turn in turns if turn.interrupted]
    if interrupted != ["price"]:
        problems.append(f"the answer about prices should have been interrupted; interrupted: {interrupted or 'none'}")
    for turn in turns:
        if turn.interrupted and not 0 < len(turn.heard_text) < len(turn.agent_text):
            problems.append("the interrupted answer should have been heard in part")
    call = record.call
    if (call.disposition, call.cause, call.ended_by) != (Disposition.ANSWERED, Cause.NORMAL, EndedBy.CALLER):
        problems.append(f"the call should have ended normally by the caller: {call.disposition}, {call.cause}")
    return problems


def _words(text: str) -> list[str]:
    """Without numbers: a recogniser writes "8", "$45" or "forty five" as it likes."""
    words = re.findall(r"[a-z]+", re.sub(r"[$]?\d+", " ", text.lower().replace("'", "")))
    return [word for word in words if word not in _NUMBER_WORDS]


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, _words(one), _words(other), autojunk=False).ratio()


def _best(wanted: str, text: str) -> float:
    """How well the wanted words are found, in order, somewhere in the text."""
    needle, words = _words(wanted), _words(text)
    windows = range(max(1, len(words) - len(needle) + 1))
    return max(
        difflib.SequenceMatcher(None, needle, words[i : i + len(needle)], autojunk=False).ratio() for i in windows
    )
