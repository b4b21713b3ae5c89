"""Admission, races and endings of calls, with the lane's facts told by the test and a media port that does nothing."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sipagent.calls import flows
from sipagent.calls.recording import Recordings
from sipagent.calls.registry import CallRegistry
from sipagent.calls.services import Services
from sipagent.calls.settings import LimitSettings, RecordingSettings
from sipagent.calls.steps import MAX_TURNOFFS
from sipagent.calls.streams.connection import Connector
from sipagent.conversation.prosody import NoJudge
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import CapacityError, ConfigError
from sipagent.core.events import (
    CallCreated,
    CallEnded,
    CallerTold,
    CallRefused,
    Event,
    LegAnswered,
    LegEnded,
    MediaFigures,
    Problem,
    TransferChanged,
)
from sipagent.core.rate import RateLimit
from sipagent.dialplan.model import (
    AnswerStep,
    Dialplan,
    GotoStep,
    HangupStep,
    PlayStep,
    RejectStep,
    RouteSpec,
    TransferStep,
    WebhookStep,
)
from sipagent.sip import digest, protocol, sdes, sdp
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.trunk_watch import learn_peers
from sipagent.sip.trunks import Trunks
from sipagent.web.client import WebClient
from sipagent.web.guard import Guard

OFFER = sdp.build_offer(host="127.0.0.1", port=4000, session_id=1)


class Port:
    def __init__(self, media: "Media") -> None:
        self.media = media
        self.host, self.port = "127.0.0.1", 5000
        self.ipv6 = False
        self.rate = 8000
        self.written = self.played = self.queued = 0
        self.on_frames = self.on_silent = self.on_lost = None
        self.taps: list[object] = []
        self.hears: tuple[Port, ...] = ()
        self.hears_said: tuple[Port, ...] = ()
        self.pressed: list[str] = []

    def connect(self, *_args, **_options) -> None: ...

    def hear(self, *others: "Port", said: Sequence["Port"] = (), keys: bool | None = None) -> None:
        self.hears, self.hears_said = others, tuple(said)

    def write(self, pcm) -> int:
        return len(pcm)

    def press(self, digits: str, duration_ms: int, gap_ms: int) -> None:
        self.pressed.append(digits)

    async def flush(self) -> int:
        return 0

    def figures(self) -> MediaFigures:
        return MediaFigures(packets_in=1)

    async def close(self) -> MediaFigures:
        self.media.closed += 1
        return self.figures()


class Media:
    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.delay_s = 0.02
        self.ipv6 = False

    async def open(self, far: tuple[str, int] | None = None, beside: Port | None = None, *, ipv6: bool = False) -> Port:
        await asyncio.sleep(self.delay_s)
        self.opened += 1
        return Port(self)

    def beside(self, one: Port, other: Port) -> bool:
        return True


class Lane:
    def __init__(self) -> None:
        self.ready = SimpleNamespace(max_calls=4, codecs=("PCMU", "PCMA"))
        self.sent: list[protocol.AnyCommand] = []
        self.handles = 0

    def send(self, command: protocol.AnyCommand) -> None:
        self.sent.append(command)

    def next_handle(self) -> int:
        self.handles -= 1
        return self.handles

    def kinds(self) -> list[str]:
        return [type(command).__name__ for command in self.sent]


class World:
    """A registry with everything around it scripted."""

    def __init__(self, steps, trunks=(), others=None, agents=None, agent=None, sip=None, **limits) -> None:
        """``others``: further steps by name; ``agent``: the brain of each of the ``agents``."""
        self.lane, self.media = Lane(), Media()
        self.events: list[Event] = []
        plan = Dialplan(
            name="d",
            folder=".",
            routes=[RouteSpec(steps="s")],
            steps={"s": steps, **(others or {})},
            agents=agents or {},
        )
        services = Services(
            lane=self.lane,  # type: ignore[arg-type]
            media=self.media,  # type: ignore[arg-type]
            events=self,
            voice_for=lambda _names, _ledger: None,  # type: ignore[arg-type, return-value]
            speech_for=lambda _spec, _ledger: (None, None),  # type: ignore[arg-type, return-value]
            turn_judge=NoJudge(),
            make_vad=None,  # type: ignore[arg-type]
            make_agent=agent,
            sip=sip or SipSettings(),
            trunks=Trunks(trunks),
            conversation=ConversationSettings(),
            limits=LimitSettings(**{"end_timeout_s": 0.2, "drain_s": 1.0, **limits}),
            web=WebClient(Guard()),
            key_of=lambda _app: b"k" * 32,
            streams=Connector(Guard(), 5.0),
            recordings=Recordings(RecordingSettings(), Path(), self),
            media_host=lambda _peer: "127.0.0.1",
        )
        self.registry = CallRegistry(services, [plan])

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def rings(
        self, call: int = 1, offer: str = OFFER, source: str = "127.0.0.1:5060", to: str = "1", **more: Any
    ) -> None:
        self.registry.on_incoming(
            protocol.IncomingCall(
                call=call,
                from_uri="sip:a@b",
                from_user="a",
                to_user=to,
                sip_call_id="x",
                source=source,
                sdp=offer,
                **more,
            )
        )

    def answered(self, call: int = 1) -> None:
        self.registry.on_fact(
            protocol.Answered(
                call=call,
                sdp=OFFER,
                sip_call_id="id-of-peer",
                local_tag="ours",
                remote_tag="theirs",
                remote_target="sip:desk@127.0.0.9",
            )
        )

    def ended(self, call: int = 1, *, status: int = 487, was_answered: bool = False) -> None:
        self.registry.on_fact(
            protocol.Ended(call=call, status=status, reason="", by_remote=True, was_answered=was_answered)
        )

    def refer(self, status: int, *, final: bool) -> None:
        self.registry.on_fact(protocol.TransferProgress(call=1, status=status, reason="", final=final))

    def termination(self):
        (ended,) = self.of(CallEnded)
        return ended.termination


async def settle(seconds: float = 0.1) -> None:
    """Lets what is under way go on for so long; threads that are late on a busy machine are waited for."""
    for part in (seconds, 0.03):
        await asyncio.to_thread(int)
        await asyncio.sleep(part)


@pytest.mark.parametrize("offer", [OFFER, ""])
async def test_a_call_cancelled_while_its_port_is_opened_is_over(offer):
    world = World([AnswerStep(), HangupStep()])
    world.rings(offer=offer)
    world.ended()
    await settle()
    assert (world.termination().disposition, world.termination().by) == ("cancelled", "caller")
    assert world.registry.live == [] and "Answer" not in world.lane.kinds()
    assert world.media.opened == world.media.closed == 1


async def test_a_lane_lost_while_a_port_is_opened_ends_the_call():
    world = World([AnswerStep(), HangupStep()])
    world.rings()
    world.registry.on_lane_lost(frozenset({1}))
    await settle()
    assert world.termination().cause == "lane_died"
    assert world.registry.live == []


async def test_a_hangup_between_our_answer_and_the_ack():
    world = World([AnswerStep(), HangupStep()])
    world.rings()
    await settle()
    assert world.lane.kinds()[-1] == "Answer"
    assert world.registry.hangup(world.registry.live[0].id)
    await settle(0.4)
    assert world.lane.kinds()[-1] == "Reject"  # the lane makes a BYE of it once the ACK is there
    assert world.termination().by == "operator"
    assert world.registry.hangup("call_nobody") is False


async def test_an_answer_that_crosses_our_cancel_answers_nothing():
    world = World([HangupStep()])
    await world.registry.originate("sip:x@127.0.0.1", ring_timeout_s=0.05)
    await settle(0.12)
    assert world.lane.kinds()[-1] == "Hangup"
    world.answered(-1)
    world.ended(-1, was_answered=True)
    await settle(0.3)
    assert not world.of(LegAnswered)
    assert (world.termination().disposition, world.termination().cause) == ("no_answer", "no_answer")


async def test_an_outbound_leg_gets_its_sip_call_id():
    world = World([HangupStep()])
    await world.registry.originate("sip:x@127.0.0.1")
    world.answered(-1)
    await settle()
    assert world.of(LegAnswered)[0].sip_call_id == "id-of-peer"


@pytest.mark.parametrize(
    ("told", "state", "cause"),
    [
        ([(202, False), (200, True)], "completed", "transferred"),
        ([(202, False)], "unknown", "normal"),
        ([], "unknown", "normal"),
    ],
)
async def test_a_transfer_has_an_end_even_when_the_peer_leaves_in_it(told, state, cause):
    world = World([TransferStep(target="200", music="silence")])
    world.rings()
    await settle()
    world.answered()
    await settle(0.05)
    for status, final in told:
        world.refer(status, final=final)
    world.ended(was_answered=True)
    await settle()
    assert world.of(TransferChanged)[-1].state == state
    assert (world.termination().cause, world.termination().by) == (cause, "caller")


async def test_a_transfer_during_which_the_operator_hangs_up_has_an_end():
    world = World([TransferStep(target="200", music="silence")])
    world.rings()
    await settle()
    world.answered()
    await settle(0.05)
    world.registry.hangup(world.registry.live[0].id)
    await settle(0.4)
    assert world.of(TransferChanged)[-1].state == "unknown"


async def test_a_transfer_that_is_never_answered_fails_and_the_call_goes_on():
    world = World([TransferStep(target="200", music="silence"), HangupStep()], transfer_timeout_s=0.05)
    world.rings()
    await settle()
    world.answered()
    await settle(0.4)
    assert (world.of(TransferChanged)[-1].state, world.of(TransferChanged)[-1].sip_status) == ("failed", 408)
    assert world.termination().by == "agent"


async def test_a_failing_step_is_reported_once_and_ends_the_call():
    world = World([PlayStep(file="missing.wav")])
    world.rings()
    await settle()
    world.answered()
    await settle(0.5)
    assert len(world.of(Problem)) == 1
    assert (world.termination().cause, world.termination().by) == ("error", "system")


async def test_a_flow_may_be_asked_more_often_than_steps_may_name_each_other(monkeypatch):
    asked = []

    async def answers(_call, step):
        asked.append(step)
        return [step] if len(asked) <= 2 * MAX_TURNOFFS else []

    monkeypatch.setattr(flows, "ask", answers)
    world = World([WebhookStep(url="http://a.test/")])
    world.rings()
    async with asyncio.timeout(10):
        while not world.of(CallEnded):
            await settle()
    assert len(asked) == 2 * MAX_TURNOFFS + 1 and not world.of(Problem)


async def test_steps_that_go_round_in_circles_are_a_problem_and_come_to_an_end():
    world = World([GotoStep(steps="s"), GotoStep(steps="s")])
    world.rings()
    async with asyncio.timeout(10):
        while not world.of(CallEnded):
            await settle()
    (problem,) = world.of(Problem)
    assert problem.where == "steps" and str(MAX_TURNOFFS) in problem.what


async def test_the_end_is_when_it_was_decided_not_when_it_was_written():
    world = World([AnswerStep(), PlayStep(file="missing.wav")], end_timeout_s=0.5)
    world.rings()
    await settle()
    world.answered()
    await settle(1.0)  # the BYE is never answered: the record is written after end_timeout_s
    (leg,), (call,), (problem,) = world.of(LegEnded), world.of(CallEnded), world.of(Problem)
    assert leg.at == call.at
    assert problem.at.ms_since(call.at) < 200


async def test_more_calls_than_allowed_are_refused():
    world = World([AnswerStep(), HangupStep()], max_calls=2)
    for handle in (1, 2, 3):
        world.rings(handle)
    await settle()
    (refused,) = world.of(CallRefused)
    assert refused.sip_status == 486
    assert len(world.registry.live) == 2
    with pytest.raises(CapacityError):
        await world.registry.originate("sip:x@127.0.0.1")


async def test_a_reject_step():
    world = World([RejectStep(status=480)])
    world.rings()
    await settle()
    world.ended(status=480)
    await settle()
    assert world.lane.sent[-1] == protocol.Reject(call=1, status=480)
    assert (world.termination().disposition, world.termination().sip_status) == ("rejected", 480)


async def test_draining_ends_what_is_up_and_lets_nobody_in():
    world = World([AnswerStep(), HangupStep()])
    world.rings(1)
    await settle()
    world.answered(1)
    world.rings(2)  # still opening
    await world.registry.drain()
    world.rings(3)
    assert [e.termination.cause for e in world.of(CallEnded)].count("node_stopped") >= 1
    assert len(world.of(CallEnded)) == len(world.of(CallCreated)) == 2
    assert world.of(CallRefused)[-1].sip_status == 503
    with pytest.raises(CapacityError):
        await world.registry.originate("sip:x@127.0.0.1")


async def test_only_trunks_may_call_and_several_may_share_an_address():
    trunks = (
        TrunkSettings(name="one", registrar="127.0.0.1", username="100"),
        TrunkSettings(name="two", registrar="127.0.0.1", username="200"),
    )
    world = World([AnswerStep(), HangupStep()], trunks)
    assert await learn_peers(world.registry.trunks)
    world.rings(1, source="192.0.2.1:5060")
    world.rings(2, to="200")
    world.rings(3, to="elsewhere")
    await settle()
    assert [e.sip_status for e in world.of(CallRefused)] == [403]
    assert [e.trunk for e in world.of(CallCreated)] == ["two", "one"]


async def test_a_trunk_that_requires_srtp():
    trunks = (TrunkSettings(name="safe", peers=["127.0.0.1"], domain="sip.carrier.test", srtp="required"),)
    world = World([AnswerStep(), HangupStep()], trunks)
    await learn_peers(world.registry.trunks)
    world.rings(1)
    await settle()
    assert (world.termination().cause, world.termination().sip_status) == ("no_codec", 488)
    peer = sdp.Terms(srtp="optional", keys=sdes.new_keys())
    world.rings(2, offer=sdp.build_offer(host="127.0.0.1", port=4000, session_id=1, terms=peer))
    await settle()
    (answer,) = [command for command in world.lane.sent if isinstance(command, protocol.Answer)]
    agreed = sdp.negotiate(sdp.parse(answer.sdp), peer, offered=True)
    await world.registry.originate("+4930123")
    (call,) = [command for command in world.lane.sent if isinstance(command, protocol.MakeCall)]
    offered = sdp.parse(call.sdp).media[0]
    assert agreed.crypto is not None and offered.protocol == "RTP/SAVP" and len(offered.crypto) == 2
    assert agreed.crypto.remote_key not in [line.key for line in offered.crypto]  # each call has its own
    world.ended(2, was_answered=True)
    await world.registry.drain()


async def test_a_trunks_password_is_for_its_own_host():
    trunks = (TrunkSettings(name="carrier", registrar="sip.carrier.test", username="u", password="p"),)
    world = World([HangupStep()], trunks)
    with pytest.raises(ConfigError, match="does not serve the host"):
        await world.registry.originate("sip:x@evil.test", trunk="carrier")
    await world.registry.originate("+4930123", from_number="+491")
    call = world.lane.sent[-1]
    assert isinstance(call, protocol.MakeCall)
    assert (call.account, call.target) == ("carrier", "sip:+4930123@sip.carrier.test")
    assert call.from_uri == "<sip:+491@sip.carrier.test>"
    await world.registry.drain()


async def test_who_calls_is_told_in_e164_with_what_the_trunk_says_of_it():
    trunks = (TrunkSettings(name="pbx", peers=["127.0.0.0/8"], country_code="49", headers_in=("X-Campaign",)),)
    world = World([HangupStep()], trunks)
    headers = {
        "P-Asserted-Identity": '"Ann" <sip:030123456@pbx>',
        "Diversion": "<sip:00441632960000@pbx>;reason=no-answer",
        "X-Campaign": "spring",
        "X-Other": "not kept",
    }
    world.rings(1, to="0301234567", headers=headers)
    await settle()
    (created,), (told,) = world.of(CallCreated), world.of(CallerTold)
    assert (created.from_number, created.to_number, created.trunk) == ("+4930123456", "+49301234567", "pbx")
    assert (told.name, told.asserted, told.headers) == ("Ann", True, {"X-Campaign": "spring"})
    assert told.diversions == ({"number": "+441632960000", "reason": "no-answer"},)
    await world.registry.drain()


async def test_a_trunks_limits_are_its_own_and_are_given_back():
    trunks = (TrunkSettings(name="pbx", peers=["127.0.0.1"], max_calls_in=1, calls_per_second_in=2.0),)
    world = World([RejectStep(480)], trunks)
    world.rings(1)
    world.rings(2)
    await settle()
    refused = [command for command in world.lane.sent if isinstance(command, protocol.Reject) and command.call == 2]
    assert [command.status for command in refused] == [486]
    world.ended(1, status=480)
    await settle()
    world.rings(3)
    world.rings(4)
    await settle()
    assert [(e.sip_status, e.reason) for e in world.of(CallRefused)][0] == (486, "all channels of trunk pbx in use")
    assert len(world.of(CallCreated)) == 2
    await world.registry.drain()
    assert world.registry.trunks.in_use("pbx") == {"inbound": 0, "outbound": 0}


async def test_a_caller_without_a_known_address_proves_itself_by_digest():
    trunks = (TrunkSettings(name="road", accept="digest", inbound_username="u", inbound_password="p"),)
    world = World([HangupStep()], trunks)
    world.rings(1)
    (challenge,) = [command for command in world.lane.sent if isinstance(command, protocol.Reject)]
    assert challenge.status == 401 and len(challenge.challenges) == 2
    fields = digest.parse_credentials(challenge.challenges[0])
    assert fields is not None
    fields |= {"username": "u", "uri": "sip:1@node", "nc": "00000001", "cnonce": "c", "qop": "auth"}
    fields["response"] = digest.response(hashlib.sha256, fields, digest.Account("u", "p"), "INVITE", "sipagent")
    text = "Digest " + ", ".join(f'{name}="{value}"' for name, value in fields.items())
    world.rings(2, authorization=[text], request_uri="sip:1@node")
    await settle()
    assert [e.trunk for e in world.of(CallCreated)] == ["road"]
    world.rings(3, authorization=[text.replace("00000001", "00000002")], request_uri="sip:1@node")
    await settle()
    assert [(e.sip_status, e.reason) for e in world.of(CallRefused)] == [(403, "wrong user or password")]
    await world.registry.drain()


async def test_a_flood_of_strangers_does_not_fill_the_record():
    world = World([HangupStep()], (TrunkSettings(name="t", peers=["127.0.0.1"]),))
    await learn_peers(world.registry.trunks)
    for handle in range(1, 500):
        world.rings(handle, source="192.0.2.1:5060")
    assert len(world.of(CallRefused)) <= 6
    assert world.lane.kinds().count("Reject") == 499


def test_rate_limit():
    limit = RateLimit(per_second=2)
    second = 1_000_000_000
    assert [limit.admit(10 * second) for _ in range(4)] == [True, True, False, False]
    assert limit.take_suppressed() == 2
    assert limit.admit(10 * second + second // 2) is True
    assert limit.take_suppressed() == 0
