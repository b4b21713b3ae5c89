"""A steady level of speech for the recogniser; nobody else hears it.

The gain is chosen as an utterance begins, from the caller's level in the utterances before, and stays until it ends:
speech is raised towards -23 dBFS by at most 15 dB, never lowered, and never so far that the line's noise passes -50.
A call's first utterance is left as it is.
"""

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]

FULL_SCALE = 32768.0**2
TARGET = FULL_SCALE * 10**-2.3  # -23 dBFS
NOISE_LIMIT = FULL_SCALE * 10**-5.0  # -50 dBFS
MOST = 10 ** (15 / 20)
QUIETEST = FULL_SCALE * 10**-5.5  # -55 dBFS: no speech is weaker on a telephone
OVER_NOISE = 10.0  # speech is so much stronger than the noise
NOISE_RISE = 1.014  # a frame: 3 dB/s
ENOUGH_FRAMES = 25  # half a second of speech tells the level
LEVEL_FRAMES = 250  # from then on the last 5 s of speech do
CEILING = 29000.0  # -1 dBFS: no sample is raised further


class Gain:
    """One caller. `begin` with each utterance, then `push` its frames of 20 ms in order, at whatever rate."""

    def __init__(self) -> None:
        self._level = 0.0
        self._noise = FULL_SCALE
        self._counted = 0
        self._gain = 1.0

    def begin(self) -> None:
        self._gain = 1.0
        if self._counted >= ENOUGH_FRAMES:
            self._gain = min(max(min(TARGET / self._level, NOISE_LIMIT / self._noise) ** 0.5, 1.0), MOST)

    def push(self, frame: Pcm) -> Pcm:
        samples = frame.astype(np.float32)
        power = float(np.dot(samples, samples)) / len(samples)
        self._noise = max(min(power, self._noise * NOISE_RISE), 1.0)
        if power > max(QUIETEST, OVER_NOISE * self._noise):
            self._counted = min(self._counted + 1, LEVEL_FRAMES)
            self._level += (power - self._level) / self._counted
        if self._gain == 1.0:
            return frame
        peak = float(np.abs(samples).max())
        if peak * self._gain > CEILING:
            self._gain = max(CEILING / peak, 1.0)  # until the utterance ends: down and up again is worse than down
        return (samples * self._gain).astype(np.int16)
