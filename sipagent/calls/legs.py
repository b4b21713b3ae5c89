"""The legs that are up on this node, by the lane's handle."""

from sipagent.calls.ladder import Ladders
from sipagent.calls.leg import Leg


class LegTable:
    def __init__(self, ladders: Ladders) -> None:
        self._legs: dict[int, Leg] = {}
        self._ladders = ladders

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def all(self) -> list[Leg]:
        return list(self._legs.values())

    def find(self, handle: int) -> Leg | None:
        return self._legs.get(handle)

    def add(self, leg: Leg) -> None:
        self._legs[leg.handle] = leg
        self._ladders.belongs(leg.handle, leg.identity.call_id, leg.id)

    def drop(self, leg: Leg) -> None:
        if self._legs.get(leg.handle) is leg:
            del self._legs[leg.handle]
            self._ladders.ended(leg.handle)
