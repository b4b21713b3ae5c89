"""Trunks to Asterisk with rules of their own: who may call in, and which way a call goes when one is out of order."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sipagent.core.termination import Cause, Disposition, EndedBy
from tests.interop.agreement import agree
from tests.interop.audio import seconds_of
from tests.interop.conftest import PLAN
from tests.interop.node import TONE_HZ, Node
from tests.peers.asterisk import PASSWORD
from tests.peers.pbx import Pbx

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]

TRUNK = """
[[trunks]]
name = "{name}"
domain = "{address}"
register = false
username = "{user}"
password = "{password}"
priority = {priority}
accept = "digest"
inbound_username = "{caller}"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def strict(pbx: Pbx) -> AsyncIterator[Node]:
    """Prefers the trunk that is out of order, and takes no call without a password."""
    common = {"address": pbx.address, "password": PASSWORD}
    first = TRUNK.format(name="first", user="broken", priority=0, caller="nobody", **common)
    backup = TRUNK.format(name="backup", user="plain", priority=1, caller="proven", **common)
    async with Node(first + backup, PLAN) as node:
        yield node


async def test_a_call_goes_on_to_the_next_trunk(pbx: Pbx, strict: Node) -> None:
    call = await strict.answered(await strict.call("shortbackup", ""))
    record = await strict.ended(call.id)
    assert (record.call.disposition, record.call.cause) == (Disposition.ANSWERED, Cause.NORMAL)
    failed, answered = record.call.legs
    assert (failed.sip_status, failed.answered_at, answered.sip_status) == (503, None, 200)
    first, second = await pbx.cdr(failed.sip_call_id), await pbx.cdr(answered.sip_call_id)
    assert (first.endpoint, first.answer, second.endpoint, second.disposition) == ("broken", 0, "plain", "ANSWERED")
    assert seconds_of(pbx.heard("shortbackup"), TONE_HZ) > 0.6


async def test_a_busy_callee_is_busy_by_every_trunk(pbx: Pbx, strict: Node) -> None:
    record = await strict.ended(await strict.call("cause17", ""))
    assert [leg.sip_status for leg in record.call.legs] == [503, 486]
    assert (record.call.disposition, record.call.sip_status) == (Disposition.BUSY, 486)


async def test_a_caller_with_the_password_gets_in(pbx: Pbx, strict: Node) -> None:
    since = len(strict.events)
    channel = await pbx.call("proven", "toneproven", caller="2003", to=f"sip:700@127.0.0.1:{strict.sip_port}")
    call = await strict.incoming(since)
    record = await strict.ended(call.id)
    assert (record.call.trunk, record.call.to_number, record.call.ended_by) == ("backup", "700", EndedBy.AGENT)
    agree(record, await pbx.cdr_of(channel))
    assert seconds_of(pbx.heard("toneproven"), TONE_HZ) > 0.8


async def test_a_caller_without_one_does_not(pbx: Pbx, strict: Node) -> None:
    since = len(pbx.manager.events)
    channel = await pbx.call("plain", "tonenone", to=f"sip:700@127.0.0.1:{strict.sip_port}")
    await pbx.manager.event("Hangup", since=since, Uniqueid=channel)
    assert not [event for event in strict.events if getattr(event, "from_number", "") == "1001"]
    assert not (pbx.folder / "spool/tonenone-heard.wav").exists()
