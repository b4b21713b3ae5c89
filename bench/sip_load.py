"""What a node of several lanes behind its edge carries: a whole `sipagent serve`, called by SIPp through Kamailio.

    python -m bench.sip_load                        all of it, with the sizes of docs/performance.md (about 10 minutes)
    python -m bench.sip_load --only hold            100 calls at a time for 60 s, audio both ways
    python -m bench.sip_load --only rate            30 calls a second: INVITE to 200
    python -m bench.sip_load --only kill            a lane is killed while calls are up
    python -m bench.sip_load --only many            5,000 calls one after another: memory, files, threads
    python -m bench.sip_load --only idle            what lanes cost that have nothing to do

The node plays a tone to each caller, so the figures are of signalling, record and media, without any agent; SIPp sends
speech and runs on the same machine.
"""

import asyncio
import os
import re
import signal
import sqlite3
import statistics
import time
import wave
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from bench.rig import Column, Result, arguments, table
from tests.peers.ports import free_block
from tests.peers.sipp import Sipp, SippResult
from tests.system.node import Node

RATE = 8000
TONE_S = 150
DIALPLAN = """\
routes: [{name: tone, called: ["tone"], steps: tone}]
steps:
  tone: [answer, play: tone.wav, hangup]
agents: {}
"""
SECTIONS = ("hold", "rate", "kill", "many", "idle")

HOLD = (
    Column("calls", "calls", "{:d}"),
    Column("seconds", "s", "{:d}"),
    Column("lanes", "lanes", "{:d}"),
    Column("passed", "passed at SIPp", "{:d}"),
    Column("causes", "on record"),
    Column("packets_in", "packets in per call, min to max"),
    Column("packets_out", "out"),
    Column("lost", "lost in all", "{:d}"),
    Column("cpu_main", "CPU ms per call-second: main", "{:.2f}"),
    Column("cpu_media", "media", "{:.2f}"),
    Column("cpu_lanes", "lanes", "{:.2f}"),
    Column("cpu_edge", "edge", "{:.2f}"),
)
SET_UP = (
    Column("rate", "calls/s", "{:d}"),
    Column("calls", "calls", "{:d}"),
    Column("passed", "passed", "{:d}"),
    Column("p50_ms", "INVITE to 200, p50 ms", "{:.1f}"),
    Column("p95_ms", "p95", "{:.1f}"),
    Column("p99_ms", "p99", "{:.1f}"),
    Column("max_ms", "max", "{:.1f}"),
    Column("cpu_main", "CPU ms per call: main", "{:.1f}"),
    Column("cpu_lanes", "lanes", "{:.2f}"),
    Column("cpu_edge", "edge", "{:.2f}"),
)
KILL = (
    Column("calls", "calls up", "{:d}"),
    Column("lost", "on record as lane_died", "{:d}"),
    Column("others", "others, on record"),
    Column("whole_s", "capacity whole after s", "{:.2f}"),
    Column("next", "calls right after: passed", "{:d}"),
)
MANY = (
    Column("process", "process"),
    Column("memory", "private MB after each fifth"),
    Column("files", "files"),
    Column("threads", "threads"),
)
IDLE = (
    Column("process", "process"),
    Column("percent", "% of a core", "{:.3f}"),
    Column("rss_mb", "RSS MB", "{:.0f}"),
    Column("private_mb", "private MB", "{:.1f}"),
)


