"""Calls that an earlier main has left, taken up by this one.

Their dialogs are up in the lanes, their RTP in the media process, and what they were at is on disk (`saved`). A call
goes on with the step that was under way:

agent               with everything said so far; a turn under way is lost, and recorded as such
joined with another they have talked on all the time; so have guests, and the callers of two calls that were joined
on hold             it stays, with its music from the beginning
say, play, hold, dial, ring, webhook, wait, stream   the step begins again
streams beside the steps    begin again
press, transfer     is not done twice: the next step follows

Legs that were neither the caller's nor in the room with them are hung up. What cannot be taken up is ended in order,
with NODE_CRASHED and the reason.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sipagent.calls import bridging, holding, orders
from sipagent.calls.bridging import Part
from sipagent.calls.holding import Held
from sipagent.calls.leg import Leg
from sipagent.calls.saved import SavedCall, readable, steps_of
from sipagent.calls.streams.step import listening
from sipagent.core import clock
from sipagent.core.events import (
    CallEnded,
    CallResumed,
    Event,
    Gathered,
    LegEnded,
    MediaFigures,
    PlaybackEnded,
    PlaybackStarted,
    RecordingEnded,
    StreamEnded,
    StreamFigures,
    StreamStarted,
)
from sipagent.core.ids import CallId, GatherId, LegId, RecordingId
from sipagent.core.states import LegState
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.matching import Match
from sipagent.dialplan.model import AgentStep, Dialplan, DialStep, PressStep, Step, StreamStep, TransferStep
from sipagent.media.client import MediaPort
from sipagent.sip import protocol as sip

if TYPE_CHECKING:
    from sipagent.calls.call import Call, Order
    from sipagent.calls.registry import CallRegistry

log = logging.getLogger(__name__)

MAIN_DIED = "the main process died"
END_EXPECTED_S = 1.0  # of a leg that no lane has any more: how it ended is told again


def take_up(
    registry: "CallRegistry",
    left: Sequence[SavedCall],
    lost_at: int,
    replay: Callable[[Event], None],
    *,
    to_end: bool = False,
) -> int:
    """Before lanes and media process are heard again. ``lost_at``: ns, when the earlier main died; ``replay`` is told
    the events that the record may not have; ``to_end``: calls are only ended in order. How many go on.
    """
    standing = registry.services.lane.standing
    rebuilt: dict[str, tuple[Call, SavedCall]] = {}
    for saved in left:
        for event in readable(saved.events):
            replay(event)
        if saved.ended:
            registry.forget(CallId(saved.id))
            continue
        for event in _cut_off(saved):
            registry.services.events.emit(event)
        try:
            call = _rebuilt(registry, saved, standing)
        except Exception:  # one call's file must not cost the others
            log.exception("a saved call cannot be taken up")
            call = None
        if call is None:
            _close(registry, saved, "its line could not be taken over")
            registry.forget(CallId(saved.id))
        else:
            rebuilt[saved.id] = call, saved
    meetings = _meetings(rebuilt)
    going_on = 0
    for call, saved in rebuilt.values():
        try:
            going_on += _go_on(registry, call, saved, lost_at, to_end, meetings.get(saved.id))
        except Exception:
            log.exception("a saved call cannot be gone on with")
            _end(registry, call, "it could not be gone on with")
    known = {leg.handle for leg in registry.legs}
    for handle in standing.keys() - known:
        registry.services.lane.send(sip.Hangup(call=handle))
    return going_on


def _cut_off(saved: SavedCall) -> Iterator[Event]:
    """The ends of what went with the earlier main."""
    at, call_id = clock.now(), CallId(saved.id)
    for began in readable(saved.under_way):
        if isinstance(began, StreamStarted):
            lost = StreamFigures()  # nobody has counted to the end
            yield StreamEnded(
                at=at, call_id=call_id, stream_id=began.stream_id, failed=True, reason=MAIN_DIED, figures=lost
            )
        elif isinstance(began, PlaybackStarted):
            yield PlaybackEnded(
                at=at, call_id=call_id, leg_id=began.leg_id, playback_id=began.playback_id, reason=MAIN_DIED
            )
    for asked in saved.asking:
        gather_id = GatherId(asked)
        yield Gathered(at=at, call_id=call_id, gather_id=gather_id, by="nothing", digits="", text="", reason="ended")


def _rebuilt(registry: "CallRegistry", saved: SavedCall, standing: dict[int, sip.Standing]) -> "Call | None":
    """The call with its legs; None when its line is gone. Raises ValueError about what cannot be read."""
    call_id, match, todo = CallId(saved.id), _match(registry, saved), steps_of(saved.todo)
    legs = _legs(registry, saved)
    caller = legs.get(saved.speaks_on)
    if caller is None:
        return None
    for one in saved.legs:
        if one.id not in legs:
            _close_leg(registry, call_id, one.id, one.state)
    call = registry.register(call_id, caller, match, saved.trunk, saved.voice_app)
    call.started, call.answered_at, call.turns = saved.started, saved.answered_at, saved.turns
    call.variables, call.flows_asked = saved.variables, saved.flows_asked
    call.todo = todo
    for leg in legs.values():
        if leg is not caller:
            call.adopt(leg)
        try:
            _tell(leg, standing.get(leg.handle))
        except Exception:  # the call is up: it ends in order when this was its line
            log.exception("what has happened to a leg cannot be understood")
            leg.hangup(_cancelled(leg))
    return call


def _legs(registry: "CallRegistry", saved: SavedCall) -> dict[str, Leg]:
    """Those whose ports are still open, by id; none without the one that the call speaks on. No port stays claimed
    when it raises."""
    services, call_id = registry.services, CallId(saved.id)
    if all(one.id != saved.speaks_on for one in saved.legs):
        return {}
    ports: list[MediaPort] = []
    legs: dict[str, Leg] = {}
    try:
        for one in sorted(saved.legs, key=lambda leg: leg.id != saved.speaks_on):
            port = services.media.claim(one.slot, one.port)
            if port is None and one.id == saved.speaks_on:
                return {}
            if port is not None:
                ports.append(port)
                legs[one.id] = Leg.restored(one, call_id, services.lane, port, services.events)
    except Exception:
        for port in ports:
            registry.close_port(port)
        raise
    return legs


def _match(registry: "CallRegistry", saved: SavedCall) -> Match:
    """As the dialplan is now; one without agents where it is gone."""
    named = (dialplan for dialplan in registry.dialplans if dialplan.name == saved.dialplan)
    gone = Dialplan(name=saved.dialplan, folder="", routes=[], steps={}, agents={})
    return Match(next(named, gone), saved.route, steps_of(saved.steps))


def _tell(leg: Leg, standing: sip.Standing | None) -> None:
    """What has happened to the dialog since it was written down."""
    if standing is None:
        asyncio.get_running_loop().call_later(END_EXPECTED_S, _lost, leg)
        return
    if standing.answered is not None and not leg.is_answered:
        leg.on_fact(standing.answered)
    if standing.changed is not None:
        leg.on_fact(standing.changed)


def _lost(leg: Leg) -> None:
    if not leg.ended.done():
        leg.lane_lost()


def _meetings(rebuilt: "dict[str, tuple[Call, SavedCall]]") -> "dict[str, Order]":
    """What calls do that were joined with each other, by id."""
    found: dict[str, Order] = {}
    for one, saved in rebuilt.values():
        other, its = rebuilt.get(saved.met, (None, None))
        both_up = other is not None and one.leg.may_go_on and other.leg.may_go_on
        if other is not None and its is not None and both_up and its.met == saved.id and saved.id not in found:
            found[saved.id], found[its.id] = orders.meeting(one, other)
    return found


def _go_on(
    registry: "CallRegistry", call: "Call", saved: SavedCall, lost_at: int, to_end: bool, meeting: "Order | None" = None
) -> bool:
    """Lets the call run, on or to its end."""
    other = next((leg for leg in call.legs if leg.id == saved.joined), None)
    guests = [leg for leg in call.legs if leg.id in saved.guests and leg.may_go_on]
    for leg in call.legs:
        if leg not in (call.leg, other, *guests):
            leg.hangup(_cancelled(leg))
    step = call.todo[0] if call.todo else None
    if saved.recording is not None:
        call.go_on_recording(saved.recording)
    problem = "the main process died again and again" if to_end else _problem(call, step)
    if problem:
        _end(registry, call, problem)
        return False
    if other is None and meeting is None:
        call.leg.hear()
    if other is None:
        call.left = saved.talk if isinstance(step, AgentStep) else None
    else:
        call.room.enter(other)
    for guest in guests:
        call.room.admit(guest, Part(saved.guests[guest.id]))
        call.beside(orders.stays(call, guest), "bring-in")
    for heard in steps_of(saved.listening):
        if isinstance(heard, StreamStep):
            call.beside(listening(call, heard), "stream")
    call.go_on_with(_first(call, other, step, saved.held, meeting))
    now = clock.now()
    registry.services.events.emit(
        CallResumed(
            at=now,
            call_id=call.id,
            gap_ms=max((now.mono - lost_at) / 1e6, 0.0) if lost_at else 0.0,
            step=saved.todo[0].kind.removesuffix("Step").lower() if saved.todo else "",
            turn_lost=call.left is not None and call.left.under_way is not None,
        )
    )
    registry.resume(call)
    return True


def _end(registry: "CallRegistry", call: "Call", why: str) -> None:
    """In order, as any other call."""
    call.go_on_with(_nothing)
    registry.resume(call)
    call.hangup(EndedBy.SYSTEM, Cause.NODE_CRASHED, why)


def _problem(call: "Call", step: Step | None) -> str:
    """Why the call cannot go on; "" when it can."""
    if not call.leg.may_go_on:
        return "it was not answered yet when the main process died"
    if isinstance(step, AgentStep) and step.agent not in call.match.dialplan.agents:
        return "its agent is no longer in the dialplan"
    return ""


def _first(
    call: "Call", other: Leg | None, step: Step | None, music: str | None, meeting: "Order | None"
) -> Callable[[], Awaitable[None]]:
    """What is done before the steps that are left. ``music``: of a hold that is not over, else None."""

    async def work() -> None:
        held = holding.hold(call, Held(music), told=True) if music is not None else None
        if held is not None and (other is not None or meeting is not None):
            call.beside(held, "hold")
        if other is not None:
            last = await bridging.joined(call, other)
            if isinstance(step, DialStep):
                del call.todo[:1]
            elif last.ended.done():  # a transfer's end is the call's
                end = last.ended.result()
                call.hangup(end.by, end.cause, end.detail)
            return
        if meeting is not None:
            await meeting()
        elif held is not None:
            await held
        if isinstance(step, PressStep | TransferStep):
            del call.todo[:1]
        if not isinstance(step, AgentStep):
            await call.leg.port.flush()  # what stood in for us

    return work


async def _nothing() -> None:
    pass


def _cancelled(leg: Leg) -> Termination:
    return Termination(
        disposition=Disposition.ANSWERED if leg.is_answered else Disposition.CANCELLED,
        cause=Cause.NODE_CRASHED,
        by=EndedBy.SYSTEM,
        sip_status=200 if leg.is_answered else 487,
    )


def _close(registry: "CallRegistry", saved: SavedCall, why: str) -> None:
    """On record only: there is nothing to go on with."""
    call_id = CallId(saved.id)
    known = {leg.id for leg in registry.legs}
    for leg in saved.legs:
        if leg.id not in known:
            _close_leg(registry, call_id, leg.id, leg.state)
    if saved.recording is not None:
        registry.services.events.emit(
            RecordingEnded(
                at=clock.now(),
                call_id=call_id,
                leg_id=LegId(saved.recording.leg_id),
                recording_id=RecordingId(saved.recording.id),
                failed=True,
                ms=0,
                size=0,
                sha256="",
                detail="the node ended before the recording did: the file holds what was written until then",
            )
        )
    registry.services.events.emit(
        CallEnded(at=clock.now(), call_id=call_id, termination=_crashed(saved.answered_at is not None, why))
    )


def _close_leg(registry: "CallRegistry", call_id: CallId, leg_id: str, state: LegState) -> None:
    registry.services.events.emit(
        LegEnded(
            at=clock.now(),
            call_id=call_id,
            leg_id=LegId(leg_id),
            termination=_crashed(state is LegState.ANSWERED, "its line could not be taken over"),
            figures=MediaFigures(),
        )
    )


def _crashed(answered: bool, why: str) -> Termination:
    return Termination(
        disposition=Disposition.ANSWERED if answered else Disposition.FAILED,
        cause=Cause.NODE_CRASHED,
        by=EndedBy.SYSTEM,
        detail=why,
    )
