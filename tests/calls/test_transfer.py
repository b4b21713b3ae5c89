"""Transfers of every kind, and dialling: what the lane is told, what is on record, and who is left with whom."""

import asyncio

import pytest

from sipagent.core.events import LegEnded, TransferChanged
from sipagent.dialplan.model import DialStep, HangupStep, RejectStep, TransferStep
from sipagent.sip import protocol
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.trunk_watch import learn_peers
from tests.calls.test_registry import World, settle

TARGET = "sip:desk@127.0.0.9"


async def answered(world: World) -> World:
    """A call that has just come in and been answered, in its first step."""
    world.rings()
    await settle()
    world.answered()
    await until(lambda: {"Refer", "MakeCall"} & set(world.lane.kinds()))
    return world


def steps_of(world: World) -> list[str]:
    return [f"{event.kind} {event.state}" for event in world.of(TransferChanged)]


def hears(leg):
    """The other legs' ports that this one hears."""
    return leg.port.hears


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def rings_out(world: World, count: int = 1) -> None:
    """The INVITE of another leg has left; the first wait has its music made."""
    await until(lambda: world.lane.kinds().count("MakeCall") == count)


def last(world: World, kind):
    return next((command for command in reversed(world.lane.sent) if isinstance(command, kind)), None)


async def test_a_refer_that_came_too_soon_after_the_answer_is_sent_once_more():
    world = await answered(World([TransferStep(target=TARGET, via="refer")]))
    world.refer(400, final=True)
    await until(lambda: world.lane.kinds().count("Refer") == 2)
    world.refer(400, final=True)
    await settle()
    assert world.lane.kinds().count("Refer") == 2
    assert steps_of(world) == ["blind requested", "blind referred", "blind failed"]
    await world.registry.drain()


async def test_headers_for_the_target_are_not_left_to_a_refer():
    world = await answered(World([TransferStep(target=TARGET, headers={"X-Ticket": "7"})]))
    assert "Refer" not in world.lane.kinds()
    placed = last(world, protocol.MakeCall)
    assert (placed.target, placed.headers) == (TARGET, {"X-Ticket": "7"})
    await world.registry.drain()


async def test_a_refused_refer_becomes_a_bridge():
    world = await answered(World([TransferStep(target=TARGET)]))
    world.refer(405, final=True)
    await rings_out(world)
    assert last(world, protocol.MakeCall).target == TARGET
    world.answered(-1)
    await settle()
    (call,) = world.registry.live
    caller, desk = call.legs
    assert hears(caller) == (desk.port,) and hears(desk) == (caller.port,)
    world.ended(-1, status=200, was_answered=True)
    await settle(0.05)
    assert hears(caller) == ()
    world.ended(1, was_answered=True)
    await settle()
    assert steps_of(world) == [
        "blind requested",
        "blind referred",
        "blind refused",
        "blind dialling",
        "blind consulting",
        "bridge completed",
    ]
    assert (world.termination().cause, world.termination().by) == ("normal", "callee")
    assert world.media.opened == world.media.closed == 2


@pytest.mark.parametrize(("policy", "refers"), [("refer", 1), ("bridge", 0)])
async def test_the_policy_says_which(policy, refers):
    sip = SipSettings(transfer=policy)
    world = await answered(World([TransferStep(target=TARGET), HangupStep()], sip=sip))
    world.refer(405, final=True)
    await settle()
    kinds = world.lane.kinds()
    assert (kinds.count("Refer"), kinds.count("MakeCall")) == (refers, 1 - refers)
    await world.registry.drain()


async def test_a_trunks_policy_is_before_the_nodes():
    trunks = (TrunkSettings(name="carrier", peers=["127.0.0.1"], domain="carrier.test", transfer="bridge"),)
    world = World([TransferStep(target="+4930")], trunks)
    await learn_peers(world.registry.trunks)
    await answered(world)
    await settle()
    call = last(world, protocol.MakeCall)
    assert (call.account, call.target) == ("carrier", "sip:+4930@carrier.test")
    await world.registry.drain()
    assert steps_of(world)[-1] == "bridge abandoned"


async def test_attended_with_replaces():
    world = await answered(World([TransferStep(target=TARGET, kind="attended", whisper="")]))
    assert "Refer" not in world.lane.kinds()
    world.answered(-1)
    await settle()
    refer = last(world, protocol.Refer)
    assert refer == protocol.Refer(
        call=1, target="sip:desk@127.0.0.9", replaces=protocol.Replaces("id-of-peer", "theirs", "ours")
    )
    world.refer(200, final=True)
    await settle(0.05)
    world.ended(-1, status=200, was_answered=True)
    world.ended(1, was_answered=True)
    await settle()
    assert steps_of(world)[-2:] == ["attended referred", "attended completed"]
    assert world.termination().cause == "transferred"


async def test_an_attended_one_whose_refer_is_refused_is_bridged_with_the_leg_that_is_up():
    world = await answered(World([TransferStep(target=TARGET, kind="attended")]))
    world.answered(-1)
    await settle()
    world.refer(603, final=True)
    await settle(0.05)
    assert steps_of(world)[-2:] == ["attended refused", "bridge completed"]
    assert world.lane.kinds().count("MakeCall") == 1
    world.ended(1, was_answered=True)
    await settle(0.4)
    caller, desk = sorted(world.of(LegEnded), key=lambda event: event.termination.by)
    assert [leg.termination.disposition for leg in (caller, desk)] == ["answered", "answered"]
    assert (world.termination().by, world.lane.kinds()[-1]) == ("caller", "Hangup")


