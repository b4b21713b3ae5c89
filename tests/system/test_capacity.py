"""A whole node that takes more calls than one lane: behind its edge, with everything that may die."""

import os
import signal
import socket

import psutil
import pytest

from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.system.node import Node

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(240)]

WANTED = 6
EXTRA = f"""
[limits]
max_calls = {WANTED}
[[trunks]]
name = "carrier"
peers = ["127.0.0.1"]
"""


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_calls_over_lanes_a_lane_that_dies_and_an_end_without_warning():
    async with Node(extra=EXTRA) as node:
        callers = Sipp(
            "uac-inbound-answered.xml",
            target=node.target,
            service="talk",
            calls=WANTED,
            rate=10,
            limit=WANTED,
            duration_ms=6_000,
            timeout_s=40,
        )
        await callers.start()

        async def all_up() -> bool:
            return int((await node.health())["calls_active"]) == WANTED

        await node.until(all_up, 20)
        # What the trunk's address list does not name is a stranger, whichever way it came.
        stranger = Sipp("uac-inbound-answered.xml", target=node.target, service="talk", host="127.0.0.2", timeout_s=10)
        await stranger.start()
        assert (await stranger.wait()).received("SIP/2.0 403")
        # One more than the node takes: 486 by main, although a lane has room, and no other lane is asked.
        (await sipp.run("uac-inbound-over-limit-expect-486.xml", target=node.target, service="talk")).check()

        lane = (await node.pids())["lane-1"]
        os.kill(lane, signal.SIGKILL)

        async def replaced() -> bool:
            return (await node.pids()).get("lane-1", lane) != lane

        await node.until(replaced, 30)
        await callers.wait()
        calls = [call.call for call in await node.ended(WANTED)]
        lost = [call for call in calls if call.cause == "lane_died"]
        others = [(call.cause, call.ended_by) for call in calls if call.cause != "lane_died"]
        assert 1 <= len(lost) <= 4 and set(others) == {("normal", "caller")}
        (ended,) = [event for event in node.events("ProcessEnded") if event["process"] == "lane"]
        assert ended["calls_affected"] == len(lost)
        # Its capacity is there again.
        again = Sipp(
            "uac-inbound-answered.xml",
            target=node.target,
            service="talk",
            calls=WANTED,
            rate=10,
            limit=WANTED,
            duration_ms=1_500,
            timeout_s=40,
        )
        await again.start()
        (await again.wait()).check()

        children = node.children()
        assert len([child for child in children if "kamailio" in child.name()]) > 3
        await node.stop(signal.SIGKILL)

        async def gone() -> bool:
            return not alive(children)

        await node.until(gone, 30)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind is socket.SOCK_STREAM))
                probe.bind(("127.0.0.1", node.sip_port))
