"""The behaviours of signalling that need nothing but a lane, one SIPp scenario each, many at once."""

import asyncio

import pytest

from sipagent.sip import info, sdp
from sipagent.sip.protocol import (
    Answer,
    Answered,
    DigitByInfo,
    Hangup,
    Hold,
    IncomingCall,
    InfoAnswered,
    MediaChanged,
    OfferRefused,
    Progress,
    Refer,
    Reject,
    Reoffer,
    SendInfo,
    SetMedia,
    TransferProgress,
)
from tests.sip.agent import MEDIA_PORT
from tests.sip.scenarios import Case, Play, run_all

pytestmark = pytest.mark.peer

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def outcomes() -> dict[str, BaseException | None]:
    return asyncio.run(run_all(CASES, benches=3))


# --- session timers (first: they take longest) ----------------------------------------------------------------


@case
async def session_timer_caller_stops(play: Play) -> None:
    await play.caller("uac-session-timer-caller-stops-expect-bye.xml", timeout_s=100)
    ended = await play.ended()
    assert (ended.why, ended.by_remote, ended.was_answered) == ("no_refresh", False, True)


@case
async def session_timer_refreshed_by_update(play: Play) -> None:
    await play.caller("uac-session-timer-refreshed-by-update.xml", timeout_s=70)
    assert not play.all(MediaChanged)


@case
async def session_timer_refreshed_by_reinvite(play: Play) -> None:
    await play.caller("uac-session-timer-refreshed-by-reinvite.xml", timeout_s=70)


@case
async def session_timer_too_small(play: Play) -> None:
    await play.caller("uac-session-timer-expect-422.xml")
    ended = await play.ended()
    assert (ended.status, ended.by_remote, ended.was_answered) == (422, False, False)


@case
async def session_timer_caller_refreshes(play: Play) -> None:
    await play.caller("uac-session-timer-caller-refreshes.xml")
    assert (await play.ended()).by_remote


@case
async def session_timer_callee_wants_longer(play: Play) -> None:
    async with play.sipp("uas-outbound-session-timer-422.xml", target=None) as callee:
        await play.answered(callee)
        play.hang_up()
        (await callee.wait()).check()
    assert (await play.ended()).was_answered


@case
async def session_timer_callee_refreshes(play: Play) -> None:
    async with play.sipp("uas-outbound-session-timer-callee-refreshes.xml", target=None) as callee:
        await play.answered(callee)
        await play.fact(MediaChanged)
        play.hang_up()
        (await callee.wait()).check()


# --- INVITE, ACK, CANCEL, BYE that come late, twice or never --------------------------------------------------


@case
async def ack_late(play: Play) -> None:
    result = await play.caller("uac-ack-late.xml")
    assert len(play.calls) == 1 and (await play.fact(Answered)).sdp
    assert len([text for text in result.received("SIP/2.0 200") if "1 INVITE" in text]) > 1


@case
async def ack_never(play: Play) -> None:
    await play.caller("uac-ack-never-expect-bye.xml")
    ended = await play.ended()
    assert (ended.why, ended.by_remote, ended.was_answered) == ("no_ack", False, False)


@case
async def invite_retransmitted(play: Play) -> None:
    def answer_later(call: IncomingCall) -> None:
        asyncio.get_running_loop().call_later(0.4, play.answer, call)

    play.on_call(answer_later)
    await play.caller("uac-invite-retransmitted.xml")
    assert len(play.calls) == 1


@case
async def cancel_late(play: Play) -> None:
    await play.caller("uac-cancel-late-expect-200.xml")
    ended = await play.ended()
    assert ended.was_answered and ended.by_remote and ended.status == 200


@case
async def bye_before_ack(play: Play) -> None:
    await play.caller("uac-bye-before-ack.xml")
    ended = await play.ended()
    assert ended.by_remote and ended.why == ""


@case
async def bye_unanswered(play: Play) -> None:
    async with play.sipp("uac-bye-unanswered.xml") as caller:
        await play.fact(Answered)
        play.hang_up()
        (await caller.wait()).check()
        ended = await play.ended()
    assert ended.was_answered and not ended.by_remote


@case
async def bye_of_ours_unanswered(play: Play) -> None:
    async with play.sipp("uas-outbound-bye-unanswered.xml", target=None) as callee:
        await play.answered(callee)
        play.hang_up()
        (await callee.wait()).check()
    assert not (await play.ended()).by_remote


@case
async def byes_cross(play: Play) -> None:
    async with play.sipp("uas-outbound-byes-cross.xml", target=None) as callee:
        await play.answered(callee)
        play.hang_up()
        (await callee.wait()).check()
    assert (await play.ended()).was_answered


