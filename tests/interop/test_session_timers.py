"""Calls long enough for their session to be refreshed (RFC 4028), up while the other tests of this folder run."""

import re

import pytest

from sipagent.core import clock
from sipagent.core.termination import Cause
from tests.interop.agreement import agree
from tests.interop.node import Node
from tests.peers.pbx import Pbx
from tests.wait import until

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]

INTERVAL_S = 90  # the least that RFC 4028 allows; the refresher acts when half of it is over


async def is_refreshed(pbx: Pbx, node: Node, call_id: str, *, by_us: bool) -> None:
    call = node.live(call_id)
    started = call.answered_at
    assert started is not None
    sip_call_id = (await node.leg_of(call_id)).sip_call_id

    def refreshed() -> list[str]:
        if by_us:
            return [line for line in pbx.sip(sip_call_id, received=True) if line.startswith("UPDATE")]
        return [line for line in pbx.sip(sip_call_id) if re.match("UPDATE|INVITE", line)][1:]

    await until(refreshed, "refresh of the session", INTERVAL_S * 0.7)
    assert (clock.now().mono - started.mono) / 1e9 >= INTERVAL_S / 2 - 3
    assert node.live(call_id).leg.port.figures().packets_in > 40 * 50
    call.hangup()
    record = await node.ended(call_id)
    assert record.call.cause == Cause.NORMAL
    agree(record, await pbx.cdr(sip_call_id))


async def test_asterisk_refreshes_its_call(pbx: Pbx, node: Node, timed_call: str) -> None:
    await is_refreshed(pbx, node, timed_call, by_us=False)


async def test_we_refresh_ours(pbx: Pbx, node: Node, our_timed_call: str) -> None:
    await is_refreshed(pbx, node, our_timed_call, by_us=True)
