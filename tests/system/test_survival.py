"""kill -9 of the main process: its calls go on, another main takes them up, and each has one end on record."""

import asyncio
import os
import signal

import pytest

from tests.peers.sipp import Sipp
from tests.system.node import DIALPLAN, Node
from tests.system.wire import Capture

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(240)]

LONGEST_GAP_S = 0.2  # between two packets of ours: nobody's line is taken for dead
RESUMED_WITHIN_S = 5.0
LONG = "This is a rather long message. It goes on for a while, and is said once more from its beginning."


async def kill_main(node: Node) -> int:
    """Its pid."""
    main = (await node.pids())["main"]
    os.kill(main, signal.SIGKILL)
    return main


async def another_main(node: Node, than: int) -> None:
    async def there() -> bool:
        try:
            return (await node.pids())["main"] != than
        except OSError:
            return False

    await node.until(there, 15)


async def active(node: Node, calls: int) -> None:
    async def up() -> bool:
        return int((await node.health())["calls_active"]) == calls

    await node.until(up, 15)


async def test_calls_outlive_the_main_process():
    """An agent's call and one that is only spoken to; media, lane and speech worker are the same before and after."""
    plan = DIALPLAN.replace("routes:\n", 'routes:\n  - {name: long, called: ["long"], steps: long}\n', 1)
    plan = plan.replace("steps:\n", f'steps:\n  long: [answer, say: "{LONG}", say: "Bye.", hangup]\n', 1)
    async with Node(dialplan=plan) as node:
        before = await node.pids()
        with Capture(node.media_port, node.media_port + 255) as wire:
            calls = [
                Sipp("uac-inbound-answered.xml", target=node.target, service="desk", duration_ms=9_000, timeout_s=60),
                Sipp("uac-inbound-agent-hangs-up.xml", target=node.target, service="long", timeout_s=60),
            ]
            for call in calls:
                await call.start()
            await active(node, 2)
            await asyncio.sleep(2.0)
            died = await kill_main(node)
            await another_main(node, died)
            for call in calls:
                (await call.wait()).check()
        records = {one.call.to_number: one for one in await node.ended(2)}
        for record in records.values():
            assert [event.type for event in record.events].count("CallEnded") == 1
            (resumed,) = [event for event in record.events if event.type == "CallResumed"]
            assert resumed.data["gap_ms"] < RESUMED_WITHIN_S * 1000
            assert (record.call.legs[0].packets_out or 0) > 0
        desk, long = records["desk"], records["long"]
        assert (desk.call.cause, desk.call.ended_by) == ("normal", "caller")
        assert (long.call.cause, long.call.ended_by) == ("normal", "agent")
        assert [turn.heard_text for turn in desk.turns] == ["Hello.", "Sorry, I lost you for a moment. Where were we?"]
        assert [turn.turn_index for turn in desk.turns] == [0, 1]
        assert [turn.heard_text for turn in long.turns] == [LONG, "Bye."]
        streams = {p.ssrc for p in wire.packets if node.media_port <= p.source <= node.media_port + 255}
        assert len(streams) == 2, "to the callers it stays one stream"
        for stream in streams:
            ours = [p for p in wire.packets if p.ssrc == stream]
            assert {(b.sequence - a.sequence) & 0xFFFF for a, b in zip(ours, ours[1:], strict=False)} == {1}
            assert max(b.at - a.at for a, b in zip(ours, ours[1:], strict=False)) < LONGEST_GAP_S
        after = await node.pids()
        assert after.pop("main") != before.pop("main") and after == before
        deaths = [event for event in node.events("ProcessEnded") if event["process"] == "main"]
        assert [(event["reason"], event["calls_affected"]) for event in deaths] == [("killed by SIGKILL", 2)]
        assert not list((node.folder / "calls").glob("*.new"))
        assert await node.stop() == 0
        assert not list((node.folder / "run").iterdir()), "nobody is left behind a door"
