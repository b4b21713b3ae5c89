"""Placing legs: one way after the other, each attempt on record, one cause for the call."""

from sipagent.calls.outbound import Attempt, PlaceRequest
from sipagent.core.events import LegCreated, LegEnded
from sipagent.dialplan.model import HangupStep
from tests.calls.test_registry import World, settle

WAYS = [Attempt("", "sip:x@127.0.0.1"), Attempt("", "sip:x@127.0.0.2")]


def world_with_ways(**limits) -> World:
    world = World([HangupStep()], **limits)
    world.registry._outbound.attempts = lambda _request: WAYS  # type: ignore
    return world


async def test_a_busy_way_is_followed_by_the_next_and_the_call_goes_on_there():
    world = world_with_ways()
    await world.registry.originate("x")
    world.ended(-1, status=486)
    await settle()
    (call,) = world.registry.live
    assert [leg.identity.remote_address for leg in call.legs] == ["127.0.0.1", "127.0.0.2"]
    world.answered(-2)
    await settle()
    world.ended(-2, status=200, was_answered=True)
    await settle(0.2)
    busy, answered = world.of(LegEnded)
    assert (busy.termination.disposition, answered.termination.disposition) == ("busy", "answered")
    assert (world.termination().disposition, world.termination().cause) == ("answered", "normal")
    assert len(world.of(LegCreated)) == world.media.closed == 2


async def test_when_nobody_answers_the_call_ends_as_the_last_way_did():
    world = world_with_ways(ring_timeout_s=0.05)
    await world.registry.originate("x")
    world.ended(-1, status=503)
    await settle(0.3)
    world.ended(-2, status=487)
    await settle(0.2)
    assert [event.termination.cause for event in world.of(LegEnded)] == ["refused", "no_answer"]
    assert world.termination().cause == "no_answer"
    assert world.registry.live == [] and len(world.registry._legs) == 0


async def test_a_hangup_while_the_next_way_is_opened_is_the_operators():
    world = world_with_ways()
    await world.registry.originate("x")
    world.media.delay_s = 0.2
    world.ended(-1, status=486)
    await settle(0.05)
    world.registry.hangup(world.registry.live[0].id)
    await settle(0.4)
    assert (world.termination().by, world.termination().disposition) == ("operator", "cancelled")
    assert world.lane.kinds().count("MakeCall") == 1
    assert world.media.opened == world.media.closed


async def test_a_second_leg_ends_with_the_call_and_its_end_is_not_the_calls():
    world = World([HangupStep()])
    await world.registry.originate("sip:x@127.0.0.1")
    (call,) = world.registry.live
    request = PlaceRequest(target="sip:y@127.0.0.1", ring_timeout_s=0.05)
    leg = await call.outbound.place(call, request)
    assert leg.ended.result().cause == "no_answer" and not call.ended.done()
    world.ended(-2)
    other = await call.outbound.open(call.id, request, WAYS[0])
    call.adopt(other)
    call.outbound.ring(other, request, WAYS[0])
    world.ended(-1, status=486)
    await settle(0.4)
    assert world.termination().cause == "busy"
    assert other.ended.result().cause == "cancelled"
    assert world.registry.live == [] and world.media.opened == world.media.closed == 3
