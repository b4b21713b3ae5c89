"""Several lanes behind the edge: calls spread over them, and what one that dies takes with it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from sipagent.core.errors import SetupError
from sipagent.core.events import ProcessEnded, ProcessStarted
from sipagent.core.states import RegistrationState as State
from sipagent.sip.edge import EdgeMissing, Installation
from sipagent.sip.protocol import Answered, Ended, Hangup, IncomingCall, Reject
from tests.peers import sipp
from tests.peers.kamailio import Kamailio
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent
from tests.sip.test_registrar import in_state, trunk

pytestmark = pytest.mark.peer
WANTED = 10  # calls: of the wheel's lanes with 4 each three are needed, and one is spare


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Agent]:
    async with Agent(max_calls=WANTED) as agent:
        yield agent


@pytest.fixture
def many(shared: Agent) -> Agent:
    """The lanes of the module, with nothing remembered of the test before."""
    shared.facts.clear()
    shared.lost_calls = frozenset()
    shared.on_call = shared.answer
    return shared


def lanes(agent: Agent) -> dict[str, int]:
    return {name: pid for name, pid in agent.lane.pids.items() if name.startswith("lane")}


async def calls(agent: Agent, count: int, *, duration_ms: int = 1500) -> sipp.SippResult:
    return await sipp.run(
        "uac-inbound-answered.xml",
        target=agent.address,
        calls=count,
        rate=20,
        limit=count,
        duration_ms=duration_ms,
        timeout_s=20,
    )


async def whole_again(agent: Agent, capacity: int) -> None:
    await agent.until(lambda: agent.lane.ready is not None and agent.lane.ready.max_calls == capacity, "capacity")


@pytest.mark.asyncio(loop_scope="module")
async def test_as_many_lanes_as_the_calls_need_and_a_spare_one(many: Agent) -> None:
    ready = many.lane.ready
    assert ready is not None
    each = ready.max_calls // len(lanes(many))
    assert ready.max_calls >= WANTED + each and ready.max_calls - each < WANTED + each
    assert ready.port == many.settings.port
    assert {"zygote", "edge"} < many.lane.pids.keys()
    result = await calls(many, WANTED)
    result.check()
    assert len(many.all(Answered)) == WANTED
    # Every one came from SIPp, through whichever lane, and a call's handle is like no other's.
    (via,) = {line for line in result.sent("INVITE")[0].splitlines() if line.startswith("Via:")}
    assert {fact.source for fact in many.all(IncomingCall)} == {via.split()[2].split(";")[0]}
    assert len({fact.call for fact in many.all(IncomingCall)}) == WANTED


@pytest.mark.asyncio(loop_scope="module")
async def test_beyond_all_lanes_there_is_no_capacity_and_then_there_is(many: Agent) -> None:
    ready = many.lane.ready
    assert ready is not None
    async with Sipp(
        "uac-inbound-agent-hangs-up.xml", target=many.address, calls=ready.max_calls, rate=40, timeout_s=30
    ) as callers:
        await many.fact(Answered, nth=ready.max_calls)
        (await sipp.run("uac-inbound-over-limit-expect-503.xml", target=many.address)).check()
        for fact in many.all(Answered):
            many.lane.send(Hangup(call=fact.call))
        (await callers.wait()).check()
    (await calls(many, ready.max_calls, duration_ms=500)).check()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_lane_that_dies_takes_only_its_own_calls_and_the_capacity_comes_back(many: Agent) -> None:
    ready = many.lane.ready
    assert ready is not None
    each = ready.max_calls // len(lanes(many))
    async with Sipp(
        "uac-inbound-agent-hangs-up.xml", target=many.address, calls=WANTED, rate=40, timeout_s=30
    ) as callers:
        await many.fact(Answered, nth=WANTED)
        victim = lanes(many)["lane-1"]
        os.kill(victim, signal.SIGKILL)
        await many.until(lambda: bool(many.lost_calls), "loss")
        assert 1 <= len(many.lost_calls) <= each
        ended = [event for event in many.events if isinstance(event, ProcessEnded)][-1]
        assert (ended.pid, ended.calls_affected) == (victim, len(many.lost_calls))
        await whole_again(many, ready.max_calls)
        # The others are there, and can be hung up.
        alive = [fact.call for fact in many.all(Answered) if fact.call not in many.lost_calls]
        for call in alive:
            many.lane.send(Hangup(call=call))
        for call in alive:
            await many.ended(call)
        await asyncio.sleep(0.5)  # each BYE is answered: a caller that is gone would hold its slot for 32 s
        await callers.stop()
    assert many.all(Ended) and not {fact.call for fact in many.all(Ended)} & many.lost_calls
    # The dead lane's calls no longer count: every slot of every lane can be had.
    (await calls(many, ready.max_calls)).check()


@pytest.mark.asyncio(loop_scope="module")
async def test_an_edge_that_dies_costs_no_call(many: Agent) -> None:
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=many.address, timeout_s=30) as caller:
        call = await many.fact(Answered)
        old = many.lane.pids["edge"]
        os.kill(old, signal.SIGKILL)
        await many.until(lambda: many.lane.pids.get("edge", old) != old, "a new edge")
        await many.until(lambda: isinstance(many.events[-1], ProcessStarted), "the edge's start")
        assert len(psutil.Process(many.lane.pids["edge"]).children()) > 3
        left = [p for p in psutil.process_iter(["status"]) if os.getpgid(p.pid) == old]
        assert not [p for p in left if p.info["status"] != psutil.STATUS_ZOMBIE], "its children are gone with it"
        many.lane.send(Hangup(call=call.call))
        (await caller.wait()).check()
    (await calls(many, WANTED, duration_ms=300)).check()


@pytest.mark.asyncio(loop_scope="module")
async def test_what_main_refuses_is_asked_of_no_other_lane(many: Agent) -> None:
    many.on_call = lambda call: many.lane.send(Reject(call=call.call, status=486))
    (await sipp.run("uac-inbound-over-limit-expect-486.xml", target=many.address)).check()
    assert len(many.all(IncomingCall)) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_out_go_through_the_edge_and_are_spread(many: Agent) -> None:
    async with Sipp("uas-outbound-answered.xml", calls=WANTED, timeout_s=30) as callee:
        placed = [many.dial(callee.uri) for _ in range(WANTED)]
        await many.fact(Answered, nth=WANTED)
        for call in placed:
            many.lane.send(Hangup(call=call))
        result = await callee.wait()
    result.check()
    (contact,) = {line for line in result.received("INVITE")[0].splitlines() if line.startswith("Contact:")}
    assert many.address in contact
    async with Sipp("uas-outbound-callee-hangs-up.xml") as callee:
        assert (await many.ended(many.dial(callee.uri))).by_remote
        (await callee.wait()).check()


async def test_a_registration_moves_to_another_lane_and_stays_one_binding() -> None:
    async with Kamailio() as registrar:
        async with Agent(trunks=[trunk("kam", registrar.address)], max_calls=WANTED) as agent:
            agent.registrar.start()
            await in_state(agent, "kam", State.REGISTERED)
            assert registrar.registers("alice", saved=True) == 1
            ready = agent.lane.ready
            assert ready is not None
            os.kill(ready.pid, signal.SIGKILL)
            await agent.until(lambda: registrar.registers("alice", saved=True) == 2, "a registration by another lane")
            await in_state(agent, "kam", State.REGISTERED)
            (
                await sipp.run("uac-inbound-answered.xml", target=registrar.address, service="alice", duration_ms=50)
            ).check()
            assert len(agent.all(IncomingCall)) == 1, "one binding, so one call"
            os.kill(lanes(agent)["lane-3"], signal.SIGKILL)  # holds no registration
            await asyncio.sleep(0.5)
            assert registrar.registers("alice", saved=True) == 2
        assert "SAVED REGISTER alice expires=0" in registrar.log()


async def test_without_kamailio_one_lane_serves_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> Installation:
        raise EdgeMissing("Kamailio is not installed (apt-get install kamailio kamailio-tls-modules)")

    monkeypatch.setattr(Installation, "find", missing)
    async with Agent(max_calls=WANTED) as agent:
        assert len(lanes(agent)) == 1 and "apt-get install kamailio" in agent.lane.notice
        assert f"{WANTED} calls" in agent.lane.notice and "carries 4" in agent.lane.notice
        (await calls(agent, 1, duration_ms=50)).check()
    alone = Agent(host6="::1")
    with pytest.raises(SetupError, match="IPv6.*apt-get"):
        await alone.lane.start()


async def test_one_lane_is_enough_for_few_calls_and_leaves_no_edge() -> None:
    async with Agent(max_calls=2) as agent:
        assert agent.lane.pids.keys() == {"zygote", "lane"} and agent.lane.notice == ""
        (await calls(agent, 2, duration_ms=50)).check()


async def test_close_leaves_no_process() -> None:
    async with Agent(max_calls=WANTED) as agent:
        processes = [psutil.Process(pid) for pid in agent.lane.pids.values()]
        processes += [child for process in processes for child in process.children(recursive=True)]
    assert len(processes) > 6
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive
