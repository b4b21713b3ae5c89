"""Whether the API's work is heard on the line: a node with many calls up, with and without requests.

    python -m bench.api_load                     200 calls, 500 requests a second, windows of 10 s by turns

A whole `sipagent serve`, called by SIPp over Kamailio and lanes; it plays a tone to each caller. A process of its own
asks: lists of calls, single calls, live calls, and every tenth time mutes a call or lets it be heard again. The packets
that leave are captured on the loopback; a packet's deviation is from the schedule of its stream, by its timestamp.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from itertools import cycle
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from numpy.typing import NDArray

from bench.rig import Column, Result, table
from bench.sip_load import LoadNode, call, cpu
from tests.peers import PeerMissing

KEPT = 14 + 20 + 8 + 12  # bytes of a packet: Ethernet, IP, UDP, RTP
RECORD = np.dtype(
    [("s", "<u4"), ("us", "<u4"), ("kept", "<u4"), ("size", "<u4"), ("link_ip", "V34")]
    + [("source", ">u2"), ("target", ">u2"), ("udp", "V4"), ("flags", "u1"), ("kind", "u1")]
    + [("sequence", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4")]
)
PCAP_HEADER = 24
RTP_SIZE = 14 + 20 + 8 + 172
AT_ONCE = 64  # requests under way
NEW_CALLS = 20  # a second

COLUMNS = (
    Column("load", "requests a second", "{:.0f}"),
    Column("streams", "streams", "{:d}"),
    Column("packets", "packets", "{:d}"),
    Column("p99_ms", "off schedule ms: p99", "{:.2f}"),
    Column("p999_ms", "p99.9", "{:.2f}"),
    Column("max_ms", "max", "{:.2f}"),
    Column("late", "share > 5 ms", "{:.5f}"),
    Column("answer_p50", "answer ms: p50", "{:.1f}"),
    Column("answer_p99", "p99", "{:.1f}"),
    Column("refused", "not 2xx", "{:d}"),
    Column("cpu_main", "% of a core: main", "{:.0f}"),
    Column("cpu_media", "media", "{:.0f}"),
)


def deviations(file: Path) -> tuple[NDArray[np.float64], int]:
    """ms by which each packet was off its stream's schedule, and how many streams there are."""
    packets = np.frombuffer(file.read_bytes()[PCAP_HEADER:], RECORD)
    packets = packets[(packets["size"] == RTP_SIZE) & (packets["kind"] & 0x7F == 0)]
    at = packets["s"].astype(np.float64) * 1e3 + packets["us"] / 1e3
    found = []
    for ssrc in np.unique(packets["ssrc"]):
        rows = packets["ssrc"] == ssrc
        stamps = packets["timestamp"][rows].astype(np.uint32)
        behind = at[rows] - (stamps - stamps[0]) / 8
        found.append(np.abs(behind - np.median(behind)))
    return np.concatenate(found) if found else np.zeros(0), len(found)


