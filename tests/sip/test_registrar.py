"""Registration with a real Kamailio, and with registrars that SIPp plays."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sipagent.core.events import RegistrationChanged
from sipagent.core.states import RegistrationState as State
from sipagent.sip.protocol import AddAccount, AddressChanged, Answered, Hangup, Hold, IncomingCall, MediaChanged
from sipagent.sip.registration import RegistrationView
from sipagent.sip.servers import Server
from sipagent.sip.settings import TrunkSettings
from tests.peers import sipp
from tests.peers.kamailio import BLOCKED, PASSWORD, Kamailio
from tests.peers.ports import free_port
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


async def in_state(agent: Agent, name: str, state: State, within_s: float = 20.0) -> None:
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
        await in_state(agent, "kam", State.UNREACHABLE, 30)  # at the refresh, at once over TCP
        assert "does not answer" in agent.registrar.states["kam"].sentence
        await kamailio.start()
        await in_state(agent, "kam", State.REGISTERED, 30)


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


async def test_trunks_come_change_and_go_while_the_others_stay_registered(kamailio: Kamailio) -> None:
    kept, old = trunk("kept", kamailio.address, "bob"), trunk("old", kamailio.address)
    async with Agent(trunks=[kept, old]) as agent:

        async def follow(*trunks: TrunkSettings) -> None:
            agent.registrar.leave(trunks)
            await agent.registrar.follow(trunks)

        agent.registrar.start()
        await in_state(agent, "kept", State.REGISTERED)
        await in_state(agent, "old", State.REGISTERED)
        agent.registrar.leave([kept])
        assert is_in(agent, "kept", State.REGISTERED)
        await agent.registrar.follow([kept])
        assert set(agent.registrar.states) == {"kept"}
        assert "SAVED REGISTER alice expires=0" in kamailio.log()
        kinds = [
            event.state for event in agent.events if isinstance(event, RegistrationChanged) and event.trunk == "old"
        ]
        assert kinds[-1] is State.UNREGISTERED

        wrong = trunk("new", kamailio.address, "carol", password="WRONG")
        await follow(kept, wrong)
        await in_state(agent, "new", State.REFUSED)
        await follow(kept, trunk("new", kamailio.address, "carol"))
        await in_state(agent, "new", State.REGISTERED)
        assert kamailio.registers("carol", saved=True) == 1
        # What has nothing to do with the registration leaves it alone.
        await follow(msgspec.structs.replace(kept, max_calls=3), trunk("new", kamailio.address, "carol"))
        assert is_in(agent, "new", State.REGISTERED) and kamailio.registers("carol", saved=True) == 1
        assert "SAVED REGISTER bob expires=0" not in kamailio.log()


async def test_more_trunks_come_and_go_than_pjsip_has_accounts(kamailio: Kamailio) -> None:
    async with Agent(trunks=[]) as agent:
        agent.registrar.start()
        for number in range(12):
            wanted = [trunk(f"t{number}", kamailio.address, f"user{number}")]
            agent.registrar.leave(wanted)
            await agent.registrar.follow(wanted)
            await in_state(agent, f"t{number}", State.REGISTERED)
        result = await sipp.run("uac-inbound-answered.xml", target=kamailio.address, service="user11", duration_ms=50)
        result.check()
        assert agent.lost == 0
    assert all(f"SAVED REGISTER user{number} expires=0" in kamailio.log() for number in range(12))


async def test_a_call_by_a_trunk_that_is_gone_goes_on_to_its_end(kamailio: Kamailio) -> None:
    old = trunk("old", kamailio.address)
    async with Agent(trunks=[old]) as agent:
        agent.registrar.start()
        await in_state(agent, "old", State.REGISTERED)
        async with Sipp("uas-outbound-hold-resume.xml") as callee:
            headers = {"X-Next-Hop": f"sip:127.0.0.1:{callee.port}"}
            handle = agent.dial(old.target_uri("+4930123"), account="old", headers=headers)
            await agent.fact(Answered, call=handle)
            agent.registrar.leave([])
            await agent.registrar.follow([])
            new = [trunk("new", kamailio.address, "bob")]
            await agent.registrar.follow(new)
            await in_state(agent, "new", State.REGISTERED)  # with the account that PJSIP had for the old one
            agent.lane.send(Hold(call=handle))
            await agent.fact(MediaChanged, call=handle)
            agent.lane.send(Hangup(call=handle))
            await agent.ended(handle)


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


async def test_sha_256() -> None:
    async with Kamailio(algorithm="SHA-256") as kamailio, Agent(trunks=[trunk("kam", kamailio.address)]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        assert kamailio.registers("alice", saved=True) == 1


async def registers_at(scenario: str, state: State) -> RegistrationView:
    """What becomes of a registration at a registrar that SIPp plays as written."""
    async with Sipp(scenario) as registrar:
        there = trunk("sipp", f"127.0.0.1:{registrar.port}")
        async with Agent(trunks=[there]) as agent:
            agent.registrar.start()
            await in_state(agent, "sipp", state)
            (await registrar.wait()).check()
            view = agent.registrar.states["sipp"]
            agent.registrar._policies.clear()  # the registrar is gone: there is nobody to take leave of
            return view


async def test_a_registrar_that_wants_longer_leases_gets_them() -> None:
    view = await registers_at("uas-registrar-423-then-200.xml", State.REGISTERED)
    assert view.expires_s == 1800


async def test_a_registrar_that_no_lease_is_long_enough_for() -> None:
    view = await registers_at("uas-registrar-always-423.xml", State.REFUSED)
    assert (view.sip_status, view.next_try_s > 50) == (423, True)
    assert "set `expires_s` to what it asks for (1800)" in view.sentence


async def test_a_stale_nonce_is_no_wrong_password() -> None:
    view = await registers_at("uas-registrar-stale-nonce-then-200.xml", State.REGISTERED)
    assert view.expires_s == 60


async def test_nonces_that_are_always_stale_are_the_registrars_fault() -> None:
    view = await registers_at("uas-registrar-always-stale.xml", State.REFUSED)
    assert (view.sip_status, view.next_try_s > 50) == (401, True)
    assert "every nonce stale" in view.sentence and "provider" in view.sentence


async def test_a_challenge_without_end_is_taken_for_a_wrong_password() -> None:
    view = await registers_at("uas-registrar-always-401.xml", State.REFUSED)
    assert (view.sip_status, view.next_try_s > 50) == (401, True)
    assert "check `username` and `password`" in view.sentence


async def test_a_realm_that_is_not_ours_is_named(kamailio: Kamailio) -> None:
    wrong = TrunkSettings(
        name="kam", registrar=kamailio.address, username="alice", password=PASSWORD, realm="elsewhere"
    )
    async with Agent(trunks=[wrong]) as agent:
        agent.registrar.start()
        await in_state(agent, "kam", State.REFUSED)
        assert "set `realm`" in agent.registrar.states["kam"].sentence
        assert kamailio.registers("alice") == 1


async def test_the_next_server_of_a_registrar_is_asked_at_once(kamailio: Kamailio) -> None:
    there = TrunkSettings(name="kam", registrar="carrier.test", username="alice", password=PASSWORD)
    async with Agent(trunks=[there]) as agent:
        dead, alive = Server("127.0.0.1", free_port(), "tcp"), Server("127.0.0.1", kamailio.port, "tcp")
        agent.registrar.servers = lambda _trunk: [dead, alive]
        agent.registrar.start()
        await in_state(agent, "kam", State.REGISTERED)
        states = [event.state for event in agent.events if isinstance(event, RegistrationChanged)]
        assert State.UNREACHABLE in states
        assert "SAVED REGISTER alice" in kamailio.log()


async def test_registrations_begin_one_after_the_other_and_a_new_address_registers_anew(kamailio: Kamailio) -> None:
    trunks = [trunk(f"t{n}", kamailio.address, user=f"user{n}") for n in range(4)]
    async with Agent(trunks=trunks) as agent:
        agent.registrar.start()
        await asyncio.sleep(0.15)
        assert len([view for view in agent.registrar.states.values() if view.state is State.UNREGISTERED]) >= 2
        for each in trunks:
            await in_state(agent, each.name, State.REGISTERED)
        agent.lane.send(AddressChanged())
        agent.registrar.address_changed(["t1"])
        await agent.until(lambda: kamailio.registers("user1", saved=True) >= 2, "a new registration")
        await in_state(agent, "t1", State.REGISTERED)
        assert all(is_in(agent, each.name, State.REGISTERED) for each in trunks)


async def test_more_registrations_than_pjsip_holds_are_refused_and_not_fatal(kamailio: Kamailio) -> None:
    trunks = [trunk(f"t{n}", kamailio.address, user=f"user{n}") for n in range(9)]
    async with Agent(trunks=trunks) as agent:
        agent.registrar.start()
        await in_state(agent, "t6", State.REGISTERED)
        await in_state(agent, "t8", State.UNREACHABLE)
        assert "room for 7 trunks" in agent.registrar.states["t7"].sentence
        assert agent.lost == 0
        # A trunk without a registration has an identity all the same.
        spare = AddAccount(account="spare", id_uri="sip:spare@carrier.test", username="alice", password=PASSWORD)
        agent.lane.send(spare)
        async with Sipp("uas-outbound-answered.xml") as callee:
            route = [f"sip:127.0.0.1:{callee.port};lr;hide"]
            handle = agent.dial("sip:+4930123@carrier.test", account="spare", route=route)
            await agent.fact(Answered, call=handle)
            agent.lane.send(Hangup(call=handle))
            result = await callee.wait()
        result.check()
        (invite,) = result.received("INVITE")
        assert invite.startswith("INVITE sip:+4930123@carrier.test ") and "Route:" not in invite
        assert "sip:spare@carrier.test" in invite


async def test_more_registrations_than_one_lane_holds_are_spread(kamailio: Kamailio) -> None:
    trunks = [trunk(f"t{number}", kamailio.address) for number in range(9)]
    async with Agent(trunks=trunks, max_calls=6) as agent:
        assert agent.lane.registrations == 3 * 7
        agent.lane.on_homeless = agent.registrar.homeless
        agent.registrar.start()

        def all_registered() -> bool:
            return all(view.state is State.REGISTERED for view in agent.registrar.states.values())

        await agent.until(all_registered, "nine registrations", 15)
        before = len(agent.results)
        os.kill(agent.lane.pids["lane-1"], signal.SIGKILL)
        await agent.until(lambda: not all_registered(), "loss of those of the second lane")
        lost = [name for name, view in agent.registrar.states.items() if view.state is not State.REGISTERED]
        assert lost == ["t7", "t8"]
        await agent.until(all_registered, "nine registrations again", 15)
        assert {result.account for result in agent.results[before:]} == set(lost)
