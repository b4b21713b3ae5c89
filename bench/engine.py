"""The media engine as a subject: a process of its own that owns it as main does, and does something with the audio.

`python -m bench.engine` is that process; it is started by `Engine`. It prints a JSON line when all calls are up, one
more for each line it reads, and a last one when its input ends and the calls have been closed.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.rig import FIRST_PORT, LAST_PORT, ROOT, SOURCE_PORT, cores, pin, prefer
from sipagent.calls.streams.connection import Connector
from sipagent.calls.streams.dialect import CALLER, Facts
from sipagent.calls.streams.step import DIALECTS
from sipagent.calls.streams.stream import Stream, Terms
from sipagent.core import clock
from sipagent.core.events import Event
from sipagent.media.client import Frames, MediaClient, MediaPort
from sipagent.media.rings import RX_FRAMES, TX_FRAMES, Counter, Header, Rings
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings
from sipagent.web.guard import Guard

STREAMS = ("teler", "twilio", "audiosocket")
AGENTS = ("callback", "arrays", "coroutine", "bridge", *STREAMS)
CLOSED_AT_ONCE = 50
_LIMIT = 1 << 24  # of a line: thousands of ports


def settings_for(calls: int, changes: Sequence[str]) -> MediaSettings:
    """The bench's own, and on top what `--set name=value` asks for."""
    fields: dict[str, Any] = {"host": "127.0.0.1", "port_min": FIRST_PORT, "port_max": LAST_PORT}
    fields |= {"capacity": 2 * max(calls, 1), "media_timeout_s": 0}  # a node is not run at its capacity
    fields |= dict(change.partition("=")[::2] for change in changes)
    return msgspec.convert(fields, MediaSettings, strict=False)


# --- the process that owns the engine -----------------------------------------------------------------------------


class _Quiet:
    """The table is all that is printed; what the engine has to complain of is on its own stderr."""

    def emit(self, event: Event) -> None:
        pass


def echo(port: MediaPort) -> None:
    """In the callback, as soon as a frame is there."""

    def take(frames: Frames) -> None:
        port.write(frames.pcm.reshape(-1))

    port.on_frames = take


async def agent(port: MediaPort, chunk: int) -> None:
    """A coroutine that is handed `chunk` frames at a time and answers with what it heard."""
    loop = asyncio.get_running_loop()
    heard: deque[NDArray[np.int16]] = deque(maxlen=50)
    came = loop.create_future()

    def take(frames: Frames) -> None:
        heard.append(frames.pcm)
        if not came.done():
            came.set_result(None)

    port.on_frames = take
    port.gather(chunk)
    while True:
        await came
        came = loop.create_future()
        while heard:
            port.write(heard.popleft().reshape(-1))


async def streamed(port: MediaPort, dialect: str, url: str, connector: Connector) -> None:
    """The application echoes."""
    facts = Facts(
        call_id=f"call_{port.slot}",
        stream_id=f"strm_{port.slot}",
        account_id="default",
        app_id="bench",
        rate=8000,
        tracks=(CALLER,),
        both_ways=True,
    )
    terms = Terms(
        url=url,
        headers={},
        rate=8000,
        chunk_ms=20,
        tracks=facts.tracks,
        both_ways=True,
        buffer_s=120.0,
        reconnect_s=10.0,
    )
    stream = Stream(terms, lambda: DIALECTS[dialect](facts), connector, port, clock.mono_ns, str, print)
    port.on_frames = stream.on_frames
    await stream.run(lambda: None)


class ArrayEcho:
    """Copies all calls' new frames at once between the rings: next to nothing of main's time.

    On two cores main shares one with the generator, and at thousands of calls callbacks would be what is measured.
    """

    def __init__(self, ports: Sequence[MediaPort]) -> None:
        # From now on: what came while the others were being opened would stay in the queues as delay.
        self._parts = [(rings, np.array(slots), rings.rx_head[slots].copy()) for rings, slots in _by_rings(ports)]

    async def run(self) -> None:
        while True:
            for rings, slots, seen in self._parts:
                self._copy(rings, slots, seen)
            await asyncio.sleep(0.004)  # a frame written within 20 ms goes out with the slot's next packet

    def _copy(self, rings: Rings, slots: NDArray[np.int64], seen: NDArray[np.int64]) -> None:
        while len(rows := np.flatnonzero(rings.rx_head[slots] > seen)):
            some, at = slots[rows], seen[rows]
            heads = rings.tx_head[some]
            room = heads - rings.tx_tail[some] < TX_FRAMES
            some, at, heads = some[room], at[room], heads[room]
            place = heads % TX_FRAMES
            rings.tx_pcm[some, place] = rings.rx_pcm[some, at % RX_FRAMES]
            rings.tx_sent[some, place] = 0
            rings.tx_head[some] = heads + 1
            seen[rows] += 1


def _by_rings(ports: Sequence[MediaPort]) -> list[tuple[Rings, list[int]]]:
    """The slots of each media process's memory."""
    found: dict[int, tuple[Rings, list[int]]] = {}
    for port in ports:
        found.setdefault(id(port._rings), (port._rings, []))[1].append(port.slot)
    return list(found.values())


def figures(ports: Sequence[MediaPort]) -> dict[str, int]:
    """All counters, summed over the calls, and what the engines say of their ticks."""
    total = np.zeros(max(Counter) + 1, np.int64)
    told: dict[str, int] = {"dropped": sum(port.dropped for port in ports), "late_ticks": 0, "skips": 0}
    delays = [int(port._rings.counters[port.slot, Counter.PLAYOUT_DELAY_US]) for port in ports]
    told["playout_us_now"] = sorted(delays)[len(delays) // 2] if delays else 0
    for rings, slots in _by_rings(ports):
        total += rings.counters[slots].sum(axis=0)
        told["late_ticks"] += int(rings.header[Header.LATE_TICKS])
        told["skips"] += int(rings.header[Header.RESYNCS])
    names = [member for member in Counter if not member.name.startswith("_") and not member.name.endswith("_US")]
    return told | {member.name.lower(): int(total[member]) for member in names}


def engine_pids(main: int) -> list[int]:
    """The media processes among the children of the process that owns them, oldest first."""
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return sorted(pid for pid, line in lines.items() if b"sipagent.media.engine" in line)


def memory(main: int) -> dict[str, float]:
    """MB: resident and proportional share of the engines and main, and what of the shared memory is in use."""
    told = {"engine_rss_mb": 0.0, "engine_pss_mb": 0.0, "engine_private_mb": 0.0, "shared_mb": 0.0}
    seen: set[int] = set()
    for pid in engine_pids(main):
        rollup = _rollup(pid)
        told["engine_rss_mb"] += rollup["Rss"]
        told["engine_pss_mb"] += rollup["Pss"]
        told["engine_private_mb"] += rollup["Pss_Anon"]
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if "memfd:sipagent" in os.readlink(descriptor) and (found := os.stat(descriptor)).st_ino not in seen:
                seen.add(found.st_ino)
                told["shared_mb"] += found.st_blocks * 512 / 1e6
    return told | {"main_rss_mb": _rollup(main)["Rss"]}


def _rollup(pid: int) -> dict[str, float]:
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    return {words[0].rstrip(":"): int(words[1]) * 1024 / 1e6 for words in lines}


def _costs(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """µs of one call's."""
    us = np.array(seconds or [0.0]) * 1e6
    return {f"{name}_us": float(np.median(us)), f"{name}_mean_us": float(us.mean()), f"{name}_max_us": float(us.max())}


async def _first_packets(port: MediaPort, source: int) -> None:
    """A shared port lets in one call at a time, until its source is known: so the peer's first packets come now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", source))
        learned = asyncio.Event()
        port.on_source = lambda host, number: learned.set()
        for sequence in range(500):  # the engine hears none before it has heard of the connection
            packet = RtpPacket(
                payload_type=0, sequence=sequence, timestamp=160 * sequence, ssrc=source, payload=b"\xff" * 160
            )
            peer.sendto(bytes(packet), ("127.0.0.1", port.port))
            await asyncio.sleep(0.01)
            if learned.is_set():
                return
    raise SystemExit(f"the engine did not learn where call {source} comes from")


async def _opened(client: MediaClient, calls: int, shared: int, paired: bool) -> tuple[list[MediaPort], list[float]]:
    """So many ports that are connected, and seconds of main's time for each."""
    ports: list[MediaPort] = []
    setup: list[float] = []
    while len(ports) < calls:
        # Each shared port lets one in at a time, until its source is known; the others are opened one by one.
        count = 1 if paired else min(shared or 1, calls - len(ports))
        began = time.process_time()
        sources = [SOURCE_PORT + 2 * (len(ports) + number) for number in range(count)]
        beside = ports[-1] if paired and len(ports) % 2 else None
        opened = await asyncio.gather(*(client.open(("127.0.0.1", far), beside) for far in sources))
        for port, far in zip(opened, sources, strict=True):
            # As with a usual trunk: telephone-event negotiated, reports to the port above (where nobody listens).
            port.connect("127.0.0.1", far, 0, 101, rtcp_port=far + 1)
        setup += [(time.process_time() - began) / count] * count
        ports += opened
        if shared:
            await asyncio.gather(*(_first_packets(port, far) for port, far in zip(opened, sources, strict=True)))
    return ports, setup


async def serve(options: argparse.Namespace) -> None:
    client_settings = settings_for(options.calls, options.settings)
    client = MediaClient(client_settings, _Quiet())
    await client.start()
    pids = engine_pids(os.getpid())
    for pid, core in zip(pids, cores(len(pids))[0], strict=True):
        pin(pid, core)
    ports, setup = await _opened(client, options.calls, client_settings.shared_ports, options.agent == "bridge")
    tasks, connector = [], Connector(Guard(["127.0.0.1"]), 10.0)
    match options.agent:
        case "callback":
            for port in ports:
                echo(port)
        case "arrays":
            tasks = [asyncio.create_task(ArrayEcho(ports).run())]
        case "bridge":
            for one, another in zip(ports[::2], ports[1::2], strict=True):
                one.hear(another)
                another.hear(one)
        case "coroutine":
            tasks = [asyncio.create_task(agent(port, options.chunk)) for port in ports]
        case dialect if dialect in STREAMS:
            tasks = [asyncio.create_task(streamed(port, dialect, options.url, connector)) for port in ports]
    _tell({"pids": pids, "ports": [port.port for port in ports]} | _costs("setup", setup))

    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    while await questions.readline():
        _tell(figures(ports))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await connector.close()
    teardown: list[float] = []
    for first in range(0, len(ports), CLOSED_AT_ONCE):  # while one alone is awaited, main hands on the others' audio
        closing = ports[first : first + CLOSED_AT_ONCE]
        began = time.process_time()
        await asyncio.gather(*(port.close() for port in closing))
        teardown += [(time.process_time() - began) / len(closing)] * len(closing)
    await client.close()
    _tell(_costs("teardown", teardown))


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


# --- the bench's side ---------------------------------------------------------------------------------------------


class Engine:
    """``async with Engine(100) as subject:``; a new engine with so many calls, each hearing itself.

    `agent` is who echoes: "callback" (a callback a call), "arrays" (all calls at once), "coroutine" (a task a call,
    handed `chunk` frames at a time), "bridge", where each two calls hear each other, or an application at `url` in one
    of the dialects of `STREAMS`. With `whole` the CPU time of the owning process counts too.
    """

    name = "engine"

    def __init__(
        self,
        calls: int,
        settings: Sequence[str] = (),
        *,
        agent: str = "callback",
        chunk: int = 1,
        whole: bool = False,
        url: str = "",
    ) -> None:
        self._command = ["--calls", str(calls), "--agent", agent, "--chunk", str(chunk), "--url", url]
        self._command += [word for change in settings for word in ("--set", change)]
        self._whole = whole
        self.ports: list[int] = []
        self.pids: list[int] = []
        self.costs: dict[str, float] = {}  # µs of main for setting a call up, and after leaving for closing it
        self.main = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.engine", *self._command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=_LIMIT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self.main = self._process.pid
        told = await self._answer()
        self.ports, self.pids = told.pop("ports"), told.pop("pids")
        self.costs = told
        pin(self.main, cores(len(self.pids))[1])
        if not self._whole:
            prefer(self.main)
        self.engines = list(self.pids)
        if self._whole:
            self.pids.append(self.main)
        return self

    async def figures(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"figures\n")
        return await self._answer()

    def memory(self) -> dict[str, float]:
        return memory(self.main)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if error is None:
            self.costs |= await self._answer()
        await self._process.wait()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the process that owns the media engine ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Internal: the process that owns the engine, see the module.")
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--agent", choices=AGENTS, required=True)
    parser.add_argument("--chunk", type=int, required=True)
    parser.add_argument("--url", default="")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
