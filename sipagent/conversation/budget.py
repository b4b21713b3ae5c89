"""A budget for the caller's waiting: when turns run over, the conversation does something about it, and relaxes again.

Each lever acts on one part of the wait. The one for the part that took longest is pulled a notch when two of the last
three turns ran over; the last one pulled is let go a notch when three turns in a row stayed well within. Pure.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RUNS_OVER = 2  # of the last WINDOW turns
WINDOW = 3
WELL_WITHIN = 0.8  # of the budget
RELAXED_AFTER = 3  # turns in a row
SCALES = (1.0, 0.85, 0.7)  # of the silence that ends the caller's turn, by notch
HEDGES_MS = (0, 600, 250)  # after which a second provider is asked as well, 0 leaves it to the provider's setting
FILLERS = (1.0, 0.75, 0.5)  # of the time before a filler


class Lever(StrEnum):
    ENDPOINTING = "endpointing"  # a shorter silence ends the caller's turn
    SPECULATION = "speculation"  # the model starts on words that may not be the last
    LLM = "llm"  # a second model is asked earlier, then the fastest one first
    TTS = "tts"  # the same of voices
    STT = "stt"
    FILLERS = "fillers"  # what cannot be shortened is bridged earlier


NOTCHES = {each: 1 if each is Lever.SPECULATION else 2 for each in Lever}


@dataclass(frozen=True, slots=True)
class Waited:
    """Where the wait of one turn went, ms."""

    total: float
    endpointing: float = 0.0
    stt: float = 0.0
    llm: float = 0.0
    tts: float = 0.0


class LatencyBudget:
    """Of one call; `budget_ms` 0 never does anything."""

    def __init__(self, budget_ms: int) -> None:
        self._budget_ms = budget_ms
        self._notches = dict.fromkeys(Lever, 0)
        self._pulled: list[Lever] = []  # in order
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._within = 0

    @property
    def endpointing_scale(self) -> float:
        return SCALES[self._notches[Lever.ENDPOINTING]]

    @property
    def speculates_more(self) -> bool:
        return self._notches[Lever.SPECULATION] > 0

    @property
    def filler_scale(self) -> float:
        return FILLERS[self._notches[Lever.FILLERS]]

    def hedge_ms(self, role: str) -> int:
        """Of the role's providers: 0 where nothing is to be done about it."""
        return HEDGES_MS[self._notches[Lever(role)]]

    def fastest_first(self, role: str) -> bool:
        return self._notches[Lever(role)] == NOTCHES[Lever(role)]

    def turn(self, waited: Waited) -> None:
        """A turn of the agent's has begun to be heard after so long."""
        if not self._budget_ms:
            return
        over = waited.total > self._budget_ms
        self._last.append(over)
        self._within = self._within + 1 if waited.total <= WELL_WITHIN * self._budget_ms else 0
        if over and sum(self._last) >= RUNS_OVER:
            self._pull(waited)
        elif self._within >= RELAXED_AFTER and self._pulled:
            self._notches[self._pulled.pop()] -= 1
            self._within = 0

    def cut_off(self) -> None:
        """The caller was taken to have finished and had not: the silence that ends a turn is as it was."""
        self._notches[Lever.ENDPOINTING] = 0
        self._pulled = [each for each in self._pulled if each is not Lever.ENDPOINTING]

    def record(self) -> dict[str, Any]:
        """For the turn's details: the levers that are pulled, by notch; empty where none is."""
        return {str(lever): notch for lever, notch in self._notches.items() if notch}

    def _pull(self, waited: Waited) -> None:
        """The lever of the part that took longest and has one left; fillers when none has."""
        parts = {
            Lever.ENDPOINTING: waited.endpointing,
            Lever.SPECULATION: waited.llm,  # first of the two that help with a slow model
            Lever.LLM: waited.llm,
            Lever.STT: waited.stt,
            Lever.TTS: waited.tts,
        }
        longest = sorted(parts, key=lambda lever: -parts[lever])
        left = [lever for lever in (*longest, Lever.FILLERS) if self._notches[lever] < NOTCHES[lever]]
        if left:
            self._notches[left[0]] += 1
            self._pulled.append(left[0])
            self._last.clear()  # give it a chance
