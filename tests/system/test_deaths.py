"""kill -9 of each process of the node during a call, and of the node itself."""

import asyncio
import os
import signal
import socket

import psutil
import pytest

from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.system.node import Node
from tests.system.wire import Capture

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(240)]


async def call_up(node: Node, service: str, duration_ms: int, scenario: str = "uac-inbound-answered.xml") -> Sipp:
    call = Sipp(scenario, target=node.target, service=service, duration_ms=duration_ms, timeout_s=60)
    await call.start()

    async def up() -> bool:
        return int((await node.health())["calls_active"]) == 1

    await node.until(up, 15)
    return call


async def test_each_process_may_die_in_a_call():
    """One node through three deaths, one after another; after each the next call works."""
    async with Node() as node:
        await _media_dies(node)
        await _speech_worker_dies(node)
        await _lane_dies(node)
        assert await node.stop() == 0


async def _media_dies(node: Node) -> None:
    """The call goes on, on the same ports, after a gap."""
    with Capture(node.media_port, node.media_port + 255) as wire:
        call = await call_up(node, "talk", 6_000)
        await asyncio.sleep(1.5)
        os.kill((await node.pids())["media"], signal.SIGKILL)
        (await call.wait()).check()
    (record,) = await node.ended(1)
    assert (record.call.cause, record.call.ended_by) == ("normal", "caller")
    gaps = [event for event in record.events if event.type == "MediaInterrupted"]
    assert len(gaps) == 1 and gaps[0].data["gap_ms"] > 0
    ours = [p for p in wire.packets if node.media_port <= p.source <= node.media_port + 255]
    assert len({p.ssrc for p in ours}) == 1, "to the caller it stays one stream"
    steps = {(b.sequence - a.sequence) & 0xFFFF for a, b in zip(ours, ours[1:], strict=False)}
    assert steps == {1}, "no packet is missing in the numbering: the gap is time, not loss"
    waits = [b.at - a.at for a, b in zip(ours, ours[1:], strict=False)]
    print(f"\nsilence on the wire while the media process was replaced: {max(waits) * 1000:.0f} ms")
    assert sum(p.loud for p in ours[-50:]) > 10, "the agent's voice goes on"
    await _next_call_works(node, 2)


async def _speech_worker_dies(node: Node) -> None:
    """The call goes on; a new worker comes up."""
    call = await call_up(node, "talk", 3_000)
    worker = (await node.pids())["speech-0"]
    os.kill(worker, signal.SIGKILL)
    (await call.wait()).check()
    assert (await node.ended(3))[0].call.cause == "normal"
    assert any(event["process"] == "speech" for event in node.events("ProcessEnded"))

    async def new_worker() -> bool:
        return (await node.pids()).get("speech-0", worker) != worker

    await node.until(new_worker, 60)
    await _next_call_works(node, 4)


async def _lane_dies(node: Node) -> None:
    """The lane's calls end with a cause of their own; a new lane takes the next one."""
    call = await call_up(node, "talk", 30_000)
    lane = (await node.pids())["lane"]
    os.kill(lane, signal.SIGKILL)
    record = (await node.ended(5))[0]
    await call.stop()
    assert (record.call.cause, record.call.disposition, record.call.ended_by) == ("lane_died", "answered", "system")
    assert record.call.legs[0].packets_out

    async def new_lane() -> bool:
        return (await node.pids()).get("lane", lane) != lane

    await node.until(new_lane, 30)
    await _next_call_works(node, 6)


async def _next_call_works(node: Node, ended: int) -> None:
    (await sipp.run("uac-inbound-agent-hangs-up.xml", target=node.target, service="hello")).check()
    assert (await node.ended(ended))[0].call.cause == "normal"


@pytest.mark.parametrize("how", ["told to", "without its supervisor", "all at once"])
async def test_nothing_is_left_however_the_node_ends(how):
    before = set(os.listdir("/dev/shm"))
    async with Node() as node:
        ended_by_us = "uac-inbound-agent-hangs-up.xml" if how == "all at once" else "uac-inbound-answered.xml"
        call = await call_up(node, "talk", 30_000, ended_by_us)
        children = node.children()
        assert len(children) >= 4  # zygote, lane, media, speech

        async def on_record() -> bool:  # the record is written in batches, up to 200 ms behind the call
            return bool(node.calls() and node.calls()[0].answered_at)

        await node.until(on_record, 30)
        main = (await node.pids())["main"]
        if how == "all at once":  # who could start another main dies as well: lane and media process wait in vain
            assert node.process is not None
            node.process.kill()
            os.kill(main, signal.SIGKILL)
        await node.stop(signal.SIGTERM if how == "told to" else signal.SIGKILL)
        if how == "all at once":
            (await call.wait()).check()  # the caller gets a BYE all the same
        await call.stop()

        async def gone() -> bool:
            return not any(_alive(child) for child in children)

        await node.until(gone, 20)
        for port, kind in (
            (node.sip_port, socket.SOCK_DGRAM),
            (node.sip_port, socket.SOCK_STREAM),
            (node.api_port, socket.SOCK_STREAM),
            *((node.media_port + offset, socket.SOCK_DGRAM) for offset in range(0, 256, 2)),
        ):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind is socket.SOCK_STREAM))
                probe.bind(("127.0.0.1", port))
        assert set(os.listdir("/dev/shm")) <= before
        # The next start closes what the crash left open, and says so.
        await node.start()
        (record,) = await node.ended(1)
        cause = "node_crashed" if how == "all at once" else "node_stopped"
        assert (record.call.cause, record.call.disposition) == (cause, "answered")
        assert [event.type for event in record.events].count("CallEnded") == 1
        await node.stop()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
