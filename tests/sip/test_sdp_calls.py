"""SRTP, G722 and the rest of what SDP may agree on, through PJSIP and SIPp."""

import re

import pytest

from sipagent.core.events import CallRefused
from sipagent.sip import sdes, sdp
from sipagent.sip.protocol import Answered, Hangup, IncomingCall, MediaChanged
from tests.peers import sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"
CRYPTO = "a=crypto:{} {} inline:" + KEY
NONE = "a=x-none"
WIDE = sdp.Terms(codecs=("G722", "PCMA"))


def terms(srtp: sdp.SrtpPolicy) -> sdp.Terms:
    return sdp.Terms(srtp=srtp, keys=sdes.new_keys())


def keys(**values: str) -> list[str]:
    return [part for name, value in values.items() for part in ("-key", name, value)]


def answers(result: sipp.SippResult) -> list[str]:
    return [text for text in result.received("SIP/2.0 200") if "m=audio" in text]


@pytest.mark.parametrize("suite", sdes.SUITES)
@pytest.mark.parametrize(
    ("policy", "profile"),
    [("required", "RTP/SAVP"), ("optional", "RTP/SAVP"), ("optional", "RTP/AVP"), ("required", "RTP/AVP")],
)
async def test_a_caller_with_keys(suite: sdes.Suite, policy: sdp.SrtpPolicy, profile: str) -> None:
    ours = terms(policy)
    async with Agent(terms=ours) as agent:
        result = await sipp.run("uac-inbound-srtp.xml", target=agent.address, args=keys(profile=profile, suite=suite))
        result.check()
        call = await agent.fact(IncomingCall)
        crypto = sdp.negotiate(sdp.parse(call.sdp), ours).crypto
        assert crypto is not None and (crypto.suite, crypto.remote_key) == (suite, bytes(range(30)))
        sent = [re.search(rf"a=crypto:5 {suite} inline:(\S+)", text) for text in answers(result)]
        assert all(f" {profile} " in text for text in answers(result))
        found = [match.group(1) for match in sent if match]
        # Ours stays while the caller's does.
        assert len(found) == 3 and found[0] == found[1] != found[2]
        # Main is told with which.
        (held, back) = agent.all(MediaChanged)
        used = [
            sdp.negotiate(sdp.parse(change.sdp), sdp.with_keys_of(ours, sdp.parse(change.answer))).crypto
            for change in (held, back)
        ]
        assert used[0] == crypto
        assert used[1] is not None and used[1].remote_key == bytes(range(100, 130))
        assert (
            sdp.parse(f"v=0\r\nm=audio 2 RTP/SAVP 0\r\na=crypto:5 {suite} inline:{found[2]}").media[0].crypto[0].key
            == used[1].local_key
        )


async def test_an_offer_asked_for_in_mid_call_keeps_the_keys() -> None:
    ours = terms("required")
    async with Agent(terms=ours) as agent:
        (await sipp.run("uac-reinvite-srtp-without-offer.xml", target=agent.address)).check()
        (change,) = agent.all(MediaChanged)
    assert sdp.with_keys_of(ours, sdp.parse(change.answer)) == ours
    agreed = sdp.negotiate(sdp.parse(change.sdp), ours)
    assert (agreed.codec, agreed.port) == ("PCMA", 34570)
    assert agreed.crypto == sdp.Crypto(sdes.SUITES[0], ours.keys[0], bytes(range(30)))


@pytest.mark.parametrize(
    ("policy", "profile", "crypto"),
    [
        ("required", "RTP/AVP", NONE),
        ("off", "RTP/SAVP", CRYPTO.format(1, "AES_CM_128_HMAC_SHA1_80")),
        ("required", "RTP/SAVP", CRYPTO.format(1, "AES_CM_128_HMAC_SHA1_80") + "|2^20|1:4"),
        ("required", "RTP/SAVP", CRYPTO.format(1, "AES_CM_128_HMAC_SHA1_80") + " UNENCRYPTED_SRTP"),
    ],
)
async def test_srtp_that_cannot_be_agreed(policy: sdp.SrtpPolicy, profile: str, crypto: str) -> None:
    async with Agent(terms=terms(policy)) as agent:
        result = await sipp.run(
            "uac-inbound-srtp-expect-488.xml", target=agent.address, args=keys(profile=profile, crypto=crypto)
        )
        result.check()
        assert not agent.all(Answered)


@pytest.mark.parametrize("crypto", [NONE, CRYPTO.format(1, "F8_128_HMAC_SHA1_80")])
async def test_rtp_savp_that_pjsip_itself_refuses(crypto: str) -> None:
    async with Agent(terms=terms("optional")) as agent:
        arguments = keys(profile="RTP/SAVP", crypto=crypto)
        (await sipp.run("uac-inbound-srtp-expect-406.xml", target=agent.address, args=arguments)).check()
        await agent.until(lambda: any(isinstance(event, CallRefused) for event in agent.events), "refusal")


