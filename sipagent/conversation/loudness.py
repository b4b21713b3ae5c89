"""Whether a frame is loud enough to belong to the utterance it is in.

A voice detector lets go late: Silero keeps a word for 60 to 160 ms behind its end. Speech that has sunk far below the
level of its own utterance has ended before that.
"""

import math

import numpy as np

from sipagent.conversation.audio import SPEECH_POWER
from sipagent.conversation.interfaces import Pcm

RANGE_DB = 26.0  # a frame further below the utterance's level is no part of it; by bench.turn_ends
# What is heard at the end of a word: all that is speech by itself, of a quiet talker all within this of the loudest.
HEARD_DB = 20.0
_SPEECH_DB = 10.0 * float(np.log10(SPEECH_POWER))
SINK_DB = 0.03  # per frame, of the level that is remembered: 1.5 dB a second
_LEAST = 1.0  # mean square; digital silence has no logarithm


class Loudness:
    """Level of one caller's speech; a decision per 20 ms frame."""

    def __init__(self) -> None:
        self._level = -np.inf  # dB of the loudest frame of the utterance, sinking
        self.audible = False  # a listener on the line would hear the last voiced frame as speech

    def push(self, frame: Pcm) -> bool:
        """Takes a voiced frame; whether it is not far below the others of its utterance."""
        samples = frame.astype(np.float32)
        now = 10.0 * math.log10(max(float(np.dot(samples, samples)) / len(frame), _LEAST))
        self._level = max(now, self._level - SINK_DB)
        self.audible = now > min(_SPEECH_DB, self._level - HEARD_DB)
        return now > self._level - RANGE_DB

    def reset(self) -> None:
        """Another utterance begins."""
        self._level = -np.inf