class LoadNode(Node):
    """A node for so many calls, and what its record says."""

    def __init__(self, calls: int) -> None:
        super().__init__(
            extra=f"[limits]\nmax_calls = {calls}\nmax_duration_s = 300\n",
            dialplan=DIALPLAN,
            media_ports=max(256, 4 * calls),
        )
        text = self.config.read_text().replace("[media]\n", f"[media]\ncapacity = {calls + 4}\n")
        self.config.write_text(text)
        samples = np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(RATE * TONE_S) / RATE)).astype("<i2")
        with wave.open(str(self.folder / "dialplans" / "tone.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes(samples.tobytes())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with sqlite3.connect(f"file:{self.folder / 'sipagent.db'}?mode=ro", uri=True) as base:
            return base.execute(query).fetchall()

    def causes(self, after: int = 0) -> Counter[str]:
        found = self.rows("select cause, ended_by from calls where ended_at is not null order by rowid")
        return Counter(f"{cause} by {by}" for cause, by in found[after:])

    async def on_record(self, count: int) -> None:
        async def enough() -> bool:
            return sum(self.causes().values()) >= count

        await self.until(enough, 30)

    async def processes(self) -> dict[str, list[psutil.Process]]:
        """By role: main, media, zygote, edge (with its children), and each lane."""
        found: dict[str, list[psutil.Process]] = {}
        for name, pid in (await self.pids()).items():
            process = psutil.Process(pid)
            found[name] = [process, *(process.children(recursive=True) if name == "edge" else [])]
        return found


def speech(folder: Path, seconds: float) -> Path:
    """Headerless G.711 for SIPp: noise at the loudness of speech."""
    path = folder / "noise.ulaw"
    path.write_bytes(np.random.default_rng(1).integers(0, 256, int(RATE * seconds), dtype=np.uint8).tobytes())
    return path


async def call(node: LoadNode, *, calls: int, rate: float, limit: int, seconds: float, talks: bool) -> SippResult:
    caller = Sipp(
        "uac-inbound-plays-speech.xml" if talks else "uac-inbound-answered.xml",
        target=node.target,
        service="tone",
        calls=calls,
        rate=rate,
        limit=limit,
        duration_ms=int(seconds * 1000),
        timeout_s=calls / rate + seconds + 60,
        speech=speech(node.folder, seconds - 1) if talks else None,
        media_port=free_block(4 * limit) if talks else 0,
    )
    await caller.start()
    return await caller.wait()


def cpu(processes: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """CPU seconds so far; all lanes together."""
    used: dict[str, float] = {}
    for name, members in processes.items():
        for process in members:
            times = process.cpu_times()
            role = "lanes" if name.startswith("lane") else name.partition("-")[0]
            used[role] = used.get(role, 0.0) + times.user + times.system
    return used


async def hold(calls: int, seconds: int) -> Result:
    async with LoadNode(calls) as node:
        processes = await node.processes()
        before = cpu(processes)
        result = await call(node, calls=calls, rate=20, limit=calls, seconds=seconds, talks=True)
        if not result.ok:
            print(result.errors[-2000:])
        used = {name: value - before[name] for name, value in cpu(processes).items()}
        await node.on_record(calls)
        legs = node.rows("select packets_in, packets_out, lost from legs")
        causes = node.causes()
    received, sent = [int(str(leg[0])) for leg in legs], [int(str(leg[1])) for leg in legs]
    return {
        "calls": calls,
        "seconds": seconds,
        "lanes": len([name for name in processes if name.startswith("lane")]),
        "passed": result.successful,
        "causes": _counted(causes),
        "packets_in": f"{min(received)} to {max(received)}",
        "packets_out": f"{min(sent)} to {max(sent)}",
        "lost": sum(int(str(leg[2])) for leg in legs),
        **{f"cpu_{name}": 1000 * used[name] / (calls * seconds) for name in ("main", "media", "lanes", "edge")},
    }


async def rate(per_second: int, seconds: int) -> Result:
    calls = per_second * seconds
    async with LoadNode(per_second * 3) as node:
        processes = await node.processes()
        before = cpu(processes)
        result = await call(node, calls=calls, rate=per_second, limit=calls, seconds=1.5, talks=False)
        used = {name: value - before[name] for name, value in cpu(processes).items()}
    waits = sorted(set_up_ms(result.messages))
    return {
        "rate": per_second,
        "calls": calls,
        "passed": result.successful,
        "p50_ms": statistics.median(waits),
        "p95_ms": waits[int(0.95 * len(waits))],
        "p99_ms": waits[int(0.99 * len(waits))],
        "max_ms": waits[-1],
        **{f"cpu_{name}": 1000 * used[name] / calls for name in ("main", "lanes", "edge")},
    }


async def kill(calls: int) -> Result:
    async with LoadNode(calls) as node:
        running = asyncio.create_task(call(node, calls=calls, rate=20, limit=calls, seconds=30, talks=True))

        async def up() -> bool:
            return int((await node.health())["calls_active"]) == calls

        await node.until(up, 30)
        lanes = await node.pids()
        begun = time.monotonic()
        os.kill(lanes["lane-1"], signal.SIGKILL)

        async def replaced() -> bool:
            return (await node.pids()).get("lane-1", lanes["lane-1"]) != lanes["lane-1"]

        await node.until(replaced, 20)
        whole = time.monotonic() - begun
        await running
        await node.on_record(calls)
        causes = node.causes()
        again = await call(node, calls=calls, rate=20, limit=calls, seconds=6, talks=False)
    lost = causes.pop("lane_died by system", 0)
    return {"calls": calls, "lost": lost, "others": _counted(causes), "whole_s": whole, "next": again.successful}


async def many(calls: int) -> list[Result]:
    """The footprint after a first fifth of the calls, and after each further one."""
    seen: dict[str, list[tuple[float, int, int]]] = {}
    async with LoadNode(60) as node:  # a call is over for SIPp a moment before its record is closed
        for _ in range(5):
            result = await call(node, calls=calls // 5, rate=20, limit=20, seconds=0.2, talks=False)
            result.check()
            for name, members in (await node.processes()).items():
                memory = sum(p.memory_full_info().uss for p in members) / 1e6
                files, threads = sum(p.num_fds() for p in members), sum(p.num_threads() for p in members)
                seen.setdefault(name, []).append((memory, files, threads))
        await node.on_record(calls)
        print(f"\n{_counted(node.causes())} on record")
    return [
        {
            "process": name,
            "memory": " ".join(f"{memory:.1f}" for memory, _, _ in steps),
            "files": " ".join(str(files) for _, files, _ in steps),
            "threads": " ".join(str(threads) for _, _, threads in steps),
        }
        for name, steps in seen.items()
    ]


async def idle(calls: int, seconds: int) -> list[Result]:
    async with LoadNode(calls) as node:
        processes = await node.processes()
        await asyncio.sleep(5)
        before = {name: sum(sum(p.cpu_times()[:2]) for p in members) for name, members in processes.items()}
        await asyncio.sleep(seconds)
        rows: list[Result] = []
        for name, members in processes.items():
            used = sum(sum(p.cpu_times()[:2]) for p in members) - before[name]
            memory = [p.memory_full_info() for p in members]
            rows.append(
                {
                    "process": name,
                    "percent": 100 * used / seconds,
                    "rss_mb": sum(m.rss for m in memory) / 1e6,
                    "private_mb": sum(m.uss for m in memory) / 1e6,
                }
            )
    lanes = [row for row in rows if str(row["process"]).startswith("lane")]
    mean = {key: statistics.mean(row[key] for row in lanes) for key in ("percent", "rss_mb", "private_mb")}
    return [*(row for row in rows if row not in lanes), {"process": f"each of {len(lanes)} lanes", **mean}]


def set_up_ms(messages: str) -> list[float]:
    """INVITE to 200 of each call, from SIPp's log of messages."""
    sent: dict[str, datetime] = {}
    waits: list[float] = []
    pattern = r"^-{20,} ([0-9-]+ [0-9:.]+)\n[^\n]*(sent|received)[^\n]*\n\n(INVITE|SIP/2\.0 200)(.*?)(?=^-{20,} |\Z)"
    for stamp, _, start, rest in re.findall(pattern, messages, re.MULTILINE | re.DOTALL):
        at = datetime.fromisoformat(stamp)
        call_id = re.search(r"^Call-ID: *(\S+)", rest, re.MULTILINE | re.IGNORECASE)
        cseq = re.search(r"^CSeq: *\S+ (\S+)", rest, re.MULTILINE | re.IGNORECASE)
        if call_id is None or cseq is None or cseq[1] != "INVITE":
            continue
        if start == "INVITE":
            sent.setdefault(call_id[1], at)
        elif call_id[1] in sent:
            waits.append((at - sent.pop(call_id[1])).total_seconds() * 1000)
    return waits


def _counted(causes: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in causes.most_common())


async def run(only: Sequence[str], options: dict[str, int]) -> None:
    for section in only or SECTIONS:
        print(f"\n### {section}\n", flush=True)
        match section:
            case "hold":
                print(table(HOLD, [await hold(options["calls"], options["seconds"])]))
            case "rate":
                print(table(SET_UP, [await rate(options["rate"], 20)]))
            case "kill":
                print(table(KILL, [await kill(options["calls"])]))
            case "many":
                print(table(MANY, await many(options["many"])))
            case _:
                print(table(IDLE, await idle(options["calls"], 30)))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section; may be given several times")
    parser.add_argument("--calls", type=int, default=100, help="at a time")
    parser.add_argument("--seconds", type=int, default=60, help="that they are held")
    parser.add_argument("--rate", type=int, default=30, help="calls a second")
    parser.add_argument("--many", type=int, default=5000, help="calls one after another")
    options = vars(parser.parse_args())
    asyncio.run(run(options["only"] or (), {key: options[key] for key in ("calls", "seconds", "rate", "many")}))


if __name__ == "__main__":
    main()
