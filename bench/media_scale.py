"""How many calls one core carries, how even a long run is, and what a call costs in memory and in main's time.

    python -m bench.media_scale                            the most calls, engine and Asterisk Echo() by turns
    python -m bench.media_scale --hold 1000 --seconds 60   so many calls for so long
    python -m bench.media_scale --footprint 1000           memory, set-up and tear-down, cost of idling

Too many calls are those at which more than 0.1 % of the packets are over 10 ms off their schedule, or any frame that
the generator sent does not come back. A run in which the generator itself was late says nothing and is done again;
a number of calls that fails once has a second chance. On a machine of two cores all but the subject, that is the
generator and the process that owns the engine, share the other core; so that this process is no limit, it copies the
audio of all calls at once ("arrays").
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.engine import AGENTS, Engine
from bench.peers import AsteriskEcho
from bench.rig import Column, Load, Result, Subject, arguments, blameless, cpu_seconds, measure, prepare, table, where

OFF_SHARE = 0.001  # of the packets, more than 10 ms off schedule
STEP = 1.5  # from one number of calls to the next while all goes well
NARROW = 1.06  # the answer is known this closely
TRIES = 2
GENERATOR_TRIES = 3
FRAME_MS = 20

LEVELS = (
    Column("subject", "subject"),
    Column("calls", "calls", "{:d}"),
    Column("verdict", "verdict"),
    Column("cpu_us_per_call_s", "CPU µs per call-second", "{:.0f}"),
    Column("core_percent", "% of a core", "{:.0f}"),
    Column("off_permille", "> 10 ms off, ‰", "{:.2f}"),
    Column("lost", "lost", "{:d}"),
    Column("pacing_p99_ms", "pacing p99 ms", "{:.2f}"),
    Column("off_schedule_max_ms", "off schedule max ms", "{:.1f}"),
    Column("generator_percent", "generator % of its core", "{:.0f}"),
    Column("generator_late_max_ms", "generator late max ms", "{:.2f}"),
)
HELD = (
    Column("subject", "subject"),
    Column("calls", "calls", "{:d}"),
    Column("seconds", "s", "{:d}"),
    Column("sent", "packets sent to it", "{:d}"),
    Column("lost", "lost", "{:d}"),
    Column("concealed", "concealed", "{:.0f}"),
    Column("off_5ms", "> 5 ms off schedule", "{:d}"),
    Column("off_schedule_max_ms", "max ms", "{:.2f}"),
    Column("pacing_p99_ms", "pacing p99 ms", "{:.2f}"),
    Column("round_trip_p50_ms", "round trip p50 ms", "{:.0f}"),
    Column("cpu_us_per_call_s", "CPU µs per call-second", "{:.0f}"),
    Column("core_percent", "% of a core", "{:.1f}"),
    Column("generator_late_p99_ms", "generator late p99 ms", "{:.2f}"),
    Column("generator_late_max_ms", "max", "{:.2f}"),
)
FOOTPRINT = (
    Column("calls", "calls", "{:d}"),
    Column("engine_rss_mb", "engine RSS MB", "{:.0f}"),
    Column("engine_pss_mb", "PSS", "{:.0f}"),
    Column("engine_private_mb", "private", "{:.0f}"),
    Column("shared_mb", "shared memory in use MB", "{:.0f}"),
    Column("per_call_kb", "per call kB", "{:.0f}"),
    Column("per_thousand_mb", "per 1,000 calls MB", "{:.0f}"),
    Column("setup_us", "set-up, main's µs p50", "{:.0f}"),
    Column("setup_mean_us", "mean", "{:.0f}"),
    Column("teardown_us", "tear-down p50", "{:.0f}"),
    Column("teardown_mean_us", "mean", "{:.0f}"),
    Column("idle_engine_us", "CPU µs/s without calls: engine", "{:.0f}"),
    Column("idle_main_us", "main", "{:.0f}"),
)


@dataclass
class Search:
    """For the most calls that pass: upwards in steps, then between the last that passed and the first that failed."""

    start: int
    most: int
    passed: int = 0
    failed: int | None = None

    def following(self) -> int | None:
        """The number to try next, None when the answer is known."""
        if self.failed is None:
            if self.passed >= self.most:
                return None
            return min(round(self.passed * STEP), self.most) if self.passed else self.start
        if self.failed <= max(self.passed, 1) * NARROW or self.failed - self.passed <= 1:
            return None
        return (self.passed + self.failed) // 2

    def tell(self, calls: int, passed: bool) -> None:
        if passed:
            self.passed = calls
        else:
            self.failed = calls


def passes(result: Result) -> bool:
    whole = result["lost"] <= 0 and result["received"] >= 0.99 * result["sent"]
    return whole and not result["died"] and bool(result["off_10ms"] <= OFF_SHARE * result["received"])


async def kept_time(make: Callable[[], Subject], load: Load) -> Result:
    """A run in which the generator was on time, or the last of several attempts, marked as spoiled."""
    for _ in range(GENERATOR_TRIES):
        async with make() as subject:
            result = await measure(subject, load)
        result["spoiled"] = not blameless(result)
        if not result["spoiled"]:
            break
    return result


async def judged(make: Callable[[], Subject], load: Load) -> Result:
    for _ in range(TRIES):
        result = await kept_time(make, load)
        result["passed"] = passes(result)
        if result["passed"]:
            break
    result["off_permille"] = 1000 * result["off_10ms"] / max(result["received"], 1)
    result["verdict"] = ("passes" if result["passed"] else "fails") + (", generator late" if result["spoiled"] else "")
    return result


async def capacity(
    searches: dict[str, Search], makers: dict[str, Callable[[int], Subject]], load: Load
) -> list[Result]:
    """All levels tried, the subjects by turns."""
    results: list[Result] = []
    while pending := {name: calls for name, search in searches.items() if (calls := search.following()) is not None}:
        for name, calls in pending.items():
            result = await judged(partial(makers[name], calls), load._replace(calls=calls))
            searches[name].tell(calls, result["passed"])
            results.append(result)
    return results


async def hold(makers: Sequence[Callable[[], Subject]], load: Load) -> list[Result]:
    results = []
    for make in makers:
        result = await kept_time(make, load)
        result["seconds"] = load.seconds
        concealed = result["figures"].get("concealed_ms")
        result["concealed"] = None if concealed is None else concealed / FRAME_MS
        results.append(result)
    return results


async def footprint(calls: int, seconds: int, settings: Sequence[str], agent: str) -> list[Result]:
    """Without calls and with so many, after audio both ways for so long."""
    rows: list[Result] = []
    for count in (0, calls):
        engine = Engine(count, settings, agent=agent if count else "callback")
        async with engine:
            row: Result = {"calls": count}
            if count:
                row["run"] = await measure(engine, Load(count, seconds))
            else:
                row |= await _idle(engine, seconds)
            row |= engine.memory()
        if count:
            row |= engine.costs
        rows.append(row)
    without, full = rows
    used = sum(full[key] - without[key] for key in ("engine_private_mb", "shared_mb"))
    full["per_call_kb"], full["per_thousand_mb"] = 1000 * used / calls, 1000 * used / calls
    return rows


async def _idle(engine: Engine, seconds: int) -> Result:
    await asyncio.sleep(2)
    pids = [*engine.engines, engine.main]
    before = [cpu_seconds(pid) for pid in pids]
    await asyncio.sleep(seconds)
    *engines, main = ((cpu_seconds(pid) - was) / seconds * 1e6 for pid, was in zip(pids, before, strict=True))
    return {"idle_engine_us": sum(engines), "idle_main_us": main}


def most_calls(passed: dict[str, int]) -> str:
    text = "\nMost calls: " + ", ".join(f"{name} {calls}" for name, calls in passed.items())
    if len(passed) == 2 and all(passed.values()):
        text += f"; ratio {passed['engine'] / passed['asterisk']:.2f}"
    return text + "."


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="measured per run, after the warm-up")
    parser.add_argument("--hold", type=int, metavar="CALLS", help="one long run instead of the search")
    parser.add_argument("--footprint", type=int, metavar="CALLS", help="memory, set-up and tear-down instead")
    parser.add_argument("--only", choices=["engine", "asterisk"], help="leave the other out")
    parser.add_argument("--agent", choices=AGENTS, default="arrays", help="how the engine's owner echoes")
    parser.add_argument("--processes", type=int, help="media processes; sets the field of [media]")
    parser.add_argument("--start", type=int, default=200, help="calls at which the search begins")
    parser.add_argument("--most", type=int, default=4500, help="calls at which it ends at the latest")
    options = parser.parse_args()
    prepare(asterisk=options.only != "engine" and not options.footprint)
    settings = list(options.settings)
    if options.processes:
        settings.append(f"processes={options.processes}")
    load = Load(options.hold or 0, options.seconds, options.warm_up)
    makers: dict[str, Callable[[int], Subject]] = {
        "engine": lambda calls: Engine(calls, settings, agent=options.agent),
        "asterisk": AsteriskEcho,
    }
    if options.only:
        makers = {options.only: makers[options.only]}

    foot = ""
    columns: tuple[Column, ...]
    if options.footprint:
        columns, rows = FOOTPRINT, asyncio.run(footprint(options.footprint, options.seconds, settings, options.agent))
    elif options.hold:
        chosen = [partial(make, options.hold) for make in makers.values()]
        columns, rows = HELD, asyncio.run(hold(chosen, load))
    else:
        searches = {name: Search(options.start, options.most) for name in makers}
        columns, rows = LEVELS, asyncio.run(capacity(searches, makers, load))
        rows.sort(key=lambda row: (row["subject"], row["calls"]))
        foot = most_calls({name: search.passed for name, search in searches.items()})
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
    else:
        print(table(columns, rows), foot, where(), sep="\n")


if __name__ == "__main__":
    main()
