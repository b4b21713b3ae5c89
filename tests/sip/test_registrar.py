"""Registration with a real Kamailio, and with registrars that SIPp plays."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipagent.core.events import RegistrationChanged
from sipagent.core.states import RegistrationState as State
from sipagent.sip.protocol import Answered, Hangup, IncomingCall
from sipagent.sip.settings import TrunkSettings
from tests.peers import sipp
from tests.peers.kamailio import BLOCKED, PASSWORD, Kamailio
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


@pytest.fixture
async def kamailio() -> AsyncIterator[Kamailio]:
    async with Kamailio(expires_s=12) as kamailio:
        yield kamailio


def trunk(name: str, address: str, user: str = "alice", password: str = PASSWORD) -> TrunkSettings:
    return TrunkSettings(name=name, registrar=address, username=user, password=password)


def is_in(agent: Agent, name: str, state: State) -> bool:
    return agent.registrar.states[name].state is state


async def in_state(agent: Agent, name: str, state: State, within_s: float = 5.0) -> None:
    await agent.until(lambda: is_in(agent, name, state), f"{name} {state}", within_s)


async def test_registers_by_digest_refreshes_before_expiry_and_unregisters(kamailio: Kamailio) -> None:
    async with Agent(trunks=[trunk("kam", kamailio.address)]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        view = agent.registrar.states["kam"]
        assert (view.sip_status, view.expires_s, view.next_try_s) == (200, 12, 0)
        assert kamailio.registers("alice", saved=True) == 1
        begun = time.monotonic()
        # Due 5 s after the grant: the lease of 12 s is shorter than the quarter of 300 s we would keep.
        await agent.until(lambda: kamailio.registers("alice", saved=True) >= 2, "a refresh", 12)
        assert time.monotonic() - begun < 11
        assert is_in(agent, "kam", State.REGISTERED)
        kinds = [event.state for event in agent.events if isinstance(event, RegistrationChanged)]
        assert kinds == [State.REGISTERING, State.REGISTERED]  # a refresh is no news
    assert is_in(agent, "kam", State.UNREGISTERED)
    assert "SAVED REGISTER alice expires=0" in kamailio.log()


async def test_wrong_password_and_blocked_account_are_refused_and_not_hammered(kamailio: Kamailio) -> None:
    trunks = [trunk("wrong", kamailio.address, password="WRONG"), trunk("blocked", kamailio.address, BLOCKED)]
    async with Agent(trunks=trunks) as agent:
        agent.registrar.start()
        await in_state(agent, "wrong", State.REFUSED)
        await in_state(agent, "blocked", State.REFUSED)
        await asyncio.sleep(4)
        views = agent.registrar.states
        assert views["wrong"].sip_status == 401 and "password" in views["wrong"].sentence
        assert views["blocked"].sip_status == 403
        assert all(50 < view.next_try_s <= 72 for view in views.values())
        # One without credentials, one with; PJSIP may answer one more challenge (a stale nonce).
        assert kamailio.registers("alice") <= 3
        assert kamailio.registers(BLOCKED) == 1


async def test_registrar_goes_away_and_comes_back(kamailio: Kamailio) -> None:
    async with Agent(trunks=[trunk("kam", f"sip:{kamailio.address};transport=tcp")]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        await kamailio.stop()
        await in_state(agent, "kam", State.UNREACHABLE, 12)  # at the refresh, at once over TCP
        assert "does not answer" in agent.registrar.states["kam"].sentence
        await kamailio.start()
        await in_state(agent, "kam", State.REGISTERED, 15)


async def test_call_on_the_registered_contact_and_call_out_by_digest(kamailio: Kamailio) -> None:
    async with Agent(trunks=[trunk("kam", kamailio.address)]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        result = await sipp.run("uac-inbound-answered.xml", target=kamailio.address, service="alice", duration_ms=200)
        result.check()
        call = await agent.fact(IncomingCall)
        assert call.source == kamailio.address
        # Outbound: Kamailio challenges with 407, PJSIP answers, Kamailio passes it on to SIPp.
        async with Sipp("uas-outbound-answered.xml") as callee:
            target = TrunkSettings(name="kam", registrar=kamailio.address).target_uri("+4930123")
            handle = agent.dial(target, account="kam", headers={"X-Next-Hop": f"sip:127.0.0.1:{callee.port}"})
            await agent.fact(Answered, call=handle)
            agent.lane.send(Hangup(call=handle))
            result = await callee.wait()
        result.check()
        (invite,) = result.received("INVITE")
        assert "From: <sip:alice@127.0.0.1>" in invite or "From: sip:alice@127.0.0.1" in invite


async def test_a_killed_lane_takes_the_registration_up_again(kamailio: Kamailio) -> None:
    async with Agent(trunks=[trunk("kam", kamailio.address)]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        os.kill(agent.lane.pids["lane"], signal.SIGKILL)
        await agent.until(lambda: len(agent.readies) == 2, "new lane")
        assert agent.lost == 1
        assert not is_in(agent, "kam", State.REGISTERED)
        await in_state(agent, "kam", State.REGISTERED)
        assert kamailio.registers("alice", saved=True) >= 2
        result = await sipp.run("uac-inbound-answered.xml", target=kamailio.address, service="alice", duration_ms=100)
        result.check()


async def test_a_registrar_that_only_the_hosts_file_knows(kamailio: Kamailio) -> None:
    async with Agent(trunks=[trunk("kam", f"localhost:{kamailio.port}")]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        result = await sipp.run("uac-inbound-answered.xml", target=kamailio.address, service="alice", duration_ms=50)
        result.check()
        async with Sipp("uas-outbound-answered.xml") as callee:
            target = TrunkSettings(name="kam", registrar=f"localhost:{kamailio.port}").target_uri("+4930123")
            handle = agent.dial(target, account="kam", headers={"X-Next-Hop": f"sip:127.0.0.1:{callee.port}"})
            await agent.fact(Answered, call=handle)
            agent.lane.send(Hangup(call=handle))
            result = await callee.wait()
        result.check()
        (invite,) = result.received("INVITE")
        assert "sip:alice@localhost" in invite and "sip:+4930123@localhost" in invite


async def test_a_registrar_that_no_name_server_knows_is_tried_at_the_usual_pace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sipagent.sip.client._PING_S", 0.2)
    monkeypatch.setattr("sipagent.sip.client._SILENT_PINGS", 3)
    monkeypatch.setattr("sipagent.sip.names.RESOLV_CONF", tmp_path / "none")  # leaves 127.0.0.1, where nobody listens
    async with Agent(trunks=[trunk("far", "sip.carrier.invalid")]) as agent:
        agent.registrar.start()
        await asyncio.sleep(2.5)
        assert agent.lost == 0
        assert len(agent.results) <= 2  # at most one failure for each try


async def test_digest_with_qop() -> None:
    async with Sipp("uas-registrar-digest-then-200.xml") as registrar:
        async with Agent(trunks=[trunk("sipp", f"127.0.0.1:{registrar.port}")]) as agent:
            agent.registrar.start()
            await in_state(agent, "sipp", State.REGISTERED)
            (await registrar.wait()).check()
            assert agent.registrar.states["sipp"].expires_s == 60


async def test_always_403() -> None:
    async with Sipp("uas-registrar-always-403.xml", calls=5, timeout_s=4) as registrar:
        async with Agent(trunks=[trunk("sipp", f"127.0.0.1:{registrar.port}")]) as agent:
            agent.registrar.start()
            await in_state(agent, "sipp", State.REFUSED)
            result = await registrar.wait()
    assert len(result.received("REGISTER")) == 1


async def test_retry_after_of_a_registrar_in_trouble() -> None:
    async with Sipp("uas-registrar-503-retry-after.xml", calls=2) as registrar:
        async with Agent(trunks=[trunk("sipp", f"127.0.0.1:{registrar.port}")]) as agent:
            agent.registrar.start()
            await in_state(agent, "sipp", State.REFUSED)
            refused = time.monotonic()
            assert 3 < agent.registrar.states["sipp"].next_try_s <= 4
            (await registrar.wait()).check()  # the second REGISTER came
            assert time.monotonic() - refused > 3.8


async def test_nobody_there() -> None:
    async with Agent(trunks=[trunk("none", "sip:127.0.0.1:9;transport=tcp")]) as agent:
        agent.registrar.start()
        await in_state(agent, "none", State.UNREACHABLE)
        assert agent.registrar.states["none"].next_try_s > 0


async def test_a_registrar_that_is_no_uri_is_said_so() -> None:
    async with Agent(trunks=[trunk("odd", "sip:not a uri")]) as agent:
        agent.registrar.start()
        await in_state(agent, "odd", State.UNREACHABLE)
        assert "failed" in agent.registrar.states["odd"].sentence
