"""What a caller hears who waits: hold music, the ringing tone, or a file, over and over until the wait is over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sipagent.calls import sounds
from sipagent.calls.settings import WaitingSettings
from sipagent.conversation.interfaces import Pcm
from sipagent.core import clock
from sipagent.core.errors import ConfigError
from sipagent.core.events import Problem
from sipagent.media.melody import hold_music
from sipagent.media.tones import ringback

if TYPE_CHECKING:
    from sipagent.calls.call import Call

RINGBACK = "ringback"
SILENCE = "silence"
AHEAD_MS = 400  # queued at most: how long main may stall before a gap is heard
_EVERY_S = 0.1
_FRAMES_PER_S = 50

Sound = Callable[[int], Pcm]  # the samples of a loop at this rate; may take a while, raises ConfigError


class Out(Protocol):
    """What a media port does for it."""

    @property
    def rate(self) -> int: ...
    @property
    def queued(self) -> int: ...
    def write(self, pcm: Pcm) -> int: ...
    async def flush(self) -> int: ...


@asynccontextmanager
async def while_waiting(call: "Call", music: str = "", port: Out | None = None) -> AsyncIterator[None]:
    """Plays to the call's caller, or on another port of it, as long as the block lasts.

    `music` is "" for hold music, "ringback", "silence", or a WAV file beside the dialplan or at a URL. A file that
    cannot be read is a problem of the call, and the shipped music is played instead.
    """
    if music == SILENCE:
        yield
        return
    port = port or call.leg.port
    try:
        if sounds.is_url(music):
            sound = await sounds.fetch_sound(call.services.web, music)
        else:
            sound = sound_of(music, call.services.waiting, call.match.dialplan.folder)
        await asyncio.to_thread(sound, port.rate)
    except ConfigError as error:
        call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="music", what=str(error)))
        sound = hold_music
    async with playing(port, sound):
        yield


def sound_of(music: str, settings: WaitingSettings, folder: str) -> Sound:
    """`folder` is where the dialplan is, "" for none. Raises ConfigError."""
    if music == RINGBACK:
        return partial(ringback, settings.ringback)
    if music:
        return partial(sounds.read_wav, sounds.beside(folder, music))
    if settings.hold_music:
        return partial(sounds.read_wav, Path(settings.hold_music))
    return hold_music


@asynccontextmanager
async def playing(port: Out, sound: Sound) -> AsyncIterator[None]:
    """Plays the loop on the port as long as the block lasts; what is queued then is dropped."""
    player = asyncio.create_task(_play(port, sound), name="music")
    try:
        yield
    finally:
        player.cancel()
        await asyncio.wait([player])
        await port.flush()


async def _play(port: Out, sound: Sound) -> None:
    rate, pcm, at = 0, np.zeros(0, np.int16), 0
    while True:
        if port.rate != rate:  # at first, and when the peer has changed the codec
            at = at * port.rate // rate if rate else 0
            rate = port.rate
            pcm = await asyncio.to_thread(sound, rate)
        frames = AHEAD_MS * _FRAMES_PER_S // 1000 - port.queued
        if frames > 0 and len(pcm):
            places = np.arange(at, at + frames * rate // _FRAMES_PER_S)
            at += port.write(pcm.take(places, mode="wrap"))
            at %= len(pcm)
        await asyncio.sleep(_EVERY_S)
