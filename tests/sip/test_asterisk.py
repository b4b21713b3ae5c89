"""The lane and a real Asterisk: registration, calls in both directions, and its own records of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sipagent.core.states import RegistrationState as State
from sipagent.sip import sdp
from sipagent.sip.protocol import Answered, Hangup, IncomingCall, Progress
from sipagent.sip.settings import TrunkSettings
from tests.peers.asterisk import PASSWORD, USER, Asterisk
from tests.sip.agent import Agent

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]  # the first run fetches Asterisk

# One lane at our own address, and several behind the edge: the same to the other side.
LANES = pytest.mark.parametrize("max_calls", [0, 6])


@pytest.fixture
async def pbx() -> AsyncIterator[Asterisk]:
    async with Asterisk() as pbx:
        yield pbx


def trunk(pbx: Asterisk, password: str = PASSWORD) -> TrunkSettings:
    return TrunkSettings(name="pbx", registrar=pbx.address, username=USER, password=password)


async def registered(agent: Agent) -> None:
    agent.registrar.start()
    await agent.until(lambda: agent.registrar.states["pbx"].state is State.REGISTERED, "registration")


async def records(pbx: Asterisk, count: int) -> list[dict[str, str]]:
    """Asterisk writes a record a moment after the call's end."""
    for _ in range(60):
        if len(found := pbx.cdrs()) >= count:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"Asterisk wrote {len(found)} records instead of {count}")


async def test_registers_by_digest(pbx: Asterisk) -> None:
    async with Agent(trunks=[trunk(pbx)]) as agent:
        await registered(agent)
        assert 55 <= agent.registrar.states["pbx"].expires_s <= 60
        assert f"@{agent.address}" in await pbx.cli("pjsip show contacts")
    assert "No objects found" in await pbx.cli("pjsip show contacts")  # taken back


async def test_wrong_password(pbx: Asterisk) -> None:
    async with Agent(trunks=[trunk(pbx, "wrong")]) as agent:
        agent.registrar.start()
        await agent.until(lambda: agent.registrar.states["pbx"].state is State.REFUSED, "refusal")
        assert agent.registrar.states["pbx"].sip_status == 401


@LANES
async def test_asterisk_calls_the_registered_contact_and_we_hang_up(pbx: Asterisk, max_calls: int) -> None:
    async with Agent(trunks=[trunk(pbx)], max_calls=max_calls) as agent:
        await registered(agent)
        await pbx.call_agent()
        call = await agent.fact(IncomingCall)
        assert call.to_user == USER and call.source == pbx.address
        await agent.fact(Answered, call=call.call)
        assert f"PJSIP/{USER}" in await pbx.cli("core show channels concise")
        agent.lane.send(Hangup(call=call.call, headers={"Reason": "Q.850;cause=16"}))
        ended = await agent.ended(call.call)
        assert not ended.by_remote and ended.was_answered
        (record,) = await records(pbx, 1)
        assert record["disposition"] == "ANSWERED"
        assert await pbx.cli("core show channels concise") == ""


@LANES
async def test_we_call_by_digest_and_asterisk_hangs_up(pbx: Asterisk, max_calls: int) -> None:
    async with Agent(trunks=[trunk(pbx)], max_calls=max_calls) as agent:
        await registered(agent)
        handle = agent.dial(trunk(pbx).target_uri("hangup"), account="pbx")
        answered = await agent.fact(Answered, call=handle)
        media = sdp.negotiate(sdp.parse(answered.sdp))
        assert media.codec == "PCMU" and pbx.rtp_port <= media.port < pbx.rtp_port + 40
        assert media.telephone_event == 101
        ended = await agent.ended(handle)
        assert ended.by_remote and ended.was_answered and "cause=16" in ended.headers.get("Reason", "")
        (record,) = await records(pbx, 1)
        assert (record["dst"], record["disposition"]) == ("hangup", "ANSWERED")


async def test_busy_and_ringing(pbx: Asterisk) -> None:
    async with Agent(trunks=[trunk(pbx)]) as agent:
        await registered(agent)
        busy = agent.dial(trunk(pbx).target_uri("busy"), account="pbx")
        ended = await agent.ended(busy)
        assert (ended.status, ended.by_remote, ended.was_answered) == (486, True, False)
        ringing = agent.dial(trunk(pbx).target_uri("ring"), account="pbx")
        await agent.fact(Progress, call=ringing)
        agent.lane.send(Hangup(call=ringing))
        assert (await agent.ended(ringing)).status == 487
