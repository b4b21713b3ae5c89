"""Placing legs: one way after the other, each attempt on record, one cause for the call."""

import pytest

from sipagent.calls.outbound import Attempt, Outbound, PlaceRequest
from sipagent.core.errors import CapacityError, ConfigError
from sipagent.core.events import LegCreated, LegEnded, LegHeld, Problem
from sipagent.dialplan.model import HangupStep, HoldStep, PressStep, RingStep
from sipagent.sip import protocol, sdp
from sipagent.sip.servers import Server
from sipagent.sip.settings import TrunkSettings
from tests.calls.test_registry import OFFER, World, settle

WAYS = [Attempt("", "sip:x@127.0.0.1"), Attempt("", "sip:x@127.0.0.2")]


def world_with_ways(**limits) -> World:
    world = World([HangupStep()], **limits)
    world.registry._outbound.attempts = lambda _request: WAYS  # type: ignore
    return world


TLS_TRUNK = TrunkSettings(name="pbx", domain="pbx.example", transport="tls", username="alice", password="secret")


def behind(*trunks: TrunkSettings) -> Outbound:
    """Whose TLS trunks have a server that is trusted."""
    world = World([HangupStep()], trunks=trunks)
    for trunk in trunks:
        health = world.registry.trunks.health[trunk.name]
        if trunk.secure:
            server = Server("192.0.2.1", 5061, "tls")
            health.located([server], "", 0.0)
            health.looked_at(server, True, "", 0.0)
    return world.registry._outbound


@pytest.mark.parametrize("trunk", ["", "pbx"])
@pytest.mark.parametrize(
    "uri",
    [
        "sip:7@PBX.example",
        "sip:7@pbx.example;transport=tls",
        "sips:7@pbx.example",
        "sip:7:password@pbx.example;user=phone",
    ],
)
async def test_a_uri_at_a_trunk_goes_as_the_trunk_does(trunk: str, uri: str):
    outbound = behind(TLS_TRUNK)
    (way,) = outbound.attempts(PlaceRequest(target=uri, trunk=trunk))
    assert (way.account, way.uri) == ("pbx", "sip:7@pbx.example;transport=tls")


@pytest.mark.parametrize("trunk", ["", "pbx"])
@pytest.mark.parametrize(
    "uri",
    [
        "sip:7@pbx.example;transport=udp",
        "sip:7@pbx.example;transport=TCP",
        "sips:7@pbx.example;maddr=192.0.2.66",
        "sip:7@pbx.example;MAddr=192.0.2.66",
        "sip:pbx.example",
    ],
)
async def test_a_uri_does_not_lead_a_trunks_call_elsewhere_or_into_the_clear(trunk: str, uri: str):
    outbound = behind(TLS_TRUNK)
    with pytest.raises(ConfigError):
        outbound.attempts(PlaceRequest(target=uri, trunk=trunk))


async def test_a_uri_at_the_host_of_two_trunks_goes_by_the_one_of_its_transport():
    plain = TrunkSettings(name="plain", domain="pbx.example")
    outbound = behind(TLS_TRUNK, plain)
    ways = {
        uri: [(way.account, way.uri) for way in outbound.attempts(PlaceRequest(target=uri))]
        for uri in ("sip:7@pbx.example;transport=udp", "sips:7@pbx.example", "sip:7@other.example;maddr=192.0.2.1")
    }
    assert list(ways.values()) == [
        [("plain", "sip:7@pbx.example")],
        [("pbx", "sip:7@pbx.example;transport=tls")],
        [("", "sip:7@other.example;maddr=192.0.2.1")],
    ]


async def test_a_way_in_trouble_is_followed_by_the_next_and_the_call_goes_on_there():
    world = world_with_ways()
    await world.registry.originate("x")
    world.ended(-1, status=503)
    await settle()
    (call,) = world.registry.live
    assert [leg.identity.remote_address for leg in call.legs] == ["127.0.0.1", "127.0.0.2"]
    world.answered(-2)
    await settle()
    world.ended(-2, status=200, was_answered=True)
    await settle(0.2)
    failed, answered = world.of(LegEnded)
    assert (failed.termination.sip_status, answered.termination.disposition) == (503, "answered")
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
    world.ended(-1, status=503)
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


@pytest.mark.parametrize("dtmf", ["info", "rfc4733"])
async def test_keys_are_pressed_as_the_trunk_wants_them_and_a_refusal_is_on_record(dtmf: str):
    trunk = TrunkSettings(name="t", domain="127.0.0.1", register=False, dtmf=dtmf)  # type: ignore
    world = World([PressStep(digits="1,2")], trunks=(trunk,))
    await world.registry.originate("100", trunk="t")
    no_events = OFFER.replace(" 101", "").replace("a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n", "")
    world.registry.on_fact(protocol.Answered(call=-1, sdp=no_events, sip_call_id="x"))
    await settle()
    infos = [command.body for command in world.lane.sent if isinstance(command, protocol.SendInfo)]
    if dtmf == "info":
        assert infos == ["Signal=1\r\nDuration=160\r\n"]
        world.registry.on_fact(protocol.InfoAnswered(call=-1, status=415))
        await settle()
    problems = [(problem.where, problem.what) for problem in world.of(Problem)]
    told = "answered a digit by INFO with 415" if dtmf == "info" else "has not agreed"
    assert len(problems) == 1 and problems[0][0] == "press" and told in problems[0][1]
    await world.registry.drain()


