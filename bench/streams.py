"""What it costs to stream calls to an application and back, and the delay that it adds.

    python -m bench.streams --calls 50

The media process and the process that has the streams, as main has them; CPU time of both. The application, in a
process of its own that is not counted, sends each frame back as it comes. Against it a callback that writes back what
it hears, which is what there is without a stream: the difference of the round trips is what the stream adds, most of it
what is gathered after silence (`calls.streams.playout.GATHER_MS`).
"""

import argparse
import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from bench.engine import STREAMS, Engine
from bench.rig import ROOT, Column, Load, Result, arguments, cores, medians, pin, prepare, served, table, where

COLUMNS = (
    Column("calls", "calls", "{:d}"),
    Column("dialect", "dialect"),
    Column("cpu_us_per_call_s", "CPU µs per call-second", "{:.0f}"),
    Column("core_percent", "% of a core", "{:.1f}"),
    Column("round_trip_p50_ms", "round trip p50 ms", "{:.0f}"),
    Column("lost", "lost", "{:.0f}"),
    Column("filler", "without audio", "{:.0f}"),
    Column("pacing_p99_ms", "pacing p99 ms", "{:.2f}"),
)


async def teler(ws: web.WebSocketResponse) -> None:
    async for message in ws:
        if message.data.startswith('{"type":"audio"'):
            await ws.send_str(message.data)


async def twilio(ws: web.WebSocketResponse) -> None:
    async for message in ws:
        if message.data.startswith('{"event":"media"'):
            await ws.send_str(message.data)


async def audiosocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(3)
            kind, length = struct.unpack(">BH", head)
            payload = await reader.readexactly(length)
            if kind == 0x10:
                writer.write(head + payload)


async def application(dialect: str) -> None:
    """Prints where it is, and echoes until its input ends."""
    app = web.Application()

    async def handle(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        await (teler if dialect == "teler" else twilio)(ws)
        return ws

    app.router.add_get("/", handle)
    if dialect == "audiosocket":
        server = await asyncio.start_server(audiosocket, "127.0.0.1", 0)
        print(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    else:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"ws://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextlib.asynccontextmanager
async def running(dialect: str) -> AsyncIterator[str]:
    """The URL of the application."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.streams", "--application", dialect),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdin is not None
    pin(process.pid, cores(1)[1])
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


async def run(load: Load, rounds: int, settings: list[str]) -> list[Result]:
    rows = []
    for dialect in ("callback", *STREAMS):
        async with running(dialect) as url:
            results = [
                await served(lambda d=dialect, u=url: Engine(load.calls, settings, agent=d, whole=True, url=u), load)  # type: ignore[misc]
                for _ in range(rounds)
            ]
        rows.append(medians(results) | {"calls": load.calls, "dialect": "none" if dialect == "callback" else dialect})
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each; the table has their medians")
    parser.add_argument("--seconds", type=int, default=10, help="measured, after the warm-up")
    parser.add_argument("--application", choices=("callback", *STREAMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.application:
        asyncio.run(application(options.application))
        return
    prepare(asterisk=False)
    rows = asyncio.run(run(Load(options.calls, options.seconds, options.warm_up), options.rounds, options.settings))
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(table(COLUMNS, rows))
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
