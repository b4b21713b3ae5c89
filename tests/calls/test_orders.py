"""What operators and peers want of a call that is up, and the watchdog."""

from typing import Any

import pytest

from sipagent.backend.mutations import LiveMutations
from sipagent.calls import orders
from sipagent.calls.bridging import Part
from sipagent.calls.outbound import PlaceRequest
from sipagent.core.errors import CapacityError, NotNow
from sipagent.core.events import LegEnded, Problem, TransferChanged
from sipagent.core.termination import EndedBy
from sipagent.dialplan.model import AnswerStep, DialStep, HoldStep, TransferSpec
from sipagent.sip import protocol
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.trunk_watch import learn_peers
from tests.calls.test_registry import OFFER, World, settle
from tests.calls.test_transfer import last, rings_out, steps_of, until

WAITING = [AnswerStep(), HoldStep(seconds=60, music="silence")]
BRIDGED = SipSettings(transfer="bridge")


async def up(world: World, call: int = 1):
    """An inbound call in its hold step."""
    world.rings(call)
    await settle()
    world.answered(call)
    await settle(0.05)
    world.registry.on_fact(protocol.MediaChanged(call=call, sdp=OFFER, answer=OFFER, offered=True))
    await settle(0.02)
    return world.registry.live[-1]


def hears(leg):
    return leg.port.hears


async def test_hold_and_resume():
    world = World(WAITING)
    call = await up(world)
    with pytest.raises(NotNow, match="not on hold"):
        orders.resume(call)
    orders.hold(call, "silence")
    await until(lambda: world.lane.kinds().count("Resume") == 1)  # of the hold step that was left
    world.registry.on_fact(protocol.OfferRefused(call=1, status=488, reason=""))
    await until(lambda: world.lane.kinds().count("Hold") == 2)
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: call.held is not None)
    with pytest.raises(NotNow, match="already"):
        orders.hold(call, "")
    orders.resume(call)
    await until(lambda: world.lane.kinds().count("Resume") == 2)
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: world.lane.kinds().count("Hold") == 3)  # the step it was at
    await world.registry.drain()


async def test_an_ordered_transfer_that_fails_leads_back_to_the_step():
    world = World(WAITING, sip=SipSettings(transfer="refer"))
    call = await up(world)
    orders.hand_over(call, TransferSpec(target="sip:desk@127.0.0.9"))
    await until(lambda: "Resume" in world.lane.kinds())
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: "Refer" in world.lane.kinds())
    world.refer(486, final=True)
    await until(lambda: world.lane.kinds().count("Hold") == 2)
    assert world.of(TransferChanged)[-1].reason == "the line is busy"
    await world.registry.drain()


async def test_nothing_is_ordered_of_a_call_that_is_not_answered():
    world = World(WAITING)
    await world.registry.originate("sip:x@127.0.0.1")
    (call,) = world.registry.live
    with pytest.raises(NotNow, match="not answered"):
        orders.hold(call, "")
    with pytest.raises(NotNow, match="not answered"):
        orders.hand_over(call, TransferSpec(target="sip:desk@127.0.0.9"))
    await world.registry.drain()
    with pytest.raises(NotNow, match="over"):
        orders.hold(call, "")


async def test_a_call_that_is_up_keeps_its_dialplan():
    world = World(WAITING)
    call = await up(world)
    before = call.match
    with pytest.raises(NotNow):
        await LiveMutations(world.registry).answer(call.id, before.route)
    assert call.match is before
    await world.registry.drain()


async def test_two_calls_joined_end_together():
    world = World(WAITING)
    one, other = await up(world, 1), await up(world, 2)
    orders.bridge(one, other)
    await until(lambda: world.lane.kinds().count("Resume") == 2)
    for handle in (1, 2):
        world.registry.on_fact(protocol.MediaChanged(call=handle, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: hears(one.leg) == (other.leg.port,) and hears(other.leg) == (one.leg.port,))
    with pytest.raises(NotNow, match="talking with somebody"):
        orders.hand_over(one, TransferSpec(target="sip:desk@127.0.0.9"))
    world.registry.on_fact(protocol.DigitByInfo(call=1, digit="7", duration_ms=0))
    await until(lambda: other.leg.port.pressed == ["7"])
    orders.hold(one, "silence")
    await until(lambda: hears(one.leg) == hears(other.leg) == () and world.lane.kinds()[-1] == "Hold")
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await settle(0.02)
    orders.resume(one)
    await until(lambda: world.lane.kinds()[-1] == "Resume")
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: hears(one.leg) == (other.leg.port,))
    world.ended(2, was_answered=True)
    await until(lambda: one.ended.done())
    assert one.ended.result().detail == "the call it was joined with has ended"
    world.ended(1, was_answered=True)
    await until(lambda: not world.registry.live)


