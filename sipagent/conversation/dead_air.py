"""No dead air: what is done about silence while the caller waits for an answer. Pure; times are monotonic ns.

    caller ####.                                          (not the caller's turn any more: waiting)
    agent        ........ filler ........ filler ........ sorry ........ transfer or goodbye
                 |<act_ms>|      |<act_ms>|

Silence is what the wire has: no audio of the agent queued or leaving. It is acted upon early enough for something to be
heard before the bound. The order of what is done is the agent's; a real answer starts it over.
"""

from collections.abc import Sequence
from enum import StrEnum

TURNS_FAILED = 2  # in a row, then the last resorts


class Act(StrEnum):
    PROVIDER = "provider"  # whoever has not answered yet gets company: the next provider is asked as well
    FILLER = "filler"  # "one moment", each of the texts once
    SORRY = "sorry"  # a voice that never fails says that it takes long
    TRANSFER = "transfer"  # to a human, where there is one
    GOODBYE = "goodbye"


LAST_RESORTS = (Act.TRANSFER, Act.GOODBYE)
AUDIBLE = (Act.FILLER, Act.SORRY, *LAST_RESORTS)


class DeadAir:
    """Of one conversation. `order` may name an act that the agent has no text or target for: leave it out then."""

    def __init__(self, order: Sequence[Act], act_ms: int, fillers: int = 1) -> None:
        self._order = [act for each in order for act in [each] * (fillers if each is Act.FILLER else 1)]
        self.act_ms = act_ms
        self._next = 0
        self._silent_from = 0  # the agent was heard until then, or something has been done about it then
        self._failed = 0

    def tick(self, now: int, *, waiting_since: int, audible: bool) -> list[Act]:
        """What to do now. `waiting_since`: when the caller's turn ended, 0 while it is the caller's."""
        if audible:
            self._silent_from = now
        if audible or not waiting_since:
            return []
        if now - max(waiting_since, self._silent_from) < self.act_ms * 1_000_000:
            return []
        self._silent_from = now
        return self._due()

    def answered(self) -> None:
        """The agent's own words are on their way."""
        self._next = self._failed = 0

    def failed(self) -> list[Act]:
        """A turn is over and nothing but an apology was said; the last resort when that goes on."""
        self._failed += 1
        if self._failed < TURNS_FAILED:
            return []
        left = [act for act in self._order[self._next :] if act in LAST_RESORTS]
        if left:
            self._next = self._order.index(left[0], self._next) + 1
        return left[:1]

    def used(self, act: Act) -> None:
        """Not again in this conversation, such as a transfer that led back here."""
        self._order = [each for each in self._order if each is not act]
        self._next = self._failed = 0

    def _due(self) -> list[Act]:
        """Up to the next that can be heard; what comes after it waits for the next silence."""
        acts: list[Act] = []
        while self._next < len(self._order):
            act = self._order[self._next]
            self._next += 1
            acts.append(act)
            if act in AUDIBLE:
                break
        return acts
