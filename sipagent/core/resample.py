"""Sampling-rate conversion by polyphase filters whose stop-band begins where aliasing would.

A telephone channel ends at 4 kHz, a wideband one at 8. Speech synthesis at 22 kHz has sibilants above that; decimated
carelessly they fold down and the voice rasps. 65 dB is below the noise of G.711 (ITU-T G.711: about 38 dB).
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np
import scipy.signal
from numpy.typing import NDArray

STOPBAND_DB = 65.0
_PASS_SHARE = 0.9  # the pass-band ends at 0.9 of the lower Nyquist frequency: 3.6 kHz for 8 kHz


@lru_cache(maxsize=32)
def _filter(up: int, down: int) -> NDArray[np.float32]:
    """The low-pass at `up` times the source rate, its stop-band from the lower of the two Nyquist frequencies."""
    nyquist = 1.0 / max(up, down)  # of the slower side, as a share of the fast rate's own Nyquist frequency
    width = nyquist * (1.0 - _PASS_SHARE)
    taps, beta = scipy.signal.kaiserord(STOPBAND_DB, width)
    length = int(taps) | 1  # odd: the delay is a whole number of samples, which resample_poly takes out
    result: NDArray[np.float64] = scipy.signal.firwin(length, nyquist - width / 2, window=("kaiser", beta))
    return result.astype(np.float32)


def resample(audio: NDArray[np.float32], source_hz: float, target_hz: int) -> NDArray[np.float32]:
    """The whole of `audio` at the new rate; the length follows the ratio, rounded up. Not for streams."""
    ratio = Fraction(target_hz / source_hz).limit_denominator(441)
    if ratio == 1 or not len(audio):
        return audio
    up, down = ratio.numerator, ratio.denominator
    result: NDArray[np.float32] = scipy.signal.resample_poly(audio, up, down, window=_filter(up, down))
    return result


def convert(pcm: NDArray[np.int16], source_hz: int, target_hz: int) -> NDArray[np.int16]:
    """As `resample`, of 16-bit samples."""
    return pcm if source_hz == target_hz else to_int16(resample(to_float(pcm), source_hz, target_hz))


def to_float(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Samples as -1..1."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def to_int16(audio: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples of -1..1 as 16-bit integers; beyond that they are clipped."""
    samples: NDArray[np.int16] = np.clip(np.rint(audio * 32767.0), -32768, 32767).astype(np.int16)
    return samples


class StreamConverter:
    """As `convert`, of audio that comes in pieces: what it has given in the end is the same, some 10 ms later."""

    def __init__(self, source_hz: int, target_hz: int) -> None:
        ratio = Fraction(target_hz, source_hz).limit_denominator(441)
        self._up, self._down = ratio.numerator, ratio.denominator
        # Input samples on each side of an output sample that it depends on.
        self._reach = 0 if ratio == 1 else len(_filter(self._up, self._down)) // (2 * self._up) + 1
        self._kept = np.empty(0, np.int16)
        self._given = 0  # output samples, counted from where `_kept` begins

    def push(self, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        """What is certain by now; may be empty."""
        if not self._reach:
            return pcm
        self._kept = np.concatenate([self._kept, pcm])
        result = self._take((len(self._kept) - self._reach) * self._up // self._down)
        spent = (self._given * self._down // self._up - self._reach) // self._down * self._down
        if spent > 0:
            self._kept = self._kept[spent:]
            self._given -= spent // self._down * self._up
        return result

    def flush(self) -> NDArray[np.int16]:
        """The rest; nothing may be pushed after it."""
        return self._take(-(-len(self._kept) * self._up // self._down)) if self._reach else self._kept

    def _take(self, end: int) -> NDArray[np.int16]:
        if end <= self._given:
            return np.empty(0, np.int16)
        audio = to_float(self._kept)
        filtered = scipy.signal.resample_poly(audio, self._up, self._down, window=_filter(self._up, self._down))
        result = to_int16(filtered[self._given : end])
        self._given = end
        return result
