"""What an operator has a call hear: a file, a text, keys. An agent waits meanwhile, and knows what was said."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sipagent.calls import sounds
from sipagent.calls.keypad import DigitsRefused
from sipagent.calls.leg import Leg
from sipagent.calls.speaking import mouth, read_sound, say, tell, while_up
from sipagent.conversation.interfaces import Pcm
from sipagent.core import clock
from sipagent.core.errors import ConfigError, NotNow
from sipagent.core.events import PlaybackEnded, PlaybackStarted, Problem
from sipagent.core.ids import PlaybackId, new_playback_id
from sipagent.media.telephone_event import GAP_MS, check_keys

if TYPE_CHECKING:
    from sipagent.calls.call import Call

PLAYED, BY_KEY, BROKEN_OFF = "played", "key", "ended"  # why a playback ended
LEFT = "the leg has ended"


def play(call: "Call", leg: Leg, source: str, loops: int = 1, *, until_key: bool = False) -> PlaybackId:
    """Plays a WAV file to a leg's peer: of a server (http, https), or beside the dialplan. Raises NotNow.

    Where the caller talks with somebody else it is mixed in; else the call leaves what it is at. ``until_key``: the
    first key that the peer presses ends it.
    """
    _check(call, leg)
    playback_id = new_playback_id()

    def ended(reason: str) -> None:
        at, call_id, leg_id = clock.now(), call.id, leg.id
        call.services.events.emit(
            PlaybackEnded(at=at, call_id=call_id, leg_id=leg_id, playback_id=playback_id, reason=reason)
        )

    async def sound() -> None:
        reason = BROKEN_OFF
        call.services.events.emit(
            PlaybackStarted(at=clock.now(), call_id=call.id, leg_id=leg.id, playback_id=playback_id)
        )
        try:
            reason = await _play(call, leg, pcm, rate, loops, until_key)
        finally:
            ended(reason)

    pcm, rate = sounds.NOTHING, leg.port.rate

    async def work() -> None:
        nonlocal pcm, rate
        try:
            rate = leg.port.rate
            pcm = await read_sound(call, source, rate)
            await _while_it_waits(call, leg, sound)
        except (ConfigError, NotNow) as error:
            ended(str(error))

    call.beside(work(), "play")
    return playback_id


def speak(call: "Call", leg: Leg, text: str) -> None:
    """Says a text to a leg's peer. Raises NotNow."""
    _check(call, leg)
    if leg is not call.leg or call.room.joined:
        call.beside(tell(call, leg, text), "say")
        return

    async def work() -> None:
        await say(call, text)
        if call.talk is not None:
            call.talk.history.note(f"The caller has just been told: {text}")

    call.obey(work)


def press(call: "Call", leg: Leg, digits: str, duration_ms: int) -> None:
    """Presses keys for a leg's peer. Raises NotNow, and ValueError for what is no key."""
    _check(call, leg)
    keys = check_keys(digits, duration_ms, GAP_MS)

    async def work() -> None:
        try:
            await leg.press(keys, duration_ms)
        except DigitsRefused as error:
            call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="press", what=str(error)))

    call.beside(work(), "press")


def _check(call: "Call", leg: Leg) -> None:
    call.check_up()
    if leg.ended.done() or not leg.is_answered:
        raise NotNow("the leg is not up")
    if call.held is not None:
        raise NotNow("the call is on hold")


async def _while_it_waits(call: "Call", leg: Leg, work: Callable[[], Awaitable[None]]) -> None:
    """Beside the call's own sound where the caller talks with somebody, else in place of what the call is at."""
    if leg is not call.leg or call.room.joined:
        await work()
    else:
        call.obey(work)


async def _play(call: "Call", leg: Leg, pcm: Pcm, rate: int, loops: int, until_key: bool) -> str:
    """Why it ended."""
    key: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pressed(_digit: str) -> None:
        if until_key and not key.done():
            key.set_result(None)

    async def sound() -> None:
        with mouth(call, leg) as speaker:
            utterance = speaker.utterance()
            try:
                for _ in range(loops):
                    await utterance.play(pcm, rate, clock.mono_ns)
                    await speaker.room()
                utterance.complete()
                await utterance.played()
            except asyncio.CancelledError:
                with suppress(TimeoutError):
                    await asyncio.wait_for(utterance.interrupt(), 1.0)
                raise

    leg.on_digit.append(pressed)
    playing = asyncio.ensure_future(while_up(leg, sound()))
    try:
        either: set[asyncio.Future[Any]] = {playing, key}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leg.on_digit.remove(pressed)
        if not playing.done():
            playing.cancel()
            await asyncio.wait([playing])
    if playing.cancelled():
        return BY_KEY
    return PLAYED if playing.result() else LEFT
