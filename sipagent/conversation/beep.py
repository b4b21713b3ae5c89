"""Tones in what a callee's line says: the beep of a voicemail, a fax, information tones. Pure; a frame is 20 ms.

A tone is one frequency that carries nearly all of the power and stays where it is. Speech does neither for long; keys
have two frequencies of the same strength, and so are none.
"""

from dataclasses import dataclass

import numpy as np

from sipagent.conversation.audio import rate_of
from sipagent.conversation.interfaces import FRAME_MS, Pcm

LOWEST_HZ, HIGHEST_HZ = 390.0, 2600.0  # m and n are as pure for 140 ms, at 310 to 370 Hz
PURE = 0.93  # of the power, within the peak
STEADY_HZ = 25.0  # how far it may wander from frame to frame
QUIET = 60.0  # RMS of int16 samples (-55 dBFS) below which there is no tone
SHORTEST_MS = 120
_PADDED = 4  # zero padding: the peak is found to a few Hz
_NEAR = 60.0  # Hz on either side that belong to the peak: the main lobe of a Hann window of 40 ms


@dataclass(frozen=True, slots=True)
class Tone:
    hz: float
    ms: int  # it has lasted
    over: bool


class ToneWatch:
    """Hears one line, in order."""

    def __init__(self) -> None:
        self._before: Pcm | None = None
        self._hz = 0.0
        self._frames = 0

    def push(self, frame: Pcm) -> Tone | None:
        """The tone that is on, or that ended with this frame; None while there is none."""
        before, self._before = self._before, frame
        hz = 0.0
        if before is not None and len(before) == len(frame):
            hz = _peak(np.concatenate([before, frame]), rate_of(frame))
        if hz and self._frames and abs(hz - self._hz) <= STEADY_HZ:
            self._frames += 1
            self._hz = hz
            return Tone(hz, self._ms, over=False) if self._ms >= SHORTEST_MS else None
        was = Tone(self._hz, self._ms, over=True) if self._ms >= SHORTEST_MS else None
        self._hz, self._frames = hz, int(hz > 0)
        return was

    @property
    def _ms(self) -> int:
        return self._frames * FRAME_MS


def _peak(pcm: Pcm, rate: int) -> float:
    """The frequency that carries nearly all of it, 0 when none does."""
    samples = pcm.astype(np.float32)
    samples -= samples.mean()
    if float(np.sqrt(np.mean(samples**2))) < QUIET:
        return 0.0
    size = len(samples) * _PADDED
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size)) ** 2
    hz = np.fft.rfftfreq(size, 1.0 / rate)
    top = float(hz[int(np.argmax(power))])
    if not LOWEST_HZ <= top <= HIGHEST_HZ:
        return 0.0
    near = np.abs(hz - top) <= _NEAR
    return top if float(power[near].sum()) >= PURE * float(power.sum()) else 0.0