async def captured(folder: Path, ports: tuple[int, int], seconds: float) -> Path:
    program = shutil.which("dumpcap")
    if program is None:
        raise PeerMissing("dumpcap is not installed: apt-get install wireshark-common")
    file = folder / "leaving.pcap"
    process = await asyncio.create_subprocess_exec(
        *(program, "-q", "-P", "-i", "lo", "-s", str(KEPT), "-B", "64", "-w", str(file)),
        *("-f", f"udp and src portrange {ports[0]}-{ports[1]}", "-a", f"duration:{seconds:g}"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(seconds + 20):
        await process.wait()
    return file


# --- who asks -----------------------------------------------------------------------------------------------------


async def ask(url: str, key: str, per_second: float, seconds: float) -> dict[str, object]:
    waits: list[float] = []
    refused: list[int] = []
    async with aiohttp.ClientSession(url, headers={"x-api-key": key}) as http:
        async with http.get("/api/v1/live-calls") as answer:
            ids = [call["id"] for call in (await answer.json())["data"]]
        assert ids, "no call is up"
        legs: dict[str, str] = {}
        for call_id in ids:
            async with http.get(f"/api/v1/voice/calls/{call_id}/legs") as answer:
                legs[call_id] = (await answer.json())["data"][0]["id"]
        some, room = cycle(ids), asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            call_id = next(some)
            async with room:
                began = time.perf_counter()
                match number % 10:
                    case 0:
                        request = http.post(
                            f"/api/v1/voice/calls/{call_id}/mute",
                            json={"leg_id": legs[call_id], "on": number % 20 == 0},
                        )
                    case 1 | 2 | 3:
                        request = http.get("/api/v1/voice/calls?limit=20")
                    case 4 | 5 | 6:
                        request = http.get(f"/api/v1/voice/calls/{call_id}")
                    case _:
                        request = http.get("/api/v1/live-calls")
                async with request as answer:
                    await answer.read()
                    if not 200 <= answer.status < 300:
                        refused.append(answer.status)
                waits.append(1000 * (time.perf_counter() - began))

        began = time.perf_counter()
        tasks = set()
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            tasks.add(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
        took = time.perf_counter() - began
    waits.sort()
    return {
        "load": len(waits) / took,
        "answer_p50": statistics.median(waits),
        "answer_p99": waits[int(0.99 * len(waits))],
        "refused": len(refused),
        "statuses": sorted(set(refused)),
    }


async def asked(node: LoadNode, per_second: float, seconds: float) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.api_load", "--ask", f"http://127.0.0.1:{node.api_port}"),
        *("--per-second", str(per_second), "--seconds", str(seconds)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SIPAGENT_BENCH_KEY": node.http.headers["x-api-key"]},
    )
    output, _ = await process.communicate()
    told: dict[str, object] = json.loads(output)
    return told


# --- the run ------------------------------------------------------------------------------------------------------


async def window(node: LoadNode, seconds: float, per_second: float) -> Result:
    processes = await node.processes()
    before, began = cpu(processes), time.perf_counter()
    ports = (node.media_port, node.media_port + node.media_ports - 1)
    capture = asyncio.create_task(captured(node.folder, ports, seconds))
    told = await asked(node, per_second, seconds) if per_second else {"load": 0}
    file = await capture
    used = {name: value - before[name] for name, value in cpu(processes).items()}
    took = time.perf_counter() - began
    off, streams = deviations(file)
    return told | {
        "streams": streams,
        "packets": len(off),
        "p99_ms": float(np.percentile(off, 99)),
        "p999_ms": float(np.percentile(off, 99.9)),
        "max_ms": float(off.max()),
        "late": float((off > 5).mean()),
        "cpu_main": 100 * used["main"] / took,
        "cpu_media": 100 * used["media"] / took,
    }


async def run(options: argparse.Namespace) -> list[Result]:
    windows = 2 * options.rounds + 1
    up_s = options.calls / NEW_CALLS + windows * (options.seconds + 3) + 10
    async with LoadNode(options.calls) as node:
        calls = options.calls
        calling = asyncio.create_task(call(node, calls=calls, rate=NEW_CALLS, limit=calls, seconds=up_s, talks=True))
        await node.until(lambda: _all_up(node, calls), calls / NEW_CALLS + 30)
        rows = [
            await window(node, options.seconds, options.per_second if number % 2 else 0) for number in range(windows)
        ]
        calling.cancel()
        await asyncio.wait([calling])
    return rows


async def _all_up(node: LoadNode, calls: int) -> bool:
    return int((await node.health())["calls_active"]) >= calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--per-second", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=2, help="windows with requests")
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        key = os.environ["SIPAGENT_BENCH_KEY"]
        print(json.dumps(asyncio.run(ask(options.ask, key, options.per_second, options.seconds))))
        return
    print(table(COLUMNS, asyncio.run(run(options))))
    print(f"\nload average {psutil.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
