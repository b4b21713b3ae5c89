"""A caller on hold: told so by SIP (sendonly), and with music."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipagent.calls.music import while_waiting

if TYPE_CHECKING:
    from sipagent.calls.call import Call


@dataclass(slots=True)
class Held:
    """On hold by an operator, until `over`."""

    music: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)


async def hold_until(call: "Call", over: asyncio.Event, music: str = "", *, told: bool = False) -> None:
    """From now until the event; a peer that refuses to be held hears the music all the same. ``told``: it has been,
    by an earlier main."""
    limit_s = call.services.limits.transfer_timeout_s
    held = told or await call.leg.requests.hold(limit_s)
    try:
        async with while_waiting(call, music):
            await over.wait()
    finally:
        if held:
            await call.leg.requests.resume(limit_s)


async def hold_for(call: "Call", seconds: float, music: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await hold_until(call, over, music)


async def hold(call: "Call", held: Held, *, told: bool = False) -> None:
    """By an operator. Who is joined with the caller waits in silence. ``told``: as of `hold_until`."""
    call.held = held
    call.room.pause()
    call.progressed()
    try:
        await hold_until(call, held.over, held.music, told=told)
    finally:
        call.held = None
        call.room.pause(False)
        call.progressed()
