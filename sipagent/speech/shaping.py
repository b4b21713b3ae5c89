"""Synthesised speech made fit for the line: no silence around it, and as loud as speech on a telephone."""

import numpy as np
from numpy.typing import NDArray

LEAD_MS = 30  # silence kept before the first sound: latency, but a plosive needs a beginning
TAIL_MS = 80  # kept behind the last, so that clauses do not run into each other
STEP_MS = 5  # the grain of the trimming
SOUND_DB = 45.0  # below the loudest 5 ms by more than this: silence, or the voice model's own noise
FADE_MS = 3

SPEECH_DBFS = -20.0  # RMS of active speech; where ITU-T P.56 practice puts telephone speech is -26 to -16
ACTIVE_DB = 25.0  # 5 ms within this of the loudest count as active
PEAK_DBFS = -3.0


def _levels_db(audio: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    frames = audio[: len(audio) // step * step].reshape(-1, step)
    levels: NDArray[np.float32] = 10.0 * np.log10(np.maximum(np.mean(frames**2, axis=1), np.float32(1e-12)))
    return levels


def trim(audio: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """`audio` with at most 30 ms before its first sound and 80 ms behind its last, faded at both ends."""
    step, fade = rate * STEP_MS // 1000, rate * FADE_MS // 1000
    levels = _levels_db(audio, step)
    if not len(levels):
        return audio[:0]
    sound = np.flatnonzero(levels > levels.max() - SOUND_DB)
    first = max(0, int(sound[0]) * step - LEAD_MS * rate // 1000)
    last = (int(sound[-1]) + 1) * step + TAIL_MS * rate // 1000
    kept = audio[first:last].copy()
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    if len(kept) >= 2 * fade:
        kept[:fade] *= ramp
        kept[-fade:] *= ramp[::-1]
    return kept


def level(audio: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """`audio` scaled until its active parts have -20 dBFS, or its peak -3 dBFS, whichever comes first."""
    levels = _levels_db(audio, rate * STEP_MS // 1000)
    if not len(levels) or levels.max() < -100.0:
        return audio
    active = levels[levels > levels.max() - ACTIVE_DB]
    rms_db = 10.0 * float(np.log10(np.mean(10.0 ** (active / 10.0))))
    peak_db = 20.0 * float(np.log10(np.abs(audio).max()))
    return audio * np.float32(10.0 ** (min(SPEECH_DBFS - rms_db, PEAK_DBFS - peak_db) / 20.0))
