"""The lane calls SIPp."""

import pytest

from sipagent.sip import sdp
from sipagent.sip.protocol import Answered, CommandFailed, Hangup, Progress, Refer, TransferProgress
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


async def test_answered_and_hung_up_by_us(agent: Agent) -> None:
    async with Sipp("uas-outbound-answered.xml") as callee:
        call = agent.dial(callee.uri, headers={"X-Tenant": "acme"})
        assert (await agent.fact(Progress, call=call)).status == 180
        answered = await agent.fact(Answered, call=call)
        assert sdp.negotiate(sdp.parse(answered.sdp)).codec == "PCMA"
        agent.lane.send(Hangup(call=call, headers={"Reason": "Q.850;cause=16"}))
        result = await callee.wait()
    result.check()
    ended = await agent.ended(call)
    assert (ended.status, ended.by_remote, ended.was_answered) == (200, False, True)
    assert ended.sip_call_id == answered.sip_call_id
    (invite,) = result.received("INVITE")
    assert "X-Tenant: acme" in invite and "User-Agent: sipagent/" in invite
    assert "m=audio 40000 RTP/AVP 0 8 101" in invite
    assert "Reason: Q.850;cause=16" in result.received("BYE")[0]


async def test_callee_hangs_up(agent: Agent) -> None:
    async with Sipp("uas-outbound-callee-hangs-up.xml") as callee:
        call = agent.dial(callee.uri)
        ended = await agent.ended(call)
        (await callee.wait()).check()
    assert ended.by_remote and ended.was_answered and ended.headers == {"Reason": "Q.850;cause=16"}


async def test_early_media(agent: Agent) -> None:
    async with Sipp("uas-outbound-early-media.xml") as callee:
        call = agent.dial(callee.uri)
        progress = await agent.fact(Progress, call=call)
        assert progress.status == 183 and sdp.negotiate(sdp.parse(progress.sdp)).codec == "PCMU"
        await agent.fact(Answered, call=call)
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()


async def test_busy_with_headers(agent: Agent) -> None:
    async with Sipp("uas-outbound-busy-486.xml") as callee:
        call = agent.dial(callee.uri)
        ended = await agent.ended(call)
        (await callee.wait()).check()
    assert (ended.status, ended.reason, ended.by_remote, ended.was_answered) == (486, "Busy Here", True, False)
    assert ended.headers == {"Retry-After": "5", "Reason": "Q.850;cause=17"}


async def test_no_answer_is_cancelled(agent: Agent) -> None:
    async with Sipp("uas-outbound-no-answer.xml") as callee:
        call = agent.dial(callee.uri)
        await agent.fact(Progress, call=call)
        agent.lane.send(Hangup(call=call))
        ended = await agent.ended(call)
        (await callee.wait()).check()
    assert (ended.status, ended.by_remote, ended.was_answered) == (487, False, False)


async def test_transfer_is_followed_to_its_outcome(agent: Agent) -> None:
    async with Sipp("uas-outbound-transfer.xml") as callee:
        call = agent.dial(callee.uri)
        await agent.fact(Answered, call=call)
        agent.lane.send(Refer(call=call, target="sip:agent@127.0.0.1:9"))
        await agent.until(lambda: any(fact.final for fact in agent.all(TransferProgress)), "final NOTIFY")
        agent.lane.send(Hangup(call=call))
        result = await callee.wait()
    result.check()
    progress = [(fact.status, fact.final) for fact in agent.all(TransferProgress)]
    assert progress[-1] == (200, True) and (180, False) in progress
    assert "sip:agent@127.0.0.1:9" in result.received("REFER")[0]


async def test_calls_that_cannot_be_made(agent: Agent) -> None:
    broken = agent.dial("not a uri")
    nobody = agent.dial("sip:a@127.0.0.1:9", account="no-such-trunk")
    refused = agent.dial("sip:a@127.0.0.1:9;transport=tcp")
    assert "Invalid" in (await agent.fact(CommandFailed, call=broken)).reason
    assert "no-such-trunk" in (await agent.fact(CommandFailed, call=nobody)).reason
    ended = await agent.ended(refused)
    assert (ended.status, ended.by_remote) == (503, False)


async def test_one_call_more_than_there_are_slots(agent: Agent) -> None:
    ready = agent.lane.ready
    assert ready is not None and ready.max_calls <= 64
    async with Sipp("uas-outbound-answered.xml", calls=ready.max_calls) as callee:
        calls = [agent.dial(callee.uri) for _ in range(ready.max_calls)]
        await agent.fact(Answered, nth=ready.max_calls)
        one_more = agent.dial(callee.uri)
        assert "Too many" in (await agent.fact(CommandFailed, call=one_more)).reason
        for call in calls:
            agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()