def redirecting_world(redirects: str) -> World:
    trunk = TrunkSettings(name="t", domain="127.0.0.1", register=False, redirects=redirects)  # type: ignore
    return World([HangupStep()], trunks=(trunk,))


def sent_on(world: World, call: int, *targets: str) -> None:
    world.registry.on_fact(protocol.Redirected(call=call, status=302, targets=targets))
    world.ended(call, status=302)


def dialled(world: World) -> list[str]:
    return [command.target for command in world.lane.sent if isinstance(command, protocol.MakeCall)]


async def test_a_redirection_is_followed_where_the_trunk_does_to_each_place_once():
    world = redirecting_world("follow")
    await world.registry.originate("100", trunk="t")
    first = dialled(world)[0]
    sent_on(world, -1, "tel:200", "sip:300@127.0.0.1", first)
    await settle()
    sent_on(world, -2, "sip:300@127.0.0.1", *(f"sip:{n}@127.0.0.1" for n in range(400, 420)))
    await settle()
    for call in range(-3, -10, -1):
        world.ended(call, status=480)
        await settle(0.1)
    users = [target.partition("@")[0] for target in dialled(world)]
    assert users == ["sip:100", "sip:200", "sip:400", "sip:401", "sip:402", "sip:300"]
    assert world.registry.live == [] and world.media.opened == world.media.closed


async def test_a_redirection_does_not_lead_out_of_tls():
    trunk = TrunkSettings(name="t", domain="127.0.0.1", register=False, redirects="follow", transport="tls")
    world = World([HoldStep(seconds=60)], trunks=[trunk])
    server = Server("127.0.0.1", 5061, "tls")
    world.registry.trunks.health["t"].located([server], "", 1.0)
    world.registry.trunks.health["t"].looked_at(server, True, "", 1.0)
    await world.registry.originate("100", trunk="t")
    places = ["sip:200@127.0.0.1", "sip:201@127.0.0.1;transport=tcp", "sips:300@127.0.0.1", "tel:400"]
    sent_on(world, -1, *places, "sip:500@127.0.0.1;transport=TLS")
    for call in range(-2, -5, -1):
        await settle()
        world.ended(call, status=480)
    await settle(0.3)
    users = [target.partition("@")[0].partition(":")[2] for target in dialled(world)]
    assert users == ["100", "300", "400", "500"]
    assert world.registry.trunks.counters["t"].refused_redirects == 2
    (problem,) = world.of(Problem)
    assert problem.what == "trunk `t` is spoken to over TLS, and its redirection leads to 2 places without"


async def test_a_redirection_ends_the_call_where_the_trunk_refuses_it():
    world = redirecting_world("refuse")
    await world.registry.originate("100", trunk="t")
    sent_on(world, -1, "sip:200@127.0.0.1")
    await settle(0.3)
    assert len(dialled(world)) == 1
    assert (world.termination().cause, world.termination().sip_status) == ("refused", 302)


@pytest.mark.parametrize(
    ("why", "answered", "disposition", "cause"),
    [
        ("no_ack", False, "failed", "no_ack"),
        ("no_refresh", True, "answered", "session_expired"),
        ("unreachable", True, "answered", "unreachable"),
    ],
)
async def test_what_was_nobodys_wish_has_a_cause_of_its_own(why: str, answered: bool, disposition: str, cause: str):
    world = World([RingStep(seconds=60)] if not answered else [HoldStep(seconds=60)])
    world.rings()
    await settle()
    if answered:
        world.answered()
        await settle()
    fact = protocol.Ended(call=1, status=408, reason="", by_remote=False, was_answered=answered, why=why)  # type: ignore
    world.registry.on_fact(fact)
    await settle(0.3)
    end = world.termination()
    assert (end.disposition, end.cause, end.by) == (disposition, cause, "system")


@pytest.mark.parametrize("status", [486, 404, 480, 603])
async def test_what_the_callee_says_itself_is_the_end_of_it(status):
    world = world_with_ways()
    await world.registry.originate("x")
    world.ended(-1, status=status)
    await settle(0.2)
    assert world.termination().sip_status == status
    assert world.lane.kinds().count("MakeCall") == 1


def two_trunks(**first) -> World:
    trunks = (
        TrunkSettings(name="one", domain="192.0.2.1", **first),
        TrunkSettings(name="two", domain="192.0.2.2", priority=1),
    )
    return World([HangupStep()], trunks)


