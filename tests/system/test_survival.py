"""kill -9 of the main process: its calls go on, another main takes them up, and each has one end on record."""

import asyncio
import os
import signal

import pytest

from sipagent.store.records import FullCall
from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.system.node import DIALPLAN, Node
from tests.system.test_calls import originate
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

    await node.until(there, 30)


async def active(node: Node, calls: int) -> None:
    async def up() -> bool:
        return int((await node.health())["calls_active"]) == calls

    await node.until(up, 30)


def dialplan(desk: Sipp) -> str:
    routes = "".join(f'  - {{name: {name}, called: ["{name}"], steps: {name}}}\n' for name in ("long", "dial"))
    steps = f'  long: [answer, say: "{LONG}", say: "Bye.", hangup]\n  dial: [dial: "{desk.uri}"]\n'
    return DIALPLAN.replace("routes:\n", "routes:\n" + routes, 1).replace("steps:\n", "steps:\n" + steps, 1)


def one_end(record: FullCall) -> None:
    assert [event.type for event in record.events].count("CallEnded") == 1
    assert [event.type for event in record.events].count("LegEnded") == len(record.call.legs)


def resumed(record: FullCall) -> None:
    one_end(record)
    (event,) = [event for event in record.events if event.type == "CallResumed"]
    assert event.data["gap_ms"] < RESUMED_WITHIN_S * 1000


async def test_calls_outlive_the_main_process() -> None:
    """One node, two deaths: a node takes seconds to start."""
    desk = Sipp("uas-outbound-answered.xml", timeout_s=60, args=["-rtp_echo"])
    async with desk, Node(dialplan=dialplan(desk)) as node:
        before = await node.pids()
        await _four_lines_go_on(node, desk)
        await _who_is_not_answered_is_told(node)
        after = await node.pids()
        assert after.pop("main") != before.pop("main") and after == before, "the processes that carry calls have stayed"
        deaths = [event for event in node.events("ProcessEnded") if event["process"] == "main"]
        assert [(event["reason"], event["calls_affected"]) for event in deaths] == [
            ("killed by SIGKILL", 3),
            ("killed by SIGKILL", 2),
        ]
        assert await node.stop() == 0
        for folder in ("run", "calls"):
            assert not list((node.folder / folder).iterdir()), f"nothing is left in {folder}"


async def _four_lines_go_on(node: Node, desk: Sipp) -> None:
    """An agent's call, one that is only spoken to, and two people who are joined."""
    with Capture(node.media_port, node.media_port + 255) as wire:
        calls = [
            Sipp("uac-inbound-answered.xml", target=node.target, service="desk", duration_ms=9_000, timeout_s=60),
            Sipp("uac-inbound-answered.xml", target=node.target, service="dial", duration_ms=8_000, timeout_s=60),
            Sipp("uac-inbound-agent-hangs-up.xml", target=node.target, service="long", timeout_s=60),
        ]
        for call in calls:
            await call.start()
        await active(node, 3)
        await asyncio.sleep(2.0)
        await another_main(node, await kill_main(node))
        for call in calls:
            (await call.wait()).check()
        (await desk.wait()).check()
    records = {one.call.to_number: one for one in await node.ended(3)}
    for record in records.values():
        resumed(record)
    agent, joined, long = records["desk"], records["dial"], records["long"]
    assert (agent.call.cause, agent.call.ended_by) == ("normal", "caller")
    assert [turn.heard_text for turn in agent.turns] == ["Hello.", "Sorry, I lost you for a moment. Where were we?"]
    assert [turn.turn_index for turn in agent.turns] == [0, 1]
    assert (long.call.cause, long.call.ended_by) == ("normal", "agent")
    assert [turn.heard_text for turn in long.turns] == [LONG, "Bye."]
    assert (joined.call.cause, joined.call.ended_by, len(joined.call.legs)) == ("normal", "caller", 2)
    sent = [p for p in wire.packets if node.media_port <= p.source <= node.media_port + 255]
    streams = {p.ssrc for p in sent}
    assert len(streams) == 4, "to everybody it stays one stream"
    for stream in streams:
        ours = [p for p in sent if p.ssrc == stream]
        assert {(b.sequence - a.sequence) & 0xFFFF for a, b in zip(ours, ours[1:], strict=False)} == {1}
        assert max(b.at - a.at for a, b in zip(ours, ours[1:], strict=False)) < LONGEST_GAP_S


