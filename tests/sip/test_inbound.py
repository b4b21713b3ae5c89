"""SIPp calls the lane: one scenario a behaviour, and what main is told of it."""

import pytest

from sipagent.core.events import CallRefused
from sipagent.sip import sdp
from sipagent.sip.protocol import (
    Answered,
    Hangup,
    IncomingCall,
    MediaChanged,
    OverLimit,
    Reject,
    Ring,
    SipMessages,
)
from tests.peers import sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


async def test_answered_call_is_told_with_numbers_headers_and_sdp(agent: Agent) -> None:
    result = await sipp.run("uac-inbound-answered.xml", target=agent.address, service="%2B4930123", duration_ms=200)
    result.check()
    call = await agent.fact(IncomingCall)
    assert (call.call, call.from_user, call.to_user) == (1, "sipp", "+4930123")
    assert call.source.startswith("127.0.0.1:")
    assert call.headers == {
        "X-Campaign": "spring",
        "P-Asserted-Identity": '"Ann" <sip:+15550100@carrier.example>',
    }
    assert sdp.negotiate(sdp.parse(call.sdp)).codec == "PCMU"
    answered = await agent.fact(Answered, call=1)
    assert answered.sdp == call.sdp and answered.sip_call_id == call.sip_call_id
    ended = await agent.ended(1)
    assert (ended.status, ended.by_remote, ended.was_answered) == (200, True, True)
    # Our SDP, not PJMEDIA's, with the media address main gave.
    (ok,) = [text for text in result.received("SIP/2.0 200") if "INVITE" in text]
    assert "m=audio 40000 RTP/AVP 0 101" in ok and "o=sipagent" in ok
    assert "sipagent/" in ok or "Server" not in ok


async def test_caller_hangs_up_and_says_why(agent: Agent) -> None:
    (await sipp.run("uac-inbound-caller-hangs-up.xml", target=agent.address)).check()
    ended = await agent.ended(1)
    assert ended.by_remote and ended.headers["Reason"].startswith("Q.850;cause=16")


async def test_agent_hangs_up(agent: Agent) -> None:
    async with sipp.Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address) as caller:
        await agent.fact(Answered)
        agent.lane.send(Hangup(call=1, headers={"Reason": "Q.850;cause=16", "X-Bad": "a\r\nb"}))
        result = await caller.wait()
    result.check()
    ended = await agent.ended(1)
    assert not ended.by_remote and ended.was_answered and ended.status == 200
    (bye,) = result.received("BYE")
    assert "Reason: Q.850;cause=16" in bye and "X-Bad: a  b" in bye


@pytest.mark.parametrize(
    ("scenario", "status"),
    [("uac-inbound-no-common-codec-expect-488.xml", 488), ("uac-inbound-broken-sdp-expect-400.xml", 400)],
)
async def test_what_the_library_refuses_is_recorded(agent: Agent, scenario: str, status: int) -> None:
    (await sipp.run(scenario, target=agent.address)).check()
    await agent.until(lambda: any(isinstance(event, CallRefused) for event in agent.events), "refusal")
    (refused,) = [event for event in agent.events if isinstance(event, CallRefused)]
    assert refused.sip_status == status and not agent.facts


async def test_rejected_with_status_and_headers(agent: Agent) -> None:
    agent.on_call = lambda call: agent.lane.send(
        Reject(call=call.call, status=404, reason="No such number", headers={"X-Sipagent-Reason": "no route"})
    )
    result = await sipp.run("uac-inbound-rejected-expect-404.xml", target=agent.address)
    result.check()
    assert result.received("SIP/2.0 404 No such number")
    ended = await agent.ended(1)
    assert (ended.status, ended.by_remote, ended.was_answered) == (404, False, False)


async def test_a_call_rejected_while_its_answer_is_on_the_way_gets_a_bye(agent: Agent) -> None:
    def answer_and_reject(call: IncomingCall) -> None:
        agent.answer(call)
        agent.lane.send(Reject(call=call.call, status=480))

    agent.on_call = answer_and_reject
    for count in range(1, 7):  # more than the wheel's four slots: each is free again
        result = await sipp.run("uac-inbound-agent-hangs-up.xml", target=agent.address)
        result.check()
        assert result.received("BYE")
        ended = await agent.ended(count)
        assert not ended.by_remote


async def test_caller_gives_up_while_it_rings(agent: Agent) -> None:
    agent.on_call = agent.ring_only
    (await sipp.run("uac-cancel-expect-487.xml", target=agent.address)).check()
    ended = await agent.ended(1)
    assert (ended.status, ended.by_remote, ended.was_answered) == (487, True, False)
    assert "Call completed elsewhere" in ended.headers["Reason"]


