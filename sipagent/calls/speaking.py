"""Texts and files of the dialplan, spoken on one leg outside of any conversation."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sipagent.calls import sounds
from sipagent.calls.leg import Leg
from sipagent.conversation import chunking
from sipagent.conversation.interfaces import Pcm
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.speaker import Speaker, Utterance
from sipagent.core import clock
from sipagent.core.errors import ConfigError, ProviderError
from sipagent.core.events import Problem
from sipagent.media.port import Frames

if TYPE_CHECKING:
    from sipagent.calls.call import Call


async def say(call: "Call", text: str) -> None:
    """Speaks a text to the caller, to its end; a voice that fails is a problem, not the end of the call."""
    with mouth(call, call.leg) as speaker:
        utterance = speaker.utterance()
        try:
            await speak(call, utterance, text)
        finally:  # also when the call ends in the middle: the record tells how far it came
            call.spoke(utterance)


async def tell(call: "Call", leg: Leg, text: str, sound: str = "") -> None:
    """A file and a text, each "" for none, on another leg, which may end meanwhile: that is no turn of the call."""

    async def work() -> None:
        if sound:
            await _play(call, leg, sound)
        if text:
            with mouth(call, leg) as speaker:
                await speak(call, speaker.utterance(), text)

    await while_up(leg, work())


async def play(call: "Call", file: str, times: int = 1) -> None:
    """A WAV file beside the dialplan, or at a URL, to the caller. One that a server has not is a problem, not the end
    of the call. Raises ConfigError for one that is not here."""
    await _play(call, call.leg, file, times)


async def read_sound(call: "Call", file: str, rate: int) -> Pcm:
    """A WAV file beside the dialplan, or at a URL. Raises ConfigError."""
    if sounds.is_url(file):
        return await sounds.fetch_wav(call.services.web, file, rate)
    return await asyncio.to_thread(sounds.read_wav, sounds.beside(call.match.dialplan.folder, file), rate)


async def _play(call: "Call", leg: Leg, file: str, times: int = 1) -> None:
    rate = leg.port.rate
    try:
        pcm = await read_sound(call, file, rate)
    except ConfigError as error:
        if not sounds.is_url(file):
            raise
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="play", what=str(error)))
        return
    with mouth(call, leg) as speaker:
        for _ in range(times if len(pcm) else 0):
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


async def speak(call: "Call", utterance: Utterance, text: str) -> None:
    """Clause by clause; a voice that fails is a problem of the call."""

    def problem(where: str, error: ProviderError) -> None:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where=where, what=str(error)))

    ledger = Ledger()
    ledger.problem = problem
    voice = call.services.voice_for(call.match.dialplan.tts, ledger)
    try:
        for clause in chunking.split(text):
            rate = utterance.rate
            await utterance.say(clause, voice.speak(clause, rate), rate, clock.mono_ns)
        utterance.complete()
        await utterance.played()
    except ProviderError as error:
        problem("tts", error)


@contextmanager
def mouth(call: "Call", leg: Leg) -> Iterator[Speaker]:
    """Moved on by the leg's own frames, beside whoever else hears them: several may be at one leg."""
    speaker = Speaker(leg.port, call.services.conversation.ahead_ms)

    def tick(_frames: Frames) -> None:
        speaker.tick()

    leg.port.taps.append(tick)
    try:
        yield speaker
    finally:
        leg.port.taps.remove(tick)