@case
async def cancel_crosses_200(play: Play) -> None:
    async with play.sipp("uas-outbound-cancel-crosses-200.xml", target=None) as callee:
        play.dial(callee)
        await play.fact(Progress)
        play.send(Hangup(call=play.call, headers={"Reason": "SIP;cause=487"}))
        result = await callee.wait()
    result.check()
    assert "Reason: SIP;cause=487" in result.received("CANCEL")[0]
    assert not (await play.ended()).by_remote


@case
async def cancel_waits_for_100(play: Play) -> None:
    async with play.sipp("uas-outbound-cancel-waits-for-100.xml", target=None) as callee:
        play.dial(callee)
        await asyncio.sleep(0.1)
        play.hang_up()
        (await callee.wait()).check()
    ended = await play.ended()
    assert (ended.status, ended.by_remote, ended.was_answered) == (487, False, False)


@case
async def callee_silent(play: Play) -> None:
    async with play.sipp("uas-outbound-silent.xml", target=None) as callee:
        play.dial(callee)
        result = await callee.wait()
    assert len(result.received("INVITE")) > 3
    ended = await play.ended()
    assert (ended.status, ended.by_remote, ended.was_answered) == (408, False, False)


@case
async def two_callees_answer(play: Play) -> None:
    async with play.sipp("uas-outbound-two-200s.xml", target=None) as callee:
        await play.answered(callee)
        await asyncio.sleep(0.3)
        play.hang_up()
        (await callee.wait()).check()
    (answered,) = play.all(Answered)
    assert sdp.negotiate(sdp.parse(answered.sdp)).codec == "PCMU"


@case
async def two_callees_ring(play: Play) -> None:
    async with play.sipp("uas-outbound-forked-early.xml", target=None) as callee:
        await play.answered(callee)
        play.hang_up()
        (await callee.wait()).check()
    (answered,) = play.all(Answered)
    assert sdp.negotiate(sdp.parse(answered.sdp)).codec == "PCMU"
    assert [bool(fact.sdp) for fact in play.all(Progress)] == [False, True]


@case
async def answer_repeated(play: Play) -> None:
    async with play.sipp("uas-outbound-200-repeated.xml", target=None) as callee:
        call = await play.answered(callee)
        play.send(SendInfo(call=call, content_type=info.PLAIN, body="1"))
        await play.fact(InfoAnswered)
        await asyncio.sleep(0.2)
        play.hang_up()
        (await callee.wait()).check()
    assert len(play.all(Answered)) == 1


@case
async def answer_without_common_codec(play: Play) -> None:
    async with play.sipp("uas-outbound-no-common-codec.xml", target=None) as callee:
        play.dial(callee)
        (await callee.wait()).check()
    assert not (await play.ended()).by_remote


# --- what is refused ------------------------------------------------------------------------------------------


@case
async def wrong_cseq(play: Play) -> None:
    await play.caller("uac-wrong-cseq-expect-500.xml")
    assert (await play.ended()).by_remote and not play.all(DigitByInfo)


@case
async def unknown_method(play: Play) -> None:
    result = await play.caller("uac-unknown-method-expect-405.xml")
    assert "Allow: " in result.received("SIP/2.0 405")[0]


@case
async def unknown_method_outside(play: Play) -> None:
    await play.caller("uac-unknown-method-outside-expect-405.xml")


@case
async def unknown_extension(play: Play) -> None:
    await play.caller("uac-require-unknown-expect-420.xml")


@case
async def unknown_body(play: Play) -> None:
    await play.caller("uac-content-type-unknown-expect-415.xml")


@case
async def unknown_dialog(play: Play) -> None:
    await play.caller("uac-bye-unknown-dialog-expect-481.xml")


@case
async def reinvite_twice(play: Play) -> None:
    await play.caller("uac-reinvite-twice-expect-500.xml")


@case
async def caller_sent_elsewhere(play: Play) -> None:
    play.on_call(
        lambda call: play.send(Reject(call=call.call, status=302, headers={"Contact": "<sip:other@192.0.2.7>"}))
    )
    await play.caller("uac-inbound-redirected-302.xml")


@case
async def caller_told_when_to_try_again(play: Play) -> None:
    headers = {"Retry-After": "7", "Reason": 'Q.850;cause=42;text="congestion"'}
    play.on_call(lambda call: play.send(Reject(call=call.call, status=503, reason="Busy", headers=headers)))
    await play.caller("uac-inbound-refused-503-retry-after.xml")
    assert (await play.ended()).status == 503


