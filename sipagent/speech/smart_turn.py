"""Whether a pause sounds like the end of a turn: Pipecat's smart-turn v3, a network that hears the melody of speech.

It was trained on the last 8 s before a pause, at 16 kHz, aligned to their end (Pipecat's documentation of the model);
it knows no words. 31 ms of an idle core. Alone it errs too often to end a turn: it makes the wait longer or shorter.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipagent.core.resample import resample, to_float
from sipagent.speech.mel import RATE, log_mel

WINDOW_S = 8
_SAMPLES = WINDOW_S * RATE
_LEAST_VARIANCE = 1e-7


class SmartTurn:
    """One network; state lives in the audio only, so it serves every call."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        import onnxruntime  # here: a worker without this model must start without the library

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def judge(self, pcm: NDArray[np.int16], rate: int) -> float:
        """Probability (0..1) that a turn is complete whose audio up to the pause is `pcm` at `rate` Hz."""
        audio = resample(to_float(pcm[-WINDOW_S * rate :]), rate, RATE)[-_SAMPLES:]
        window = np.zeros(_SAMPLES, np.float32)
        window[_SAMPLES - len(audio) :] = audio
        window = (window - window.mean()) / np.sqrt(window.var() + _LEAST_VARIANCE)
        features = log_mel(window.astype(np.float32, copy=False), _SAMPLES)
        (probability,) = self._session.run(None, {"input_features": features[np.newaxis]})
        return float(np.ravel(probability)[0])
