"""How long one caller's pauses within turns are, learned as the call goes on."""

import math
from collections import deque

from sipagent.conversation.turn_end import USUAL_PAUSE_MS

REMEMBERED = 24  # pauses; people change their pace within a call
PRIOR = 4  # pauses' worth of what callers in general do
WITHIN_MS = (250, 2500)  # shorter ones are between words, longer ones between turns


class CallerPauses:
    def __init__(self) -> None:
        self._logs: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, ms: int) -> None:
        if WITHIN_MS[0] <= ms <= WITHIN_MS[1]:
            self._logs.append(math.log(ms))

    @property
    def typical_ms(self) -> float:
        """Geometric mean, with the general one mixed in until this caller is known."""
        total = sum(self._logs) + PRIOR * math.log(USUAL_PAUSE_MS)
        return math.exp(total / (len(self._logs) + PRIOR))
