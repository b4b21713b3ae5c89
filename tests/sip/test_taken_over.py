"""What a new main learns of the registrations that the one before has left."""

from typing import Any, cast

from sipagent.core.clock import mono_ns
from sipagent.core.events import Event, RegistrationChanged
from sipagent.core.states import RegistrationState
from sipagent.sip.lanes import LanePool
from sipagent.sip.protocol import AddAccount, LaneReady, Registered, RegistrationResult
from sipagent.sip.registrar import Registrar
from sipagent.sip.settings import TrunkSettings


class Lanes:
    """A pool that has one lane, and what it was left."""

    def __init__(self, registered: list[Registered]) -> None:
        self.ready = LaneReady(pid=7, max_calls=4, host="127.0.0.1", port=5060)
        self.registered = registered
        self.sent: list[Any] = []
        self.send = self.sent.append


class Events(list[Event]):
    def emit(self, event: Event) -> None:
        self.append(event)


def left(status: int, seconds_ago: float) -> Registered:
    result = RegistrationResult(account="pbx", status=status, reason="OK", expires_s=300)
    return Registered(at=mono_ns() - int(seconds_ago * 1e9), result=result)


async def told(registered: list[Registered]) -> tuple[Lanes, RegistrationState, Events]:
    lanes, events = Lanes(registered), Events()
    trunk = TrunkSettings(name="pbx", registrar="192.0.2.1", username="alice", password="secret")
    registrar = Registrar([trunk], cast(LanePool, lanes), events)
    registrar.lane_ready()
    return lanes, registrar.states["pbx"].state, events


async def test_a_registration_that_holds_is_known_and_not_made_anew() -> None:
    lanes, state, events = await told([left(200, seconds_ago=40)])
    assert state is RegistrationState.REGISTERED
    assert [type(command) for command in lanes.sent] == [AddAccount]
    assert [event.state for event in events if isinstance(event, RegistrationChanged)] == [RegistrationState.REGISTERED]


async def test_one_that_was_refused_or_has_run_out_is_tried_again() -> None:
    for registered in ([left(403, seconds_ago=1)], [left(200, seconds_ago=301)], []):
        _, state, events = await told(registered)
        assert state is RegistrationState.UNREGISTERED and not events
