"""Who hears whom in a call: two legs joined, and those who listen in, whisper or join them."""

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sipagent.calls.leg import Leg

if TYPE_CHECKING:
    from sipagent.calls.call import Call


class Part(StrEnum):
    """What somebody who is brought into a call does there."""

    LISTEN = "listen"  # hears everyone, and nobody hears them
    WHISPER = "whisper"  # heard by everyone but the caller
    CONFERENCE = "conference"  # heard by everyone


class Room:
    """The legs of a call that may hear each other. What an agent says to the caller is heard by everyone."""

    def __init__(self, caller: Leg) -> None:
        self._caller = caller
        self._parts: dict[Leg, Part] = {}
        self._paused = False

    @property
    def joined(self) -> bool:
        """Somebody else talks with the caller."""
        return Part.CONFERENCE in self._parts.values()

    @property
    def other(self) -> Leg | None:
        """Whom the caller talks with, where that is exactly one."""
        talking = [leg for leg, part in self._parts.items() if part is Part.CONFERENCE]
        return talking[0] if len(talking) == 1 else None

    def take_over(self, caller: Leg) -> None:
        """Another leg is the caller's now."""
        before, self._caller = self._caller, caller
        if self._parts:
            before.hear()
            self._apply()

    def enter(self, leg: Leg, part: Part = Part.CONFERENCE) -> None:
        """Raises ValueError when the port cannot hear the others."""
        self._parts[leg] = part
        try:
            self._apply()
        except ValueError:
            self.leave(leg)
            raise

    def leave(self, leg: Leg) -> None:
        if self._parts.pop(leg, None) is not None:
            leg.hear()
            self._apply()

    def pause(self, paused: bool = True) -> None:
        """Nobody hears anybody: the caller is on hold."""
        self._paused = paused
        self._apply()

    def _apply(self) -> None:
        for leg in (self._caller, *self._parts):
            heard = self._heard_by(leg)
            talks = leg is self._caller or self._parts[leg] is Part.CONFERENCE
            leg.hear(*heard, said=[self._caller] if self._caller in heard else [], keys=talks)

    def _heard_by(self, leg: Leg) -> list[Leg]:
        if self._paused:
            return []
        heard = [] if leg is self._caller else [self._caller]
        for other, part in self._parts.items():
            whispers = part is Part.WHISPER and leg is not self._caller
            if other is not leg and (part is Part.CONFERENCE or whispers):
                heard.append(other)
        return heard


async def joined(call: "Call", other: Leg) -> None:
    """The caller and the other talk until one of them hangs up."""
    call.room.enter(other)
    call.progressed()
    try:
        either: set[asyncio.Future[Any]] = {call.leg.ended, other.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        call.room.leave(other)
        if call.held is not None:
            call.held.set()
