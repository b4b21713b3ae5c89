"""Two legs of a call joined: each hears what the other says, until one of them ends."""

import asyncio
from typing import TYPE_CHECKING, Any

from sipagent.calls.leg import Leg
from sipagent.core.termination import Termination

if TYPE_CHECKING:
    from sipagent.calls.call import Call


async def joined(one: Leg, other: Leg) -> Leg:
    """Returns when one of them has ended; which."""
    one.port.hear(other.port)
    other.port.hear(one.port)
    try:
        either: set[asyncio.Future[Any]] = {one.ended, other.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        one.port.hear()
        other.port.hear()
    return one if one.ended.done() else other


def hang_up_as(call: "Call", end: Termination) -> None:
    """Ends the call as the other of two joined legs ended."""
    call.hangup(end.by, end.cause, end.detail)