@pytest.mark.parametrize(
    ("status", "reason"),
    [(486, "the line is busy"), (480, "nobody answers there"), (603, "they cannot take the call now")],
)
async def test_a_target_that_is_not_reached_says_why_and_the_call_goes_on(status, reason):
    world = await answered(World([TransferStep(target=TARGET, via="bridge"), HangupStep()]))
    await settle()
    world.ended(-1, status=status)
    await settle(0.4)
    failed = world.of(TransferChanged)[-1]
    assert (failed.state, failed.sip_status, failed.reason) == ("failed", status, reason)
    assert failed.other_leg_id == world.of(LegEnded)[0].leg_id
    assert world.termination().by == "agent"


async def test_a_caller_who_hangs_up_while_the_target_rings_has_abandoned_it():
    world = await answered(World([TransferStep(target=TARGET, via="bridge")]))
    await settle()
    world.ended(1, was_answered=True)
    await settle(0.4)
    assert steps_of(world)[-1] == "bridge abandoned"
    assert world.lane.kinds()[-1] == "Hangup"  # the CANCEL of the other leg
    assert [event.termination.cause for event in world.of(LegEnded)].count("cancelled") == 1
    assert world.termination().by == "caller"


async def test_dial_rings_the_caller_and_answers_when_somebody_does():
    world = World([DialStep(to=("sip:a@127.0.0.1", "sip:b@127.0.0.2")), HangupStep()])
    world.rings()
    await settle()
    assert "Ring" in world.lane.kinds() and "Answer" not in world.lane.kinds()
    world.ended(-1, status=486)
    await settle()
    world.answered(-2)
    await settle(0.05)
    assert world.lane.kinds()[-1] == "Answer"
    world.answered(1)
    await settle(0.05)
    (call,) = world.registry.live
    assert hears(call.leg) == (call.legs[-1].port,)
    world.ended(-2, status=200, was_answered=True)
    await settle(0.4)
    assert world.termination().by == "agent"  # the next step


@pytest.mark.parametrize(("status", "taken"), [(486, "busy"), (480, "nobody"), (404, "other"), (503, "other")])
async def test_what_follows_when_nobody_can_be_reached(status, taken):
    answers = {"busy": 486, "nobody": 480, "other": 404}
    others = {name: [RejectStep(status=code)] for name, code in answers.items()}
    dial = DialStep(to="sip:a@127.0.0.1", on_busy="busy", on_no_answer="nobody", on_failure="other")
    world = World([dial], others=others)
    world.rings()
    await settle()
    world.ended(-1, status=status)
    await settle()
    world.ended(1, status=answers[taken])
    await settle()
    assert world.termination().sip_status == answers[taken]


async def test_steps_that_name_each_other_come_to_an_end():
    dial = DialStep(to="nobody", on_failure="s")  # no trunk: there is not even a leg
    world = World([dial])
    world.rings()
    await settle(0.3)
    assert world.registry.live == [] or world.registry.live[0].ended.done()
    await world.registry.drain()
    assert world.lane.kinds().count("MakeCall") == 0


async def test_all_at_once():
    world = World([DialStep(to=("sip:a@127.0.0.1", "sip:b@127.0.0.2", "sip:c@127.0.0.3"), at_once=True)])
    world.rings()
    await rings_out(world, 3)
    world.ended(-3, status=486)
    world.answered(-2)
    await settle(0.05)
    world.answered(1)
    await until(lambda: hears(world.registry.live[0].leg))
    assert last(world, protocol.Hangup).call == -1
    (call,) = world.registry.live
    assert hears(call.leg) == (call.legs[2].port,)
    world.ended(-1)
    await world.registry.drain()


async def test_a_caller_who_was_never_answered_gets_what_we_got():
    world = World([DialStep(to="sip:a@127.0.0.1")])
    world.rings()
    await settle()
    world.ended(-1, status=486)
    await until(lambda: world.lane.kinds()[-1] == "Reject")
    assert last(world, protocol.Reject).status == 486
    world.ended(1, status=486)
    await settle()
    assert (world.termination().disposition, world.termination().by) == ("busy", "callee")


async def test_two_who_answer_at_once():
    world = World([DialStep(to=("sip:a@127.0.0.1", "sip:b@127.0.0.2"), at_once=True)])
    world.rings()
    await rings_out(world, 2)
    world.answered(-1)
    world.answered(-2)
    await until(lambda: "Answer" in world.lane.kinds())
    (call,) = world.registry.live
    assert len([leg for leg in call.legs[1:] if leg.ended.done()]) == 1
    assert world.lane.kinds().count("Hangup") == 1
    await world.registry.drain()


async def test_a_number_is_referred_to_as_the_callers_trunk_writes_it():
    trunk = TrunkSettings(
        name="carrier", peers=["127.0.0.1"], domain="carrier.test", country_code="49", number_format="international"
    )
    world = World([TransferStep(target="+4930123456", music="silence")], (trunk,))
    await learn_peers(world.registry.trunks)
    world.rings(source="127.0.0.1:49152")
    await settle()
    world.answered()
    await until(lambda: "Refer" in world.lane.kinds())
    assert last(world, protocol.Refer).target == "sip:004930123456@carrier.test"
    world.ended(1, was_answered=True)
    await settle()
