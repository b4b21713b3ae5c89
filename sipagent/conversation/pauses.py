"""The silence around a clause of synthesised speech: before the first sound it is only delay, behind the last only a
pause, which shall be as long as the punctuation asks for and no longer."""

import numpy as np
from numpy.typing import NDArray

from sipagent.conversation.audio import powers
from sipagent.conversation.interfaces import FRAME_MS, Pcm

SOUND_POWER = 104.0**2  # -50 dBFS: below it a frame at the edge of a clause is silence
LEAD_FRAMES = 1  # kept before the first sound: a plosive needs a beginning
PAUSE_MS = 120  # at most between two clauses
SENTENCE_PAUSE_MS = 260  # and between two sentences


class Pauses:
    """One clause in whole frames (n, samples); silence is held back until it is known what follows it."""

    def __init__(self, text: str) -> None:
        self._pause = (SENTENCE_PAUSE_MS if text.endswith((".", "!", "?", "…")) else PAUSE_MS) // FRAME_MS
        self._held: list[Pcm] = []  # bounded by what the voice gives of one clause
        self._begun = False
        self.dropped = 0  # frames before the first sound

    def push(self, frames: Pcm) -> Pcm:
        """The frames that may go on now."""
        sounds: NDArray[np.intp] = np.flatnonzero(powers(frames) > SOUND_POWER)
        if not len(sounds):
            self._held.append(frames)
            return frames[:0]
        before = np.concatenate([*self._held, frames[: sounds[0]]])
        if not self._begun:
            self._begun = True
            self.dropped = max(0, len(before) - LEAD_FRAMES)
            before = before[self.dropped :]
        end = int(sounds[-1]) + 1
        self._held = [frames[end:]]
        return np.concatenate([before, frames[sounds[0] : end]])

    def finish(self, samples: int) -> Pcm:
        """The pause behind the clause, in frames of so many samples; nothing of a clause without any sound."""
        if not self._begun or not self._held:
            return np.zeros((0, samples), np.int16)
        return np.concatenate(self._held)[: self._pause]
