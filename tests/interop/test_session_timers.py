"""A call long enough for its session to be refreshed (RFC 4028), up while the other tests of this folder run."""

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


async def test_a_session_is_refreshed_and_goes_on(pbx: Pbx, node: Node, timed_call: str) -> None:
    call = node.live(timed_call)
    started = call.answered_at
    assert started is not None
    sip_call_id = (await node.leg_of(timed_call)).sip_call_id

    def refreshed() -> list[str]:
        requests = [line for line in pbx.sip(sip_call_id) if re.match("UPDATE|INVITE", line)]
        return requests[1:]

    await until(refreshed, "refresh of the session", INTERVAL_S * 0.7)
    assert (clock.now().mono - started.mono) / 1e9 >= INTERVAL_S / 2 - 3
    assert node.live(timed_call).leg.port.figures().packets_in > 40 * 50
    call.hangup()
    record = await node.ended(timed_call)
    assert record.call.cause == Cause.NORMAL
    agree(record, await pbx.cdr(sip_call_id))
