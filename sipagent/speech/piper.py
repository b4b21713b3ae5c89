"""Piper voices: a clause of text to a clause of telephone speech."""

import json
import logging
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from piper import PiperConfig, PiperVoice, SynthesisConfig

from sipagent.core.resample import resample, to_int16
from sipagent.speech.text import speakable

# Piper logs the text it speaks, at level DEBUG; what is said in calls stays out of the logs.
logging.getLogger("piper").setLevel(logging.WARNING)

SLOWEST, FASTEST = 0.5, 2.0
LOWEST, HIGHEST = 0.7, 1.5

# Piper rounds every sound's duration up to whole frames of 11.6 ms, so a share of the length does not follow
# its length_scale. Measured with the voice joe between 0.5 and 2: length = 0.25 + 0.75 scale, within 4 %.
FIXED_SHARE = 0.25
SHORTEST_SCALE = 0.2

LEAD_MS = 30  # silence kept before the first sound: latency, but a plosive needs a beginning
TAIL_MS = 80  # kept behind the last, so that clauses do not run into each other
STEP_MS = 5  # the grain of the trimming
SOUND_DB = 45.0  # below the loudest 5 ms by more than this: silence, or the voice model's own noise
FADE_MS = 3

SPEECH_DBFS = -20.0  # RMS of active speech; where ITU-T P.56 practice puts telephone speech is -26 to -16
ACTIVE_DB = 25.0  # 5 ms within this of the loudest count as active
PEAK_DBFS = -3.0


class Voice:
    """One Piper voice; an inference runs on `threads` threads. Not for several threads at once."""

    def __init__(self, model: Path, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Not PiperVoice.load: it gives the session every core, and takes them from the media process.
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        config = json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))
        self._voice = PiperVoice(session=session, config=PiperConfig.from_dict(config))

    def synthesize(self, text: str, rate: int, speed: float = 1.0, pitch: float = 1.0) -> NDArray[np.int16]:
        """Speech at `rate` Hz and about -20 dBFS, trimmed; empty when `text` has nothing to say.

        `speed` 0.5..2 and `pitch` 0.7..1.5 relative to the voice as it is; values outside are brought inside. Pitch is
        made by playing a slower or faster rendering at another rate, so formants move with it.
        """
        speed = min(max(speed, SLOWEST), FASTEST)
        pitch = round(min(max(pitch, LOWEST), HIGHEST), 2)  # rounded: each ratio has a filter of its own
        words = speakable(text)
        if not words:
            return np.zeros(0, np.int16)
        scale = max(SHORTEST_SCALE, (pitch / speed - FIXED_SHARE) / (1.0 - FIXED_SHARE))
        config = SynthesisConfig(length_scale=scale)
        chunks = list(self._voice.synthesize(words, config))
        if not chunks:
            return np.zeros(0, np.int16)
        audio = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float32)
        return to_int16(level(trim(resample(audio, chunks[0].sample_rate * pitch, rate), rate), rate))


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