@case
async def callee_says_when_to_try_again(play: Play) -> None:
    async with play.sipp("uas-outbound-refused-503-retry-after.xml", target=None) as callee:
        play.dial(callee)
        ended = await play.ended()
        (await callee.wait()).check()
    assert (ended.status, ended.by_remote) == (503, True)
    assert ended.headers["Retry-After"] == "30 (lunch)" and ended.headers["Reason"].startswith("Q.850;cause=42")


@case
async def max_forwards_0(play: Play) -> None:
    await play.caller("uac-max-forwards-0.xml")


# --- early media, reliable provisional responses, UPDATE, offers ----------------------------------------------


@case
async def early_media_cancelled(play: Play) -> None:
    play.on_call(play.early)
    await play.caller("uac-early-media-cancelled-expect-487.xml")
    ended = await play.ended()
    assert (ended.status, ended.by_remote, ended.was_answered) == (487, True, False)


@case
async def reliable_183_of_the_callee(play: Play) -> None:
    async with play.sipp("uas-outbound-reliable-183.xml", target=None) as callee:
        await play.answered(callee)
        play.hang_up()
        (await callee.wait()).check()
    (progress,) = play.all(Progress)
    assert progress.status == 183 and progress.sdp


@case
async def update_inside(play: Play) -> None:
    await play.caller("uac-update.xml")
    heard = [sdp.negotiate(sdp.parse(change.sdp)) for change in play.all(MediaChanged)]
    assert [(media.codec, media.port, media.send) for media in heard] == [
        ("PCMU", heard[0].port, False),
        ("PCMA", 34566, True),
    ]


@case
async def update_early(play: Play) -> None:
    play.on_call(play.early)
    async with play.sipp("uac-update-early.xml") as caller:
        changed = await play.fact(MediaChanged)
        play.send(Answer(call=play.call, sdp=""))  # what the 183 said holds
        (await caller.wait()).check()
    assert sdp.negotiate(sdp.parse(changed.sdp)).port == 34562 and not changed.offered


@case
async def codec_and_address(play: Play) -> None:
    await play.caller("uac-reinvite-codec-and-address.xml")
    (change,) = play.all(MediaChanged)
    media = sdp.negotiate(sdp.parse(change.sdp))
    assert (media.codec, media.host, media.port) == ("PCMA", "127.0.0.2", 34570)


@case
async def offers_of_ours(play: Play) -> None:
    async with play.sipp("uas-outbound-reoffer.xml", target=None) as callee:
        call = await play.answered(callee)
        changes = []
        for nth, port in enumerate((MEDIA_PORT + 2, MEDIA_PORT + 4), 1):
            play.send(SetMedia(call=call, host="127.0.0.1", port=port, session_id=abs(call)))
            play.send(Reoffer(call=call, update=nth == 1))
            changes.append(await play.fact(MediaChanged, nth))
        play.hang_up()
        (await callee.wait()).check()
    assert all(change.offered for change in changes)
    assert sdp.negotiate(sdp.parse(changes[1].sdp), offered=True).codec == "PCMA"


@case
async def hold_unanswered(play: Play) -> None:
    async with play.sipp("uas-outbound-hold-unanswered.xml", target=None) as callee:
        call = await play.answered(callee)
        play.send(Hold(call=call))
        ended = await play.ended()
        await callee.wait()
    assert (ended.why, ended.by_remote, ended.was_answered) == ("unreachable", False, True)
    assert [fact.status for fact in play.all(OfferRefused)] == [408]


# --- transfers ------------------------------------------------------------------------------------------------


@case
async def transfer_refused(play: Play) -> None:
    async with play.sipp("uas-outbound-transfer-refused-603.xml", target=None) as callee:
        call = await play.answered(callee)
        play.send(Refer(call=call, target="sip:agent@127.0.0.1:9"))
        progress = await play.fact(TransferProgress)
        play.hang_up()
        (await callee.wait()).check()
    assert (progress.status, progress.final) == (603, True)


@case
async def transfer_then_bye(play: Play) -> None:
    async with play.sipp("uas-outbound-transfer-then-bye.xml", target=None) as callee:
        call = await play.answered(callee)
        play.send(Refer(call=call, target="sip:agent@127.0.0.1:9"))
        ended = await play.ended()
        (await callee.wait()).check()
    assert ended.by_remote and ended.was_answered
    assert not any(fact.final for fact in play.all(TransferProgress))


@pytest.mark.parametrize("name", [*CASES, "lanes"])
def test_scenario(outcomes: dict[str, BaseException | None], name: str) -> None:
    error = outcomes.get(name)
    if error is not None:
        raise error
