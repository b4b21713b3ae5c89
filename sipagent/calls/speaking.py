"""Texts and files of the dialplan, spoken on one leg outside of any conversation."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipagent.calls import sounds
from sipagent.calls.leg import Leg
from sipagent.conversation import chunking
from sipagent.conversation.speaker import Speaker, Utterance
from sipagent.core import clock
from sipagent.core.errors import ProviderError
from sipagent.core.events import Problem

if TYPE_CHECKING:
    from sipagent.calls.call import Call


async def say(call: "Call", text: str) -> None:
    """Speaks a text to the caller, to its end; a voice that fails is a problem, not the end of the call."""
    with _mouth(call, call.leg) as speaker:
        utterance = speaker.utterance()
        try:
            await _speak(call, utterance, text)
        finally:  # also when the call ends in the middle: the record tells how far it came
            call.spoke(utterance)


async def tell(call: "Call", leg: Leg, text: str) -> None:
    """The same on another leg, which may end meanwhile: what is told there is no turn of the call."""
    with _mouth(call, leg) as speaker:
        await while_up(leg, _speak(call, speaker.utterance(), text))


async def play(call: "Call", path: Path) -> None:
    rate = call.leg.port.rate
    pcm = await asyncio.to_thread(sounds.read_wav, path, rate)
    with _mouth(call, call.leg) as speaker:
        utterance = speaker.utterance()
        await utterance.play(pcm, rate, clock.mono_ns)
        utterance.complete()
        await utterance.played()


async def while_up(leg: Leg, work: Coroutine[Any, Any, object]) -> bool:
    """Does the work; False when the leg ended before it was through. Raises what the work does."""
    task = asyncio.ensure_future(work)
    try:
        either: set[asyncio.Future[Any]] = {task, leg.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        return False
    task.result()
    return True


async def _speak(call: "Call", utterance: Utterance, text: str) -> None:
    """Clause by clause."""
    try:
        for clause in chunking.split(text):
            rate = utterance.rate
            await utterance.say(clause, call.services.tts.speak(clause, rate), rate, clock.mono_ns)
        utterance.complete()
        await utterance.played()
    except ProviderError as error:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="tts", what=str(error)))


@contextmanager
def _mouth(call: "Call", leg: Leg) -> Iterator[Speaker]:
    speaker = Speaker(leg.port, call.services.conversation.ahead_ms)
    leg.port.on_frames = lambda _frames: speaker.tick()
    try:
        yield speaker
    finally:
        leg.port.on_frames = None