async def test_hold_in_every_form_and_back(agent: Agent) -> None:
    result = await sipp.run("uac-reinvite-hold.xml", target=agent.address)
    result.check()
    changes = agent.all(MediaChanged)
    heard = [sdp.negotiate(sdp.parse(change.sdp)) for change in changes]
    assert [(media.send, media.receive) for media in heard] == [
        (False, True),
        (False, False),
        (True, True),
        (False, True),
        (True, True),
    ]
    assert heard[-1].port == 34568
    versions = [sdp.parse(change.answer).version for change in changes]
    assert versions == sorted(set(versions))
    assert all("m=audio 40000 " in change.answer for change in changes)
    assert (await agent.ended(1)).was_answered


async def test_reinvite_without_common_codec_leaves_the_call_alone(agent: Agent) -> None:
    (await sipp.run("uac-reinvite-no-common-codec-expect-488.xml", target=agent.address)).check()
    assert not agent.all(MediaChanged)
    assert (await agent.ended(1)).was_answered


async def test_reinvite_without_offer(agent: Agent) -> None:
    (await sipp.run("uac-reinvite-without-offer.xml", target=agent.address)).check()
    (change,) = agent.all(MediaChanged)
    media = sdp.negotiate(sdp.parse(change.sdp))
    assert (media.codec, media.port, media.telephone_event) == ("PCMA", 34570, 101)


async def test_delayed_offer(agent: Agent) -> None:
    (await sipp.run("uac-inbound-delayed-offer.xml", target=agent.address)).check()
    call, answered = await agent.fact(IncomingCall), await agent.fact(Answered)
    assert call.sdp == ""
    assert sdp.negotiate(sdp.parse(answered.sdp)).codec == "PCMA"


async def test_video_is_refused_and_audio_taken(agent: Agent) -> None:
    (await sipp.run("uac-inbound-video-and-audio.xml", target=agent.address)).check()
    assert (await agent.ended(1)).was_answered


async def test_refer_received_is_declined(agent: Agent) -> None:
    (await sipp.run("uac-refer-expect-603.xml", target=agent.address)).check()
    assert (await agent.ended(1)).was_answered


async def test_options(agent: Agent) -> None:
    result = await sipp.run("uac-options.xml", target=agent.address)
    result.check()


async def test_odd_bytes_and_compact_headers(agent: Agent) -> None:
    (await sipp.run("uac-latin1-header.xml", target=agent.address)).check()
    call = await agent.fact(IncomingCall)
    assert call.headers["X-Name"].startswith("J") and call.headers["X-Name"].endswith("rgen")


async def test_call_over_tcp(agent: Agent) -> None:
    result = await sipp.run("uac-inbound-answered.xml", target=agent.address, duration_ms=100, args=["-t", "t1"])
    result.check()
    assert (await agent.ended(1)).by_remote


async def test_the_call_over_the_limit_is_refused_and_counted(agent: Agent) -> None:
    ready = agent.lane.ready
    assert ready is not None
    limit = ready.max_calls
    assert limit >= 4
    if limit > 64:
        pytest.fail(f"this test fills every slot and this PJSIP has {limit}: run it with the wheel from PyPI")
    async with sipp.Sipp(
        "uac-inbound-answered.xml", target=agent.address, calls=limit, rate=100, limit=limit, duration_ms=2500
    ) as callers:
        await agent.fact(Answered, nth=limit)
        one_more = await sipp.run("uac-inbound-over-limit-expect-486.xml", target=agent.address)
        one_more.check()
        assert (await agent.fact(OverLimit)).status == 486
        (await callers.wait()).check()
    assert len(agent.all(IncomingCall)) == limit
    # And the slots are free again.
    (await sipp.run("uac-inbound-answered.xml", target=agent.address, duration_ms=50)).check()
    assert len(agent.all(OverLimit)) == 1


async def test_commands_that_cross_the_end_of_a_call_are_harmless(agent: Agent) -> None:
    (await sipp.run("uac-inbound-caller-hangs-up.xml", target=agent.address)).check()
    await agent.ended(1)
    count = len(agent.facts)
    agent.lane.send(Ring(call=1))
    agent.lane.send(Hangup(call=1))
    agent.lane.send(Reject(call=999, status=486))
    (await sipp.run("uac-inbound-caller-hangs-up.xml", target=agent.address)).check()
    await agent.ended(2)
    assert [getattr(fact, "call", 0) for fact in agent.facts[count:] if not isinstance(fact, SipMessages)] == [2, 2, 2]


async def test_the_log_holds_no_numbers(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for scenario in ("uac-inbound-answered.xml", "uac-inbound-broken-sdp-expect-400.xml"):
        (await sipp.run(scenario, target=agent.address, service="+4930123456", duration_ms=50)).check()
    await agent.until(lambda: any(record.message == "pjsip" for record in caplog.records), "a line of PJSIP's log")
    logged = repr([record.__dict__ for record in caplog.records if record.name.startswith("sipagent")])
    assert "4930123456" not in logged and "15550100" not in logged and "m=audio" not in logged
