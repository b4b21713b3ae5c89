"""What the media engine costs and how evenly it paces: N calls that hear their own voice.

    python -m bench.rtp_echo 10 100 500 --seconds 10
    python -m bench.rtp_echo 10 100 500 --against asterisk --rounds 3
    python -m bench.rtp_echo 500 --set shared_ports=4 --set accelerate=false

The generator (rtpgen.c) is on one core, the engine on the other; the echo, which takes what the client hands it and
writes it back, is on the generator's. Only the engine's CPU time, user and system, is in the table. With `--against`
the two take turns within each round, and the ratio is the median of the rounds' ratios: on a machine whose speed
changes by the minute that is the figure to trust.
"""

import asyncio
import json
import statistics
from collections.abc import Callable
from functools import partial

from bench.engine import Engine
from bench.peers import AsteriskEcho
from bench.rig import Column, Load, Result, Subject, arguments, medians, prepare, served, table, where

COLUMNS = (
    Column("calls", "calls", "{:.0f}"),
    Column("cpu_us_per_call_s", "CPU µs per call-second", "{:.0f}"),
    Column("core_percent", "% of a core", "{:.1f}"),
    Column("pacing_p50_ms", "pacing p50 ms", "{:.2f}"),
    Column("pacing_p99_ms", "p99", "{:.2f}"),
    Column("pacing_max_ms", "max", "{:.2f}"),
    Column("off_5ms", "> 5 ms off schedule", "{:.0f}"),
    Column("lost", "lost", "{:.0f}"),
    Column("filler", "without audio", "{:.0f}"),
    Column("round_trip_p50_ms", "round trip p50 ms", "{:.0f}"),
    Column("generator_late_max_ms", "generator late max ms", "{:.2f}"),
)
AGAINST = (
    Column("calls", "calls", "{:.0f}"),
    Column("engine_us", "engine µs per call-second", "{:.0f}"),
    Column("asterisk_us", "Asterisk Echo()", "{:.0f}"),
    Column("ratio", "ratio", "**{:.2f}**"),
    Column("ratios", "of the rounds"),
    Column("engine_p99_ms", "engine pacing p99 ms", "{:.2f}"),
    Column("asterisk_p99_ms", "Asterisk", "{:.2f}"),
    Column("engine_off", "engine > 5 ms off, ‰", "{:.2f}"),
    Column("asterisk_off", "Asterisk", "{:.2f}"),
    Column("engine_lost", "engine lost", "{:.0f}"),
    Column("asterisk_lost", "Asterisk", "{:.0f}"),
)


async def interleaved(subjects: list[Callable[[], Subject]], load: Load, rounds: int) -> list[list[Result]]:
    """Per subject its results; who begins changes from round to round."""
    results: list[list[Result]] = [[] for _ in subjects]
    for number in range(rounds):
        for place in range(len(subjects)):
            which = (place + number) % len(subjects)
            results[which].append(await served(subjects[which], load))
    return results


def compared(engine: list[Result], asterisk: list[Result]) -> Result:
    ratios = [a["cpu_us_per_call_s"] / b["cpu_us_per_call_s"] for a, b in zip(engine, asterisk, strict=True)]
    row: Result = {"calls": engine[0]["calls"], "ratio": statistics.median(ratios)}
    row["ratios"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
    for name, results in (("engine", engine), ("asterisk", asterisk)):
        row[f"{name}_us"] = statistics.median(result["cpu_us_per_call_s"] for result in results)
        row[f"{name}_p99_ms"] = statistics.median(result["pacing_p99_ms"] for result in results)
        row[f"{name}_off"] = statistics.median(1000 * result["off_5ms"] / result["received"] for result in results)
        row[f"{name}_lost"] = sum(result["lost"] for result in results)
        row[name] = results
    return row


async def run(calls: list[int], load: Load, rounds: int, against: str | None, settings: list[str]) -> list[Result]:
    rows = []
    for count in calls:
        here = load._replace(calls=count)
        subjects: list[Callable[[], Subject]] = [partial(Engine, count, settings)]
        if against is None:
            (results,) = await interleaved(subjects, here, rounds)
            rows.append(medians(results))
        else:
            subjects.append(partial(AsteriskEcho, count))
            rows.append(compared(*await interleaved(subjects, here, rounds)))
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("calls", type=int, nargs="*", default=[10, 100, 500])
    parser.add_argument("--seconds", type=int, default=10, help="measured, after the warm-up")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each; the table has their medians")
    parser.add_argument("--against", choices=["asterisk"], help="take turns with it")
    options = parser.parse_args()
    prepare(asterisk=options.against is not None)
    load = Load(0, options.seconds, options.warm_up)
    rows = asyncio.run(run(options.calls, load, options.rounds, options.against, options.settings))
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
    else:
        print(table(AGAINST if options.against else COLUMNS, rows))
        print(f"\n{where()}")


if __name__ == "__main__":
    main()
