"""What happens inside a call: hold, offers that cross, digits by INFO, transfers asked of us, early media."""

import pytest

from sipagent.sip import info, sdp
from sipagent.sip.protocol import (
    AllowRefer,
    Answer,
    Answered,
    DigitByInfo,
    EarlyMedia,
    Ended,
    Hangup,
    Hold,
    IncomingCall,
    InfoAnswered,
    MediaChanged,
    NotifyTransfer,
    OfferRefused,
    Redirected,
    Refer,
    Reject,
    Replaces,
    Resume,
    SendInfo,
    SetMedia,
    TransferProgress,
    TransferRequested,
)
from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.sip.agent import MEDIA_PORT, Agent

pytestmark = pytest.mark.peer


def directions(change: MediaChanged) -> tuple[str, str]:
    """The peer's and ours."""
    lines = sdp.parse(change.sdp).audio_line, sdp.parse(change.answer).audio_line
    assert lines[0] is not None and lines[1] is not None
    return lines[0].direction, lines[1].direction


async def dial(agent: Agent, callee: Sipp) -> int:
    """A call that is answered, whose media the lane knows."""
    call = agent.dial(callee.uri)
    agent.lane.send(SetMedia(call=call, host="127.0.0.1", port=MEDIA_PORT, session_id=abs(call)))
    await agent.fact(Answered, call=call)
    return call


async def test_hold_and_resume(agent: Agent) -> None:
    async with Sipp("uas-outbound-hold-resume.xml") as callee:
        call = await dial(agent, callee)
        agent.lane.send(Hold(call=call))
        held = await agent.fact(MediaChanged, call=call)
        other = await agent.fact(MediaChanged, call=call, nth=2)
        agent.lane.send(Resume(call=call))
        resumed = await agent.fact(MediaChanged, call=call, nth=3)
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()
    assert directions(held) == ("recvonly", "sendonly") and held.offered
    assert directions(other) == ("sendrecv", "sendonly") and not other.offered
    assert directions(resumed) == ("sendrecv", "sendrecv") and resumed.offered
    versions = [sdp.parse(change.answer).version for change in (held, other, resumed)]
    assert versions == sorted(set(versions))


async def test_hold_refused(agent: Agent) -> None:
    async with Sipp("uas-outbound-hold-expect-488.xml") as callee:
        call = await dial(agent, callee)
        agent.lane.send(Hold(call=call))
        assert (await agent.fact(OfferRefused, call=call)).status == 488
        assert not agent.all(Ended)
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()


async def test_offers_that_cross(agent: Agent) -> None:
    async with Sipp("uas-outbound-glare-491.xml") as callee:
        call = await dial(agent, callee)
        agent.lane.send(Hold(call=call))
        changed = await agent.fact(MediaChanged, call=call, within_s=8)
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()
    assert directions(changed) == ("recvonly", "sendonly") and not agent.all(OfferRefused)


async def test_digits_by_info_of_both_kinds(agent: Agent) -> None:
    (await sipp.run("uac-info-digits.xml", target=agent.address)).check()
    heard = [(fact.digit, fact.duration_ms) for fact in agent.all(DigitByInfo)]
    assert heard == [("5", 160), ("#", 250), ("7", 0)]


async def test_digits_pressed_by_info(agent: Agent) -> None:
    async with Sipp("uas-outbound-info-digits.xml") as callee:
        call = await dial(agent, callee)
        for count, (digit, duration_ms, status) in enumerate((("9", 160, 200), ("#", 200, 415)), 1):
            agent.lane.send(SendInfo(call=call, content_type=info.RELAY, body=info.relay_body(digit, duration_ms)))
            assert (await agent.fact(InfoAnswered, call=call, nth=count)).status == status
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()
    assert len(agent.all(InfoAnswered)) == 2


async def test_attended_transfer_is_asked_for_with_the_dialog(agent: Agent) -> None:
    async with Sipp("uas-outbound-transfer-attended.xml") as callee, Sipp("uas-outbound-answered.xml") as target:
        call = await dial(agent, callee)
        other = await dial(agent, target)
        there = await agent.fact(Answered, call=other)
        assert there.remote_uri == "sip:service@127.0.0.1"
        assert there.remote_target.startswith(f"sip:sipp@127.0.0.1:{target.port}")
        agent.lane.send(Refer(call=call, target=there.remote_target, replaces=there.dialog))
        progress = await agent.fact(TransferProgress, call=call, nth=2)
        assert (progress.status, progress.final) == (200, True)
        for each in (call, other):
            agent.lane.send(Hangup(call=each))
        result, seen = await callee.wait(), await target.wait()
    result.check()
    seen.check()
    ok = next(text for text in seen.sent("SIP/2.0 200") if "INVITE" in text)
    tags = [line.partition("tag=")[2] for line in ok.splitlines() if line.startswith(("From", "To"))]
    (refer,) = result.received("REFER")
    assert f"?Replaces={there.sip_call_id}%3Bto-tag%3D{tags[1]}%3Bfrom-tag%3D{tags[0]}>" in refer


