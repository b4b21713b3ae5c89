"""The legs that are up on this node, by the lane's handle."""

from sipagent.calls.leg import Leg


class LegTable:
    def __init__(self) -> None:
        self._legs: dict[int, Leg] = {}

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def all(self) -> list[Leg]:
        return list(self._legs.values())

    def find(self, handle: int) -> Leg | None:
        return self._legs.get(handle)

    def add(self, leg: Leg) -> None:
        self._legs[leg.handle] = leg

    def drop(self, leg: Leg) -> None:
        if self._legs.get(leg.handle) is leg:
            del self._legs[leg.handle]
