"""What it costs to bring a call's audio from the network to the agent's coroutine and back.

    python -m bench.ai_leg --calls 200 --rounds 3

The engine: media process, shared memory, a coroutine a call in main that is handed the audio and writes its answer to
the port; CPU time of both processes. Against it Asterisk with AudioSocket to an asyncio server that has a coroutine a
call and answers the same; CPU time of both. They take turns, and the ratio is the median of the rounds' ratios.
Asterisk sends 20 ms at a time and does not pace what it is given: with chunks of 100 ms its caller hears five packets
at once, which no product would do; the row is there because it is the cheaper for it.
"""

import asyncio
import json
import statistics
from functools import partial

from bench.engine import Engine
from bench.peers import AsteriskAudioSocket
from bench.rig import Column, Load, Result, arguments, prepare, table, where
from bench.rtp_echo import interleaved

FRAME_MS = 20
COLUMNS = (
    Column("calls", "calls", "{:d}"),
    Column("chunk_ms", "chunk ms", "{:d}"),
    Column("media_us", "media µs per call-second", "{:.0f}"),
    Column("main_us", "main", "{:.0f}"),
    Column("engine_us", "together", "{:.0f}"),
    Column("asterisk_us", "Asterisk", "{:.0f}"),
    Column("server_us", "asyncio server", "{:.0f}"),
    Column("audiosocket_us", "together", "{:.0f}"),
    Column("ratio", "ratio", "**{:.3f}**"),
    Column("ratios", "of the rounds"),
    Column("engine_round_trip_ms", "round trip p50 ms: engine", "{:.0f}"),
    Column("audiosocket_round_trip_ms", "AudioSocket", "{:.0f}"),
    Column("engine_lost", "lost: engine", "{:d}"),
    Column("audiosocket_lost", "AudioSocket", "{:d}"),
)


def _parts(result: Result) -> tuple[float, float]:
    """µs per call-second before main, and in the process that has the coroutines, which is the last."""
    us = [1e6 * seconds / result["elapsed_s"] / result["calls"] for seconds in result["cpu_s"]]
    return sum(us[:-1]), us[-1]


def compared(engine: list[Result], other: list[Result], chunk_ms: int) -> Result:
    ratios = [a["cpu_us_per_call_s"] / b["cpu_us_per_call_s"] for a, b in zip(engine, other, strict=True)]
    row: Result = {"calls": engine[0]["calls"], "chunk_ms": chunk_ms, "ratio": statistics.median(ratios)}
    row["ratios"] = f"{min(ratios):.3f} to {max(ratios):.3f}"
    row["media_us"], row["main_us"] = (statistics.median(part) for part in zip(*map(_parts, engine), strict=True))
    row["asterisk_us"], row["server_us"] = (statistics.median(part) for part in zip(*map(_parts, other), strict=True))
    for name, results in (("engine", engine), ("audiosocket", other)):
        row[f"{name}_us"] = statistics.median(result["cpu_us_per_call_s"] for result in results)
        row[f"{name}_round_trip_ms"] = statistics.median(result["round_trip_p50_ms"] for result in results)
        row[f"{name}_lost"] = sum(result["lost"] for result in results)
        row[name] = results
    return row


async def run(load: Load, chunks_ms: list[int], rounds: int, settings: list[str]) -> list[Result]:
    rows = []
    for chunk_ms in chunks_ms:
        chunk = chunk_ms // FRAME_MS
        ours = partial(Engine, load.calls, settings, agent="coroutine", chunk=chunk, whole=True)
        engine, other = await interleaved([ours, partial(AsteriskAudioSocket, load.calls, chunk)], load, rounds)
        rows.append(compared(engine, other, chunk_ms))
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--chunk-ms", type=int, nargs="*", default=[20, 100], help="handed to the agent at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="measured, after the warm-up")
    options = parser.parse_args()
    prepare(asterisk=True)
    load = Load(options.calls, options.seconds, options.warm_up)
    rows = asyncio.run(run(load, options.chunk_ms, options.rounds, options.settings))
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(table(COLUMNS, rows))
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
