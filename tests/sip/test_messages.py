"""What the lane tells of the SIP messages of its calls: all of them, each once, nothing secret, nothing of others."""

import asyncio
import re

import pytest

from sipagent.sip.protocol import Answered, Hangup, IncomingCall, Reject, SeenMessage, SipMessages
from sipagent.sip.settings import TrunkSettings
from tests.peers import sipp
from tests.peers.kamailio import PASSWORD, Kamailio
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


def told(agent: Agent, call: int) -> list[SeenMessage]:
    return [seen for fact in agent.all(SipMessages, call) for seen in fact.messages]


def starts(messages: list[SeenMessage]) -> list[str]:
    """``> INVITE`` for one we sent, ``< 180`` for one we received."""
    found = []
    for seen in messages:
        words = seen.text.split(" ")
        what = f"= {seen.repeats}" if seen.repeats is not None else words[1] if words[0] == "SIP/2.0" else words[0]
        found.append(f"{'>' if seen.sent else '<'} {what}")
    return found


async def complete(agent: Agent, call: int, last: str) -> list[SeenMessage]:
    await agent.until(lambda: last in starts(told(agent, call)), f"{last} among the messages")
    return told(agent, call)


async def test_an_answered_call_from_its_invite_to_the_200_of_its_bye(agent: Agent):
    result = await sipp.run("uac-inbound-answered.xml", target=agent.address)
    result.check()
    (incoming,) = agent.all(IncomingCall)
    await agent.ended(incoming.call)
    await agent.until(lambda: starts(told(agent, incoming.call))[-2:] == ["< BYE", "> 200"], "the BYE and its 200")
    messages = told(agent, incoming.call)
    assert starts(messages) == ["< INVITE", "> 100", "> 180", "> 200", "< ACK", "< BYE", "> 200"]
    assert [seen.seq for seen in messages] == list(range(7))
    assert [seen.at for seen in messages] == sorted(seen.at for seen in messages)
    assert {(seen.transport, seen.local, seen.remote) for seen in messages} == {("UDP", agent.address, incoming.source)}
    # To the byte what the peer sent.
    (invite,) = result.sent("INVITE")
    assert messages[0].text.replace("\r\n", "\n").strip() == invite.replace("\r\n", "\n").strip()
    assert messages[0].size == len(messages[0].text)
    # One batch for the setup at most, one for the end.
    assert len(agent.all(SipMessages, incoming.call)) <= 2


async def test_a_refused_call_and_the_ack_that_follows_its_end(agent: Agent):
    agent.on_call = lambda call: agent.lane.send(
        Reject(call=call.call, status=404, headers={"X-Sipagent-Reason": "no_route"})
    )
    (await sipp.run("uac-inbound-rejected-expect-404.xml", target=agent.address)).check()
    (incoming,) = agent.all(IncomingCall)
    messages = await complete(agent, incoming.call, "< ACK")
    assert starts(messages)[0] == "< INVITE" and "> 404" in starts(messages)


async def test_a_callee_that_never_answers_is_seen_by_the_repetitions(agent: Agent):
    handle = agent.dial("sip:nobody@127.0.0.1:9")
    await asyncio.sleep(1.8)  # T1 is 0.5 s: sent at 0, 0.5 and 1.5 s (RFC 3261 section 17.1.1.2)
    agent.lane.send(Hangup(call=handle))
    await agent.until(lambda: len(told(agent, handle)) >= 3, "three messages")
    assert starts(told(agent, handle))[:3] == ["> INVITE", "> = 0", "> = 0"]
    assert all(seen.text == "" for seen in told(agent, handle)[1:3])


async def test_registrations_and_options_are_of_no_call(agent: Agent):
    request = (
        "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKo\r\nMax-Forwards: 1\r\n"
        "From: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", agent.settings.port)
    )
    transport.sendto(request.encode())
    transport.close()
    async with Sipp("uas-outbound-answered.xml") as callee:
        handle = agent.dial(callee.uri)
        await agent.fact(Answered, call=handle)
        agent.lane.send(Hangup(call=handle))
        (await callee.wait()).check()
    await complete(agent, handle, "> BYE")
    assert {fact.call for fact in agent.all(SipMessages)} == {handle}
    texts = "".join(seen.text for seen in told(agent, handle))
    assert "OPTIONS sip:" not in texts and not re.search(r"^REGISTER", texts, re.MULTILINE)


async def test_no_digest_key_or_pressed_key_leaves_the_lane(agent: Agent):
    """An INVITE with our credentials, keys by INFO: what is told of them has no secret."""
    async with Kamailio() as kamailio, Sipp("uas-outbound-answered.xml") as callee:
        trunk = TrunkSettings(name="kam", registrar=kamailio.address, username="alice", password=PASSWORD)
        async with Agent(trunks=[trunk]) as caller:
            caller.registrar.start()
            await caller.until(lambda: bool(caller.results), "a registration")
            target = f"sip:service@{kamailio.address}"
            handle = caller.dial(target, account="kam", headers={"X-Next-Hop": callee.uri})
            await caller.fact(Answered, call=handle)
            caller.lane.send(Hangup(call=handle))
            (await callee.wait()).check()
            messages = await complete(caller, handle, "> BYE")
    assert starts(messages)[:4] == ["> INVITE", "< 407", "> ACK", "> INVITE"]
    digest = next(line for line in messages[3].text.split("\r\n") if line.startswith("Proxy-Authorization"))
    assert 'username="alice"' in digest and 'response="' + "x" * 32 + '"' in digest
    assert messages[3].size == len(messages[3].text)

    (await sipp.run("uac-info-digits.xml", target=agent.address)).check()
    (incoming,) = agent.all(IncomingCall)
    await agent.ended(incoming.call)
    infos = [seen.text for seen in await complete(agent, incoming.call, "< BYE") if seen.text.startswith("INFO")]
    assert any("\r\n\r\nSignal=x\r\n" in text for text in infos)
    assert not any(re.search(r"\r\n\r\n.*[0-9#*]", text, re.DOTALL) for text in infos)
