"""kill -9 of main at random moments while calls come and go: how long calls are without it, and how each ends.

`python -m bench.deaths [--lanes] [--kills 3] [--seed 5]`. SIPp rings three kinds of calls (an agent that answers, one
that talks, a message), for 1 to 9 s each, as many at once as there is room for but one. Fails when a call has no end on
record, or more than one, or when one stays up on the wire. With `--lanes` the node has three of them behind its edge.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
from collections import Counter

from tests.peers.sipp import Sipp, SippResult
from tests.system.node import Node

KINDS = (
    ("uac-inbound-answered.xml", "desk"),
    ("uac-inbound-answered.xml", "talk"),
    ("uac-inbound-agent-hangs-up.xml", "hello"),
)
APART_S = 27.0  # a third death within a minute ends the calls


async def kill(node: Node) -> tuple[int, int]:
    """Calls that were up before and after."""
    health = await node.health()
    main = health["processes"]["main"]
    os.kill(main, signal.SIGKILL)

    async def another() -> bool:
        try:
            return bool((await node.pids())["main"] != main)
        except OSError:
            return False

    await node.until(another, 20)
    return int(health["calls_active"]), int((await node.health())["calls_active"])


async def caller(node: Node, choose: random.Random, over: asyncio.Event, results: list[SippResult]) -> None:
    while not over.is_set():
        scenario, service = choose.choice(KINDS)
        duration = choose.randrange(1000, 9000)
        call = Sipp(scenario, target=node.target, service=service, duration_ms=duration, timeout_s=60)
        await call.start()
        results.append(await call.wait())
        await asyncio.sleep(choose.random())


def wrong(node: Node) -> list[str]:
    """Calls that did not end exactly once."""
    found: list[str] = []
    for call in node.calls():
        record = node.record(call.id)
        ends = [event for event in record.events if event.type == "CallEnded"]
        legs = [event.leg_id for event in record.events if event.type == "LegEnded"]
        if call.ended_at is None or len(ends) != 1 or len(legs) != len(set(legs)):
            found.append(f"{call.id}: {len(ends)} ends, legs {legs}")
    return found


async def main(options: argparse.Namespace) -> int:
    choose, over, results = random.Random(options.seed), asyncio.Event(), list[SippResult]()
    calls, extra = (7, "[limits]\nmax_calls = 8\n") if options.lanes else (3, "")
    async with Node(extra=extra) as node:
        callers = [asyncio.create_task(caller(node, choose, over, results)) for _ in range(calls)]
        await asyncio.sleep(4)
        for number in range(options.kills):
            await asyncio.sleep(choose.uniform(1, 5) + (APART_S if number else 0))
            print("up before and after a death:", *(await kill(node)), flush=True)
        await asyncio.sleep(3)
        over.set()
        await asyncio.gather(*callers)

        async def quiet() -> bool:
            return not (await node.health())["calls_active"]

        await node.until(quiet, 30)
        await asyncio.sleep(1)
        gaps = [float(event["gap_ms"]) for event in node.events("CallResumed")]
        print("ends on record:", dict(Counter(str(call.cause) for call in node.calls())))
        if gaps:
            print(
                f"taken up: {len(gaps)}, without a main for {statistics.median(gaps):.0f} ms, at most {max(gaps):.0f}"
            )
        # Who rings while there is no main gets 503, which these scenarios do not expect.
        failed = [result.errors for result in results if result.code and "SIP/2.0 503" not in result.errors]
        problems = [*wrong(node), *(text[:300] for text in failed)]
        print(f"calls of SIPp: {len(results)}, problems: {len(problems)}")
        for problem in problems:
            print(problem)
        return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", action="store_true")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=5)
    sys.exit(asyncio.run(main(parser.parse_args())))
