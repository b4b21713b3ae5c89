"""Asterisk as the registrar of several lanes behind their edge. What one lane and Asterisk do is in tests/interop."""

import asyncio

import pytest

from sipagent.core.states import RegistrationState as State
from sipagent.sip.protocol import Answered, Hangup, IncomingCall
from sipagent.sip.settings import TrunkSettings
from tests.peers.asterisk import PASSWORD, USER, Asterisk
from tests.sip.agent import Agent

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]  # the first run fetches Asterisk


async def records(pbx: Asterisk, count: int) -> list[dict[str, str]]:
    """Asterisk writes a record a moment after the call's end."""
    for _ in range(60):
        if len(found := pbx.cdrs()) >= count:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"Asterisk wrote {len(found)} records instead of {count}")


async def test_it_registers_is_called_calls_and_takes_its_contact_back() -> None:
    async with Asterisk() as pbx:
        trunk = TrunkSettings(name="pbx", registrar=pbx.address, username=USER, password=PASSWORD)
        async with Agent(trunks=[trunk], max_calls=6) as agent:
            agent.registrar.start()
            await agent.until(lambda: agent.registrar.states["pbx"].state is State.REGISTERED, "registration")
            assert 55 <= agent.registrar.states["pbx"].expires_s <= 60
            assert f"@{agent.address}" in await pbx.cli("pjsip show contacts")

            await pbx.call_agent()
            call = await agent.fact(IncomingCall)
            assert call.to_user == USER and call.source == pbx.address
            await agent.fact(Answered, call=call.call)
            assert f"PJSIP/{USER}" in await pbx.cli("core show channels concise")
            agent.lane.send(Hangup(call=call.call, headers={"Reason": "Q.850;cause=16"}))
            ended = await agent.ended(call.call)
            assert not ended.by_remote and ended.was_answered
            (first,) = await records(pbx, 1)
            assert first["disposition"] == "ANSWERED"
            assert await pbx.cli("core show channels concise") == ""

            handle = agent.dial(trunk.target_uri("hangup"), account="pbx")
            ended = await agent.ended(handle)
            assert ended.by_remote and ended.was_answered and "cause=16" in ended.headers.get("Reason", "")
            second = (await records(pbx, 2))[-1]
            assert (second["dst"], second["disposition"]) == ("hangup", "ANSWERED")
        assert "No objects found" in await pbx.cli("pjsip show contacts")  # taken back