async def test_a_caller_without_keys_where_srtp_is_optional() -> None:
    async with Agent(terms=terms("optional")) as agent:
        result = await sipp.run("uac-inbound-answered.xml", target=agent.address, duration_ms=50)
        result.check()
        (ok,) = answers(result)
        assert "m=audio 40000 RTP/AVP 0 101" in ok and "crypto" not in ok


@pytest.mark.parametrize("tag", [1, 2])
@pytest.mark.parametrize(
    ("policy", "profile", "answered"),
    [
        ("required", "RTP/SAVP", "RTP/SAVP"),
        ("optional", "RTP/AVP", "RTP/AVP"),
    ],
)
async def test_a_callee_with_keys(policy: sdp.SrtpPolicy, profile: str, answered: str, tag: int) -> None:
    ours = terms(policy)
    suite = sdes.SUITES[tag - 1]
    arguments = keys(profile=answered, crypto=CRYPTO.format(tag, suite))
    async with Agent(terms=ours) as agent, sipp.Sipp("uas-outbound-srtp.xml", args=arguments) as callee:
        call = agent.dial(callee.uri)
        fact = await agent.fact(Answered, call=call)
        agent.lane.send(Hangup(call=call))
        result = await callee.wait()
    result.check()
    (invite,) = result.received("INVITE")
    assert f"m=audio 40000 {profile} 0 8 101" in invite
    agreed = sdp.negotiate(sdp.parse(fact.sdp), ours, offered=True)
    assert agreed.crypto == sdp.Crypto(suite, ours.keys[tag - 1], bytes(range(30)))


@pytest.mark.parametrize("policy", ["optional", "required"])
async def test_a_callee_without_keys(policy: sdp.SrtpPolicy) -> None:
    ours = terms(policy)
    arguments = keys(profile="RTP/AVP", crypto=NONE)
    async with Agent(terms=ours) as agent, sipp.Sipp("uas-outbound-srtp.xml", args=arguments) as callee:
        call = agent.dial(callee.uri)
        fact = await agent.fact(Answered, call=call)
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()
    heard = sdp.parse(fact.sdp)
    if policy == "optional":
        assert sdp.negotiate(heard, ours, offered=True).crypto is None
    else:
        with pytest.raises(sdp.NoCommonCodec, match="SRTP is required"):
            sdp.negotiate(heard, ours, offered=True)


async def test_a_wideband_caller() -> None:
    async with Agent(terms=WIDE) as agent:
        result = await sipp.run("uac-inbound-g722.xml", target=agent.address, duration_ms=50)
        result.check()
        (ok,) = answers(result)
        assert "a=rtpmap:9 G722/8000" in ok and "a=rtcp-mux" in ok and "a=rtpmap:97 telephone-event/8000" in ok
        call = await agent.fact(IncomingCall)
        agreed = sdp.negotiate(sdp.parse(call.sdp), WIDE)
        assert (agreed.codec, agreed.payload_type, agreed.comfort_noise, agreed.telephone_event) == ("G722", 9, 13, 97)
        assert agreed.rtcp_mux and agreed.rtcp_port == agreed.port


async def test_a_wideband_callee() -> None:
    async with Agent(terms=WIDE) as agent, sipp.Sipp("uas-outbound-g722.xml") as callee:
        call = agent.dial(callee.uri)
        fact = await agent.fact(Answered, call=call)
        agent.lane.send(Hangup(call=call))
        (await callee.wait()).check()
    agreed = sdp.negotiate(sdp.parse(fact.sdp), WIDE, offered=True)
    assert (agreed.codec, agreed.telephone_event, agreed.telephone_event_in) == ("G722", 100, 101)


async def test_keys_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ours = terms("required")
    async with Agent(terms=ours) as agent:
        for status, crypto in ((406, "F8_128_HMAC_SHA1_80"), (488, "AES_CM_128_HMAC_SHA1_80")):
            arguments = keys(profile="RTP/SAVP", crypto=CRYPTO.format(1, crypto) + "|2^20|1:4")
            scenario = f"uac-inbound-srtp-expect-{status}.xml"
            (await sipp.run(scenario, target=agent.address, args=arguments)).check()
        arguments = keys(profile="RTP/SAVP", suite=sdes.SUITES[0])
        result = await sipp.run("uac-inbound-srtp.xml", target=agent.address, args=arguments)
        result.check()
    logged = repr([record.__dict__ for record in caplog.records if record.name.startswith("sipagent")])
    said = logged + repr(agent.events) + repr(agent.facts) + repr(ours)
    assert KEY not in said and "inline:…" in said
    assert not any(match in said for text in answers(result) for match in re.findall(r"inline:(\S+)", text))
