"""Audio of 8 kHz as 16 kHz and back, frame by frame, for many streams at once."""

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rtp import FRAME

TAPS = 81  # at 16 kHz: 65 dB of stop-band from 4 kHz on; the audio comes out 2.5 ms later
_BETA = 6.2  # of the Kaiser window, for 65 dB
_CUT = 0.475  # of half of the fast rate: the middle between pass-band (3.6 kHz) and stop-band (4 kHz)
_PAST = TAPS - 1  # fast samples before a frame that its first one needs

Ints = NDArray[np.int64]
Pcm = NDArray[np.int16]


def _low_pass() -> NDArray[np.float32]:
    n = np.arange(TAPS) - TAPS // 2
    taps = np.sinc(_CUT * n) * np.kaiser(TAPS, _BETA)
    result: NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return result


def _matrix() -> NDArray[np.float32]:
    """Filters a frame of fast samples that comes after its past: (past + frame, frame)."""
    matrix = np.zeros((_PAST + 2 * FRAME, 2 * FRAME), np.float32)
    for column in range(2 * FRAME):
        matrix[column : column + TAPS, column] = _low_pass()
    return matrix


class Conversion:
    """Each slot converts one way at a time."""

    def __init__(self, capacity: int) -> None:
        both = _matrix()
        self._up = np.ascontiguousarray(2 * both[::2])  # every other fast sample is zero, so the rest is doubled
        self._down = np.ascontiguousarray(both[:, ::2])
        self._past = np.zeros((capacity, _PAST), np.int16)

    def reset(self, slots: Ints) -> None:
        self._past[slots] = 0

    def up(self, slots: Ints, pcm: Pcm) -> Pcm:
        """(n, 160) to (n, 320)."""
        return self._filter(slots, pcm, self._up, _PAST // 2)

    def down(self, slots: Ints, pcm: Pcm) -> Pcm:
        """(n, 320) to (n, 160)."""
        return self._filter(slots, pcm, self._down, _PAST)

    def _filter(self, slots: Ints, pcm: Pcm, matrix: NDArray[np.float32], past: int) -> Pcm:
        samples = np.concatenate([self._past[slots, :past], pcm], axis=1)
        self._past[slots, :past] = samples[:, -past:]
        return saturated(np.rint(samples.astype(np.float32) @ matrix))


def saturated(samples: "NDArray[np.int32] | NDArray[np.float32]") -> Pcm:
    """As 16-bit samples; what is louder is clipped."""
    clipped: Pcm = np.clip(samples, -32768, 32767).astype(np.int16)
    return clipped
