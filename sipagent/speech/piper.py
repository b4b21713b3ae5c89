"""Piper voices: a clause of text to a clause of telephone speech."""

import json
import logging
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from piper import PiperConfig, PiperVoice, SynthesisConfig

from sipagent.core.resample import resample, to_int16
from sipagent.speech.shaping import level, trim
from sipagent.speech.text import speakable

# Piper logs the text it speaks, at level DEBUG; what is said in calls stays out of the logs.
logging.getLogger("piper").setLevel(logging.WARNING)

SLOWEST, FASTEST = 0.5, 2.0
LOWEST, HIGHEST = 0.7, 1.5

# Piper rounds every sound's duration up to whole frames of 11.6 ms, so a share of the length does not follow
# its length_scale. Measured with the voice joe between 0.5 and 2: length = 0.25 + 0.75 scale, within 4 %.
FIXED_SHARE = 0.25
SHORTEST_SCALE = 0.2


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