async def _who_is_not_answered_is_told(node: Node) -> None:
    """While there is no main: whoever calls gets 503, who rings a CANCEL; who has answered us stays."""
    assert node.process is not None
    async with Sipp("uas-outbound-no-answer.xml", timeout_s=60) as rung, Sipp("uas-outbound-answered.xml") as answered:
        ringing = await originate(node, rung.uri, "long")
        talking = await originate(node, answered.uri, "long")
        await active(node, 2)
        await asyncio.sleep(1.0)
        node.process.send_signal(signal.SIGSTOP)  # nobody starts another main for the time being
        main = await kill_main(node)
        try:
            refused = await sipp.run("uac-inbound-over-limit-expect-503.xml", target=node.target, service="desk")
            refused.check()
            assert "Retry-After: 5" in refused.received("SIP/2.0 503")[0]
            (await rung.wait()).check()
        finally:
            node.process.send_signal(signal.SIGCONT)
        await another_main(node, main)
        (await answered.wait()).check()
    await node.ended(5)
    record = node.record(ringing)
    one_end(record)
    assert (record.call.cause, record.call.disposition) == ("node_crashed", "failed")
    resumed(node.record(talking))
    assert node.record(talking).turns[-1].heard_text == "Bye."


async def test_calls_outlive_a_main_that_finds_no_database() -> None:
    async with Node() as node:
        database, away = node.folder / "sipagent.db", node.folder / "away"
        calling = Sipp("uac-inbound-answered.xml", target=node.target, service="desk", duration_ms=14_000, timeout_s=60)
        async with calling as caller:
            await active(node, 1)
            await asyncio.sleep(1.0)  # until all is on disk
            (call,) = node.calls()
            database.rename(away)  # its writer has it open; another main does not find it
            database.mkdir()
            await another_main(node, await kill_main(node))
            await active(node, 1)
            database.rmdir()
            away.rename(database)
            (await caller.wait()).check()
        await node.ended(1)
        resumed(node.record(call.id))
        assert "the database does not answer: calls go on" in node.log.read_text()


async def test_what_operators_want_outlives_the_main_process() -> None:
    """A call on hold, and two that are joined, with somebody who listens in. A node of its own: after three deaths in
    a minute all calls are ended."""
    async with Node() as node:
        await _what_operators_want_is_kept(node)


async def _what_operators_want_is_kept(node: Node) -> None:

    async def order(call_id: str, what: str, body: dict[str, object]) -> int:
        async with node.http.post(f"/api/v1/voice/calls/{call_id}/{what}", json=body) as response:
            return response.status

    async def ordered(call_id: str, what: str, body: dict[str, object]) -> None:
        async def taken() -> bool:  # not while the call is still being answered
            return await order(call_id, what, body) == 200

        await node.until(taken, 40)

    async def legs_up(call_id: str, count: int) -> None:
        async def up() -> bool:
            known = any(call.id == call_id for call in node.calls())
            return known and sum(leg.answered_at is not None for leg in node.record(call_id).call.legs) == count

        await node.until(up, 40)

    callee = "uas-outbound-hold-resume.xml"
    held, one, other, boss = (Sipp(callee if n == 0 else "uas-outbound-answered.xml", timeout_s=60) for n in range(4))
    async with held, one, other, boss:
        on_hold = await originate(node, held.uri, "talk")
        first, second = await originate(node, one.uri, "talk"), await originate(node, other.uri, "talk")
        await active(node, 3)
        for call_id in (on_hold, first, second):
            await legs_up(call_id, 1)
        await ordered(on_hold, "hold", {})
        await ordered(first, "participants", {"to_number": boss.uri, "part": "listen"})
        await legs_up(first, 2)
        await ordered(first, "bridge", {"call_id": second})
        await asyncio.sleep(2.0)  # until the callee's own offer while on hold is over, and all is on disk
        await another_main(node, await kill_main(node))
        await active(node, 3)
        assert await order(on_hold, "hold", {}) == 409, "it is on hold already"
        assert await order(first, "bridge", {"call_id": on_hold}) == 409, "they are joined already"
        assert await order(second, "transfer", {"target": {"kind": "sip", "uri": "sip:a@b"}}) == 409
        assert node.record(first).call.legs[1].ended_at is None
        assert await order(on_hold, "resume", {}) == 200

        async def on_no_more_hold() -> bool:
            return await order(on_hold, "resume", {}) == 409

        await node.until(on_no_more_hold, 30)
        for call_id in (on_hold, second):
            assert await order(call_id, "hangup", {}) == 200
        (await held.wait()).check()
        (await one.wait()).check()
        (await other.wait()).check()
        (await boss.wait()).check()
    await node.ended(3)
    assert node.record(first).call.detail == "the call it was joined with has ended"
    for call_id in (on_hold, first, second):
        resumed(node.record(call_id))


async def test_a_node_started_again_takes_calls_with_what_an_idle_one_has_left() -> None:
    async with Node() as node:
        assert node.process is not None
        before = await node.pids()
        node.process.send_signal(signal.SIGSTOP)  # nobody starts another main, nor stops the other processes
        await kill_main(node)
        node.process.kill()
        await node.process.wait()
        await node.http.close()
        await node.start()
        assert (await node.pids())["media"] == before["media"]
        (await sipp.run("uac-inbound-answered.xml", target=node.target, service="desk", duration_ms=500)).check()
