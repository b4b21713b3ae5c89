"""What two joined calls cost, and how long their audio is under way: N calls in pairs that hear each other.

    python -m bench.bridge 10 100 400
    python -m bench.bridge 100 --against asterisk --rounds 3

Asterisk joins the same calls by `Bridge()`, once as it likes (`bridge_native_rtp`: the packets' headers are changed and
nothing else, so there is no jitter buffer either) and once through its core (`bridge_simple`). What is measured, and on
which cores, is as in `bench.rtp_echo`. The way is from the generator's sending to its receipt on the other call; what
the jitter buffer holds is part of ours, and is told beside.
"""

import asyncio
import json
from collections.abc import Callable
from functools import partial

from bench.engine import Engine
from bench.peers import AsteriskBridge
from bench.rig import Column, Load, Result, Subject, arguments, medians, prepare, served, table, where

COLUMNS = (
    Column("name", "by"),
    Column("calls", "calls", "{:.0f}"),
    Column("cpu_us_per_call_s", "CPU µs per call-second", "{:.0f}"),
    Column("core_percent", "% of a core", "{:.1f}"),
    Column("round_trip_p50_ms", "one way p50 ms", "{:.1f}"),
    Column("round_trip_p99_ms", "p99", "{:.1f}"),
    Column("playout_ms", "of which jitter buffer", "{:.1f}"),
    Column("pacing_p99_ms", "pacing p99 ms", "{:.2f}"),
    Column("off_5ms", "> 5 ms off schedule", "{:.0f}"),
    Column("lost", "lost", "{:.0f}"),
    Column("filler", "without audio", "{:.0f}"),
)


async def run(calls: list[int], load: Load, rounds: int, against: bool, settings: list[str]) -> list[Result]:
    rows = []
    for count in calls:
        subjects: list[tuple[str, Callable[[], Subject]]] = [
            ("engine", partial(Engine, count, settings, agent="bridge"))
        ]
        if against:
            subjects.append(("Asterisk, native", partial(AsteriskBridge, count)))
            subjects.append(("Asterisk, core", partial(AsteriskBridge, count, native=False)))
        results: list[list[Result]] = [[] for _ in subjects]
        for number in range(rounds):
            for place in range(len(subjects)):
                which = (place + number) % len(subjects)
                results[which].append(await served(subjects[which][1], load._replace(calls=count, bridged=True)))
        for (name, _), each in zip(subjects, results, strict=True):
            row = medians(each) | {"name": name}
            if "playout_us_now" in each[0]["figures"]:
                row["playout_ms"] = medians([result["figures"] for result in each])["playout_us_now"] / 1000
            rows.append(row)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("calls", type=int, nargs="*", default=[10, 100, 400], help="legs: an even number")
    parser.add_argument("--seconds", type=int, default=10, help="measured, after the warm-up")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each; the table has their medians")
    parser.add_argument("--against", choices=["asterisk"], help="take turns with it")
    options = parser.parse_args()
    prepare(asterisk=options.against is not None)
    load = Load(0, options.seconds, options.warm_up)
    rows = asyncio.run(run(options.calls, load, options.rounds, options.against is not None, options.settings))
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
    else:
        print(table(COLUMNS, rows))
        print(f"\n{where()}")


if __name__ == "__main__":
    main()