@pytest.mark.parametrize("part", list(Part))
async def test_somebody_is_brought_in(part):
    world = World(WAITING)
    call = await up(world)
    orders.bring_in(call, PlaceRequest(target="sip:boss@127.0.0.1", beside=call.leg.port), part)
    await rings_out(world)
    world.answered(-1)
    await until(lambda: len(call.legs) == 2 and hears(call.legs[1]))
    guest = call.legs[1]
    assert hears(guest) == guest.port.hears_said == (call.leg.port,)
    assert call.leg.port.hears_said == ()
    world.registry.on_fact(protocol.DigitByInfo(call=1, digit="7", duration_ms=0))
    await settle(0.05)
    assert guest.port.pressed == (["7"] if part is Part.CONFERENCE else [])
    assert hears(call.leg) == ((guest.port,) if part is Part.CONFERENCE else ())
    assert call.hangup_leg(guest.id) and not call.hangup_leg(guest.id)
    await until(lambda: hears(call.leg) == () and hears(guest) == ())
    assert guest.ended.result().by == "operator"
    assert not call.ended.done()
    await world.registry.drain()


@pytest.mark.parametrize("before", [True, False])
async def test_who_is_brought_into_two_joined_calls_hears_both_sides(before):
    """``before`` they are joined, or after."""
    world = World(WAITING)
    one: Any = await up(world, 1)
    other: Any = await up(world, 2)
    guests: list[Any] = []

    async def brought_in(part: Part) -> None:
        orders.bring_in(one, PlaceRequest(target="sip:boss@127.0.0.1", beside=one.leg.port), part)
        await until(lambda: world.lane.kinds().count("MakeCall") > len(guests))
        world.answered(-1 - len(guests))
        await until(lambda: len(one.legs) == 2 + len(guests) and hears(one.legs[-1]))
        guests.append(one.legs[-1])

    async def joined() -> None:
        orders.bridge(one, other)
        await until(lambda: world.lane.kinds().count("Resume") == 2)
        for handle in (1, 2):
            world.registry.on_fact(protocol.MediaChanged(call=handle, sdp=OFFER, answer=OFFER, offered=True))
        await until(lambda: other.leg.port in hears(one.leg))

    if not before:
        await joined()
    await brought_in(Part.LISTEN)
    await brought_in(Part.WHISPER)
    if before:
        await joined()
    listens, whispers = (guest.port for guest in guests)
    a, b = (call.leg.port for call in (one, other))
    assert set(a.hears) == {b} and set(b.hears) == {a, whispers}
    assert set(listens.hears) == {a, b, whispers} and set(listens.hears_said) == {a, b}
    assert set(whispers.hears) == {a, b}
    orders.hold(other, "silence")
    await until(lambda: b.hears == ())
    assert a.hears == () and set(listens.hears) == {a, whispers}, "those who are not held hear each other"
    world.registry.on_fact(protocol.MediaChanged(call=2, sdp=OFFER, answer=OFFER, offered=True))
    orders.resume(other)
    await until(lambda: world.lane.kinds()[-1] == "Resume")
    world.registry.on_fact(protocol.MediaChanged(call=2, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: set(listens.hears) == {a, b, whispers} and set(b.hears) == {a, whispers})
    await world.registry.drain()


async def test_calls_in_different_media_processes_are_joined_by_a_way_between(monkeypatch):
    world = World(WAITING)
    monkeypatch.setattr(world.media, "beside", lambda _one, _other: False)
    one, other = await up(world, 1), await up(world, 2)
    orders.bridge(one, other)
    await until(lambda: world.lane.kinds().count("Resume") == 2)
    for handle in (1, 2):
        world.registry.on_fact(protocol.MediaChanged(call=handle, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: hears(one.leg) and hears(other.leg))
    (near,), (far,) = hears(one.leg), hears(other.leg)
    assert near is not far and near.hears == (one.leg.port,) and far.hears == (other.leg.port,)
    world.registry.on_fact(protocol.DigitByInfo(call=1, digit="7", duration_ms=0))
    await until(lambda: near.pressed == ["7"])
    world.ended(2, was_answered=True)
    await until(lambda: one.ended.done())
    world.ended(1, was_answered=True)
    await until(lambda: not world.registry.live)
    assert world.media.opened == world.media.closed == 4


async def test_calls_that_cannot_be_joined_go_on_as_they_were(monkeypatch):
    world = World(WAITING)
    monkeypatch.setattr(world.media, "beside", lambda _one, _other: False)
    one, other = await up(world, 1), await up(world, 2)

    async def full(*_args: object, **_more: object) -> None:
        raise CapacityError("all slots are in use")

    monkeypatch.setattr(world.media, "open", full)
    orders.bridge(one, other)
    await until(lambda: world.lane.kinds().count("Resume") == 2)
    for handle in (1, 2):
        world.registry.on_fact(protocol.MediaChanged(call=handle, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: world.lane.kinds().count("Hold") == 4)
    assert [(event.where, event.what) for event in world.of(Problem)] == [("join", "all slots are in use")] * 2
    assert not one.room.joined and not one.ended.done() and not other.ended.done()
    await world.registry.drain()


async def talking(trunks: tuple[TrunkSettings, ...], to: str = "200"):
    """A caller and the desk, joined by a dial step; the desk's leg goes by a trunk."""
    world = World([AnswerStep(), DialStep(to=(to,), trunk="pbx")], trunks)
    await learn_peers(world.registry.trunks)
    world.rings(1)
    await settle()
    world.answered(1)
    await rings_out(world)
    world.answered(-1)
    (call,) = world.registry.live
    await until(lambda: call.room.other is not None)
    return world, call, call.room.other


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("second", [True, False])
async def test_one_of_two_who_talk_sends_us_elsewhere(monkeypatch, second: bool, at_once: bool):
    """``second``: whom we have dialled; ``at_once``: it hangs up before we are there."""
    monkeypatch.setattr("sipagent.calls.referred.BYE_EXPECTED_S", 0.1)
    trunk = TrunkSettings(name="pbx", peers=["127.0.0.1"], domain="pbx.test", follow_refer=("2??",), register=False)
    world, call, desk = await talking((trunk,))
    caller = call.leg
    who = -1 if second else 1
    assert protocol.AllowRefer(call=who) in world.lane.sent
    world.registry.on_fact(protocol.TransferRequested(call=who, target="sip:299@elsewhere.test"))
    if at_once:
        world.ended(who, was_answered=True)
    await until(lambda: world.lane.kinds().count("MakeCall") == 2)
    assert not call.ended.done()
    world.answered(-2)
    await until(lambda: len(call.legs) == 3 and hears(call.legs[2]))
    new, stays = call.legs[2], caller if second else desk
    assert hears(new) == (stays.port,) and hears(stays) == (new.port,)
    if not at_once:
        assert protocol.NotifyTransfer(call=who, status=200, final=True) in world.lane.sent
        await until(lambda: protocol.Hangup in map(type, world.lane.sent))
        world.ended(who, was_answered=True)
    await settle(0.1)
    assert not call.ended.done() and world.registry.live == [call]
    world.ended(-2, was_answered=True)
    await until(call.ended.done)
    world.ended(1 if second else -1, was_answered=True)
    await until(lambda: not world.registry.live)
    assert steps_of(world) == ["received requested", "received dialling", "received completed"]


async def test_nobody_is_reached_and_the_two_talk_on():
    trunk = TrunkSettings(name="pbx", peers=["127.0.0.1"], domain="pbx.test", follow_refer=("2??",), register=False)
    world, call, desk = await talking((trunk,))
    world.registry.on_fact(protocol.TransferRequested(call=-1, target="sip:299@elsewhere.test"))
    await until(lambda: world.lane.kinds().count("MakeCall") == 2)
    world.registry.on_fact(protocol.TransferRequested(call=-1, target="sip:298@elsewhere.test"))
    assert last(world, protocol.NotifyTransfer).status == 503, "one after the other"
    world.ended(-2, status=486)
    await until(lambda: protocol.NotifyTransfer(call=-1, status=486, final=True) in world.lane.sent)
    assert call.room.other is desk and hears(desk) == (call.leg.port,)
    world.ended(-1, was_answered=True)
    await until(lambda: call.ended.done() or "Hangup" in world.lane.kinds())
    world.ended(1, was_answered=True)
    await until(lambda: not world.registry.live)


async def test_a_refer_is_followed_only_where_the_trunk_may_send_us(monkeypatch):
    monkeypatch.setattr("sipagent.calls.referred.BYE_EXPECTED_S", 0.1)
    trunk = TrunkSettings(name="pbx", peers=["127.0.0.1"], domain="pbx.test", follow_refer=("2??",))
    world = World(WAITING, (trunk,))
    await learn_peers(world.registry.trunks)
    call = await up(world)
    assert protocol.AllowRefer(call=1) in world.lane.sent
    world.registry.on_fact(protocol.TransferRequested(call=1, target="sip:+4990012345@elsewhere.test"))
    assert last(world, protocol.NotifyTransfer) == protocol.NotifyTransfer(call=1, status=603, final=True)
    replaces = protocol.Replaces("abc@pbx", "1", "2")
    world.registry.on_fact(protocol.TransferRequested(call=1, target="sip:200@elsewhere.test", replaces=replaces))
    await until(lambda: "Resume" in world.lane.kinds())
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await rings_out(world)
    placed = last(world, protocol.MakeCall)
    assert (placed.target, placed.account) == ("sip:200@pbx.test", "pbx")
    assert placed.headers["Replaces"] == "abc@pbx;to-tag=1;from-tag=2"
    world.answered(-1)
    await until(lambda: call.leg is call.legs[1])
    assert last(world, protocol.NotifyTransfer).status == 200
    await until(lambda: "Hangup" in world.lane.kinds())  # after a moment for the peer to do it
    world.ended(1, was_answered=True)
    await until(lambda: world.of(LegEnded))
    assert world.of(LegEnded)[0].termination.cause == "transferred" and not call.ended.done()
    world.ended(-1, status=200, was_answered=True)
    await until(lambda: not world.registry.live)
    assert (world.termination().by, world.termination().cause) == ("callee", "normal")
    assert steps_of(world) == [
        "received requested",
        "received failed",
        "received requested",
        "received dialling",
        "received completed",
    ]


@pytest.mark.parametrize("reached", [True, False])
async def test_whoever_sends_us_on_may_hang_up_before_we_are_there(reached):
    trunk = TrunkSettings(name="pbx", peers=["127.0.0.1"], domain="pbx.test", follow_refer=("2??",))
    world = World(WAITING, (trunk,))
    await learn_peers(world.registry.trunks)
    call = await up(world)
    world.registry.on_fact(protocol.TransferRequested(call=1, target="sip:200@elsewhere.test"))
    world.ended(1, was_answered=True)
    await until(lambda: "Resume" in world.lane.kinds() or "MakeCall" in world.lane.kinds())
    await rings_out(world)
    assert not call.ended.done() and world.registry.live == [call]
    if reached:
        world.answered(-1)
        await until(lambda: call.leg is call.legs[1])
        await until(lambda: world.of(LegEnded))
        assert not call.ended.done()
    world.ended(-1, status=200 if reached else 486, was_answered=reached)
    await until(lambda: not world.registry.live)
    assert world.termination().by == ("callee" if reached else "caller")
    assert "NotifyTransfer" not in world.lane.kinds()
    assert steps_of(world)[-1] == ("received completed" if reached else "received failed")


async def test_without_such_numbers_a_refer_is_not_even_looked_at():
    world = World(WAITING)
    await up(world)
    assert "AllowRefer" not in world.lane.kinds()
    await world.registry.drain()


def replacing(world: World, source: str = "127.0.0.1:5080", **tags) -> None:
    named = protocol.Replaces("id-of-peer", tags.get("to", "ours"), "theirs")
    world.registry.on_incoming(
        protocol.IncomingCall(
            call=7,
            from_uri="sip:c@b",
            from_user="c",
            to_user="1",
            sip_call_id="y",
            source=source,
            sdp=OFFER,
            replaces=named,
        )
    )


async def test_somebody_takes_the_callers_place():
    world = World(WAITING)
    call = await up(world)
    replacing(world)
    await until(lambda: "Resume" in world.lane.kinds())
    world.registry.on_fact(protocol.MediaChanged(call=1, sdp=OFFER, answer=OFFER, offered=True))
    await until(lambda: world.lane.kinds()[-2:] == ["SetMedia", "Answer"] and last(world, protocol.Answer).call == 7)
    world.answered(7)
    await until(lambda: call.leg.handle == 7)
    assert last(world, protocol.Hangup).call == 1
    world.ended(1, was_answered=True)
    await settle()
    assert world.registry.live == [call] and not call.ended.done()
    world.ended(7, was_answered=True)
    await until(lambda: not world.registry.live)
    assert world.termination().by == "caller"
    assert steps_of(world) == ["received requested", "received completed"]


async def test_nobody_takes_a_place_from_elsewhere_or_without_its_tags():
    world = World(WAITING)
    await up(world)
    replacing(world, source="192.0.2.66:5060")
    replacing(world, to="guessed")
    assert [(command.call, command.status) for command in world.lane.sent if isinstance(command, protocol.Reject)] == [
        (7, 481),
        (7, 481),
    ]
    await world.registry.drain()


async def test_the_watchdog_ends_what_should_have_ended(monkeypatch):
    monkeypatch.setattr("sipagent.calls.registry.WATCH_EVERY_S", 0.05)
    monkeypatch.setattr("sipagent.calls.call.GRACE_S", 0.2)
    world = World(WAITING, end_timeout_s=0.1)
    call = await up(world)

    async def never(*_args: object) -> None:
        await until(lambda: False)

    monkeypatch.setattr(call, "_close_leg", never)
    call.hangup(EndedBy.AGENT)
    world.registry._spawn(world.registry.watch(), "watch")
    await until(lambda: not world.registry.live)
    assert [event.where for event in world.of(Problem)] == ["watchdog"]
    assert world.termination().by == "agent"  # as it was decided
    await world.registry.drain()