async def test_transfers_asked_of_us_are_reported_and_told_their_outcome(agent: Agent) -> None:
    def answer(call: IncomingCall) -> None:
        agent.answer(call)
        agent.lane.send(AllowRefer(call=call.call))

    agent.on_call = answer
    async with Sipp("uac-refer-accepted.xml", target=agent.address) as caller:
        first = await agent.fact(TransferRequested)
        assert (first.target, first.replaces) == ("sip:other@127.0.0.1:9", None)
        assert first.referred_by == "sip:boss@example.com"
        await agent.fact(DigitByInfo)  # the caller has seen that it cannot ask twice
        agent.lane.send(NotifyTransfer(call=first.call, status=180))
        agent.lane.send(NotifyTransfer(call=first.call, status=200, final=True))
        agent.lane.send(NotifyTransfer(call=first.call, status=200, final=True))  # is over: not sent
        second = await agent.fact(TransferRequested, nth=2)
        assert second.target == "sip:third@127.0.0.1:9"
        assert second.replaces == Replaces("abc@host", "1", "2")
        agent.lane.send(NotifyTransfer(call=first.call, status=603, final=True))
        (await caller.wait()).check()
    assert (await agent.ended(1)).was_answered


async def test_a_caller_who_takes_anothers_place_is_mains_to_decide(agent: Agent) -> None:
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address) as first:
        known = await agent.fact(Answered)
        named = Replaces(known.sip_call_id, known.local_tag, known.remote_tag)
        result = await sipp.run("uac-replaces.xml", target=agent.address, args=["-key", "replaces", str(named)])
        result.check()
        incoming = agent.all(IncomingCall)[1]
        assert incoming.replaces == named and known.is_named_by(incoming.replaces)
        assert not agent.all(Ended, call=1)  # ending it is main's
        agent.lane.send(Hangup(call=1))
        (await first.wait()).check()


async def test_a_replaces_of_no_dialog_of_ours_is_mains_to_refuse(agent: Agent) -> None:
    agent.on_call = lambda call: agent.lane.send(Reject(call=call.call, status=481))
    nobody = Replaces("nobody@example.com", "1", "2", early_only=True)
    result = await sipp.run("uac-replaces.xml", target=agent.address, args=["-key", "replaces", str(nobody)])
    assert result.received("SIP/2.0 481") and (await agent.fact(IncomingCall)).replaces == nobody


@pytest.mark.parametrize("scenario", ["uac-early-media.xml", "uac-early-media-reliable.xml"])
async def test_the_caller_hears_us_before_the_answer(agent: Agent, scenario: str) -> None:
    def early(call: IncomingCall) -> None:
        text = sdp.build_answer(sdp.parse(call.sdp), host="127.0.0.1", port=MEDIA_PORT, session_id=1)
        agent.lane.send(SetMedia(call=call.call, host="127.0.0.1", port=MEDIA_PORT, session_id=1))
        agent.lane.send(EarlyMedia(call=call.call, sdp=text))
        agent.lane.send(Answer(call=call.call, sdp=text))

    agent.on_call = early
    (await sipp.run(scenario, target=agent.address)).check()
    assert sdp.negotiate(sdp.parse((await agent.fact(Answered)).sdp)).codec == "PCMU"
    assert not agent.all(MediaChanged)


async def test_redirected(agent: Agent) -> None:
    async with Sipp("uas-outbound-redirected-302.xml") as callee:
        call = agent.dial(callee.uri)
        redirected = await agent.fact(Redirected, call=call)
        ended = await agent.ended(call)
        (await callee.wait()).check()
    assert redirected.targets == (
        "sip:first@127.0.0.1:9;user=phone",
        "sip:second@127.0.0.1:9",
        "sip:third@127.0.0.1:9",
    )
    assert (redirected.status, ended.status, ended.by_remote) == (302, 302, True)
