"""Who hears whom in a call: two legs joined, those who listen in, whisper or join them, and another call's people."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sipagent.calls.leg import Leg
from sipagent.calls.relay import Heard, way_between

if TYPE_CHECKING:
    from sipagent.calls.call import Call


class Part(StrEnum):
    """What somebody who is brought into a call does there."""

    LISTEN = "listen"  # hears everyone, and nobody hears them
    WHISPER = "whisper"  # heard by everyone but the caller
    CONFERENCE = "conference"  # heard by everyone


class Room:
    """Of one call: its caller, whom the caller is joined with, and guests. What an agent says to the caller is heard by
    everyone. Two rooms that are open to each other are as one; only whispers are kept from each caller of their own.
    """

    def __init__(self, caller: Leg) -> None:
        self._caller = caller
        self.other: Leg | None = None  # whom the caller is joined with
        self.guests: dict[Leg, Part] = {}
        self._relay: Heard | None = None  # the way to a room in another media process
        self._open_to: Room | None = None
        self._paused = False
        self.changed = asyncio.Event()  # another is the caller, or joined with the caller

    @property
    def joined(self) -> bool:
        """Somebody else talks with the caller."""
        far = self.other is not None or self._relay is not None or self._open_to is not None
        return far or Part.CONFERENCE in self.guests.values()

    def take_over(self, caller: Leg) -> None:
        """Another leg is the caller's now."""
        before, self._caller = self._caller, caller
        if self._others:
            before.hear()
            self._apply()
        self.changed.set()

    def enter(self, leg: Leg) -> None:
        """It is joined with the caller, in place of whoever was. Raises ValueError when it cannot hear the others."""
        before, self.other = self.other, leg
        if before is not None:
            before.hear()
        try:
            self._apply()
        except ValueError:
            self.leave(leg)
            raise
        self.changed.set()

    def admit(self, leg: Leg, part: Part) -> None:
        """A guest. Raises ValueError when it cannot hear the others."""
        self.guests[leg] = part
        try:
            self._apply()
        except ValueError:
            self.leave(leg)
            raise

    def leave(self, leg: Leg) -> None:
        if leg is self.other:
            self.other = None
        elif self.guests.pop(leg, None) is None:
            return
        leg.hear()
        self._apply()

    def open_to(self, far: "Room | None") -> None:
        """As one with the room of another call, until it is opened to None. Raises ValueError."""
        before = self._open_to
        if far is before:
            return
        self._open_to = far
        if before is not None:
            before.open_to(None)
        if far is not None:
            far.open_to(self)
        self._apply()

    def connect(self, relay: "Heard | None") -> None:
        """The way to the room of another call; None when it closes. Raises ValueError."""
        before, self._relay = self._relay, relay
        if before is not None:
            before.hear()
        self._apply()

    def pause(self, paused: bool = True) -> None:
        """Nobody hears anybody: the caller is on hold."""
        self._paused = paused
        self._apply()

    @property
    def _others(self) -> dict[Heard, Part]:
        found: dict[Heard, Part] = {}
        for talking in (self.other, self._relay):
            if talking is not None:
                found[talking] = Part.CONFERENCE
        return found | self.guests

    @property
    def _rooms(self) -> list["Room"]:
        return [self] if self._open_to is None else [self, self._open_to]

    def _apply(self) -> None:
        callers = [room._caller for room in self._rooms]
        for room in self._rooms:
            for one, part in {room._caller: Part.CONFERENCE, **room._others}.items():
                heard = list(room._heard_by(one))
                said = [caller for caller in callers if caller in heard]
                one.hear(*heard, said=said, keys=part is Part.CONFERENCE)

    def _heard_by(self, one: Heard) -> Iterator[Heard]:
        """Of whoever is in this room."""
        for room in () if self._paused else self._rooms:
            if room._paused:
                continue
            if one is not room._caller:
                yield room._caller
            for other, part in room._others.items():
                whispers = part is Part.WHISPER and one is not room._caller
                if other is not one and (part is Part.CONFERENCE or whispers):
                    yield other


async def joined(call: "Call", other: Leg) -> Leg:
    """The caller and the other talk until one of them hangs up; either may be replaced meanwhile, and who was sent to
    somebody else may leave first. With whom the caller talked last."""
    room = call.room
    room.enter(other)
    call.progressed()
    try:
        while True:
            room.changed.clear()
            assert room.other is not None
            other = room.other
            ends: set[asyncio.Future[Any]] = {leg.ended for leg in (call.leg, other) if leg is not call.leaving}
            changed = asyncio.ensure_future(room.changed.wait())
            await asyncio.wait({*ends, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if any(end.done() for end in ends) and not room.changed.is_set():
                return other
    finally:
        if room.other is not None:
            room.leave(room.other)
        if call.held is not None:
            call.held.over.set()
        call.progressed()


@asynccontextmanager
async def open_between(one: "Call", other: "Call") -> AsyncIterator[None]:
    """The rooms of the two calls are as one, whichever media processes they are in. Raises CapacityError, SetupError,
    and ValueError where too many would hear each other."""
    media = one.services.media
    if media.beside(one.leg.port, other.leg.port):
        try:
            one.room.open_to(other.room)
            yield
        finally:
            one.room.open_to(None)
        return
    async with way_between(media, one.leg.port, other.leg.port) as (near, far):
        try:
            one.room.connect(near)
            other.room.connect(far)
            yield
        finally:
            one.room.connect(None)
            other.room.connect(None)