@pytest.mark.parametrize(
    ("target", "account", "placed_uri"),
    [
        ("sip:100@192.0.2.2", "two", "sip:100@192.0.2.2"),
        ("SIP:100@192.0.2.1;user=phone", "one", "sip:100@192.0.2.1"),
        ("sip:100@192.0.2.1:5070", "", "sip:100@192.0.2.1:5070"),
        ("sip:100@192.0.2.9", "", "sip:100@192.0.2.9"),
    ],
)
async def test_a_uri_goes_by_the_trunk_at_its_host(target, account, placed_uri):
    world = two_trunks(rates={"+49": 0.01})
    await world.registry.originate(target)
    (placed,) = [call for call in world.lane.sent if isinstance(call, protocol.MakeCall)]
    assert (placed.account, placed.target) == (account, placed_uri)
    await world.registry.drain()


async def test_a_number_goes_by_the_next_trunk_where_the_first_one_fails():
    world = two_trunks()
    await world.registry.originate("+4930123456")
    world.ended(-1, status=500)
    await settle()
    assert [call.account for call in world.lane.sent if isinstance(call, protocol.MakeCall)] == ["one", "two"]
    world.answered(-2)
    await settle()
    world.ended(-2, status=503, was_answered=True)
    await settle(0.2)
    assert world.lane.kinds().count("MakeCall") == 2, "never after an answer"
    assert world.termination().disposition == "answered"
    assert world.registry.trunks.in_use("one") == world.registry.trunks.in_use("two") == {"inbound": 0, "outbound": 0}


async def test_a_480_goes_on_only_where_the_policy_says_so():
    world = two_trunks(failover_on=("480",))
    await world.registry.originate("+4930123456")
    world.ended(-1, status=480)
    await settle()
    assert world.lane.kinds().count("MakeCall") == 2
    await world.registry.drain()


async def test_a_trunk_without_a_free_channel_is_passed_over():
    world = two_trunks(max_calls_out=1)
    await world.registry.originate("+4930123456")
    await world.registry.originate("+4930123456")
    assert [call.account for call in world.lane.sent if isinstance(call, protocol.MakeCall)] == ["one", "two"]
    with pytest.raises(CapacityError, match="all channels of trunk one"):
        await world.registry.originate("+4930123456", trunk="one")
    assert world.registry.trunks.counters["one"].refused_channels == 2
    await world.registry.drain()


async def test_a_server_that_says_nothing_is_left_for_the_next():
    world = two_trunks(silent_s=0.1)
    await world.registry.originate("+4930123456")
    await settle(0.3)
    assert [call.account for call in world.lane.sent if isinstance(call, protocol.MakeCall)] == ["one", "two"]
    world.registry.on_fact(protocol.Trying(call=-2))
    await settle(0.1)
    assert len(world.registry.live) == 1
    await world.registry.drain()


async def test_a_number_that_no_rate_names_is_not_called():
    world = World([HangupStep()], (TrunkSettings(name="one", domain="192.0.2.1", rates={"+49": 0.01}),))
    with pytest.raises(ConfigError, match="no trunk takes this number"):
        await world.registry.originate("+33123456789")
    await world.registry.originate("+33123456789", trunk="one")  # asked for by name
    await world.registry.drain()


async def test_a_caller_who_holds_is_on_record_and_back():
    world = World([HoldStep(seconds=60)])
    world.rings()
    await settle()
    world.answered()
    await settle()
    answer = sdp.build_offer(host="127.0.0.1", port=4000, session_id=1)
    for direction in ("sendonly", "inactive", "sendrecv", "recvonly"):
        offer = OFFER.replace("a=sendrecv", f"a={direction}")
        world.registry.on_fact(protocol.MediaChanged(call=1, sdp=offer, answer=answer))
    assert [event.held for event in world.of(LegHeld)] == [True, False]


async def test_a_call_carries_the_headers_that_the_trunk_lets_out_and_says_who_calls():
    world = two_trunks(
        headers_out=("X-Campaign",), identity_headers=("P-Asserted-Identity",), extra_headers={"X-Account": "7"}
    )
    await world.registry.originate("+4930123456", from_number="+491", withhold=True, headers={"x-campaign": "spring"})
    (placed,) = [call for call in world.lane.sent if isinstance(call, protocol.MakeCall)]
    assert placed.from_uri == '"Anonymous" <sip:anonymous@anonymous.invalid>'
    assert placed.headers == {
        "x-campaign": "spring",
        "X-Account": "7",
        "P-Asserted-Identity": "<sip:+491@192.0.2.1>",
        "Privacy": "id",
    }
    with pytest.raises(ConfigError, match="SIP's own"):
        await world.registry.originate("+4930123456", headers={"Route": "<sip:x>"})
    with pytest.raises(ConfigError, match="`headers_out`"):
        await world.registry.originate("+4930123456", headers={"Subject": "x"})
    await world.registry.drain()
