"""The step `stream`: a call's audio to an application, and what follows when that ends."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from sipagent.calls.keypad import DigitsRefused
from sipagent.calls.leg import Leg
from sipagent.calls.streams.audiosocket import AudioSocket
from sipagent.calls.streams.connection import StreamFailed
from sipagent.calls.streams.dialect import AGENT, CALLER, Dialect, Facts
from sipagent.calls.streams.stream import Stream, Terms
from sipagent.calls.streams.teler import Teler
from sipagent.calls.streams.twilio import Twilio, signature
from sipagent.core import clock
from sipagent.core.events import Problem, StreamEnded, StreamStarted
from sipagent.core.ids import StreamId, new_stream_id
from sipagent.core.templates import fill
from sipagent.dialplan.model import StreamStep

if TYPE_CHECKING:
    from sipagent.calls.call import Call

log = logging.getLogger(__name__)

MAX_LISTENERS = 4  # at one call
MAX_PRESSING = 32  # keys of an application that wait; more are left out
ACCOUNT = "default"
_TRACKS = {"caller": (CALLER,), "agent": (AGENT,), "both": (CALLER, AGENT)}
DIALECTS: dict[str, Callable[[Facts], Dialect]] = {"teler": Teler, "twilio": Twilio, "audiosocket": AudioSocket}


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    failed: bool = False  # the application was never reached, or was lost
    reason: str = ""


async def stream(call: "Call", step: StreamStep) -> StreamOutcome:
    """Until the application is through or lost; of one that only listens, at once. The call must be answered."""
    if step.direction == "both":
        return await _streamed(call, step)
    if len(call.leg.port.taps) >= MAX_LISTENERS:
        return _refused(call, f"{MAX_LISTENERS} applications listen to this call already")
    call.beside(listening(call, step), "stream")
    return StreamOutcome()


async def listening(call: "Call", step: StreamStep) -> None:
    """Beside the steps, until the application is through or lost, or the call ends."""
    call.listening.append(step)
    call.progressed()
    try:
        await _streamed(call, step)
    finally:
        call.listening.remove(step)
        call.progressed()


async def _streamed(call: "Call", step: StreamStep) -> StreamOutcome:
    leg, stream_id = call.leg, new_stream_id()
    made = _made(call, leg, step, stream_id)
    outcome = StreamOutcome(reason="the call has left it")
    told = False

    def started() -> None:
        nonlocal told
        if not told:
            told = True
            url = URL(step.url)
            call.services.events.emit(
                StreamStarted(
                    at=clock.now(),
                    call_id=call.id,
                    stream_id=stream_id,
                    dialect=step.spoken,
                    direction=step.direction,
                    host=f"{url.host}:{url.port}",
                )
            )

    try:
        with _attached(leg, made, step):
            await made.run(started)
            await made.played()
        outcome = StreamOutcome(reason="the application has ended it")
    except StreamFailed as error:
        outcome = StreamOutcome(failed=True, reason=str(error))
        _problem(call, str(error))
    finally:
        call.services.events.emit(
            StreamEnded(
                at=clock.now(),
                call_id=call.id,
                stream_id=stream_id,
                failed=outcome.failed,
                reason=outcome.reason,
                figures=made.figures,
            )
        )
    return outcome


@contextmanager
def _attached(leg: Leg, made: Stream, step: StreamStep) -> Iterator[None]:
    """The leg's audio and keys go there as long as the block lasts."""
    port, alone = leg.port, step.direction == "both"
    if alone:
        port.on_frames = made.on_frames
        leg.on_digit.append(made.on_digit)
    else:
        port.taps.append(made.on_frames)
    try:
        yield
    finally:
        if alone:
            port.on_frames = None
            leg.on_digit.remove(made.on_digit)
        else:
            port.taps.remove(made.on_frames)


def _made(call: "Call", leg: Leg, step: StreamStep, stream_id: StreamId) -> Stream:
    settings, both_ways = call.services.stream_settings, step.direction == "both"
    who = leg.identity
    known = {"call_id": call.id, "from_number": who.from_number, "to_number": who.to_number}
    twilio = step.spoken == "twilio"
    facts = Facts(
        call_id=call.id,
        stream_id=stream_id,
        account_id=settings.account_sid if twilio else ACCOUNT,
        app_id=call.match.dialplan.name,
        rate=step.sample_rate,
        tracks=_TRACKS[step.track],
        both_ways=both_ways,
        parameters={name: fill(value, known) for name, value in step.parameters.items()},
    )
    signed = twilio and settings.auth_token
    terms = Terms(
        url=step.url,
        headers={"X-Twilio-Signature": signature(settings.auth_token, step.url)} if signed else {},
        rate=step.sample_rate,
        chunk_ms=step.chunk_ms,
        tracks=facts.tracks,
        both_ways=both_ways,
        buffer_s=settings.buffer_s,
        reconnect_s=settings.reconnect_s,
    )

    pressing = 0

    async def press(digits: str) -> None:
        nonlocal pressing
        try:
            await leg.press(digits)
        except (DigitsRefused, ValueError) as error:
            _problem(call, str(error) if isinstance(error, DigitsRefused) else "what the application presses is no key")
        finally:
            pressing -= 1

    def pressed(digits: str) -> None:
        nonlocal pressing
        if pressing < MAX_PRESSING:
            pressing += 1
            call.beside(press(digits), "press")

    return Stream(
        terms,
        lambda: DIALECTS[step.spoken](facts),
        call.services.streams,
        leg.port,
        clock.mono_ns,
        pressed,
        lambda what: _problem(call, what),
    )


def _refused(call: "Call", why: str) -> StreamOutcome:
    _problem(call, why)
    return StreamOutcome(failed=True, reason=why)


def _problem(call: "Call", what: str) -> None:
    call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="stream", what=what))
