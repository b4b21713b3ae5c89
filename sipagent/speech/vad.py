"""Voice activity of one call, a decision per 20 ms frame of 8 or 16 kHz audio.

Three detectors, compared by `bench/vad.py`:

- `webrtc`: the Gaussian-mixture detector of WebRTC in its strictest mode. Takes every key tone for speech.
- `silero`: Silero's recurrent network, which takes either rate as it is. Knows noise and tones from speech.
- `gated`: Silero, running only while the line is loud enough to hold speech: a quiet line costs next to nothing.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from sipagent.core.errors import SetupError
from sipagent.speech.models import INSTALL_COMMAND, locate
from sipagent.speech.settings import SpeechSettings

FRAME_S = 0.02

QUIET_DBFS = -55.0  # a frame below this is no speech on a telephone; G.711's noise is at -70, a quiet talker at -45
STRICTEST = 3  # of WebRTC's modes; 0 to 2 call noise at 10 dB, ringback and comfort noise speech

WINDOW_MS = 32  # of audio that Silero takes at once, with the 4 ms before them
CONTEXT_MS = 4
BEGIN, GO_ON = 0.5, 0.35  # probability that starts speech, and that which keeps it; the model's authors' own pair

GATE_OVER_FLOOR_DB = 4.0  # the gate opens for a frame this far above the noise floor; steady noise varies by 1 dB
FLOOR_RISE_DB_S = 3.0  # how fast the floor follows a rising noise; it falls at once
GATE_FRAMES = 15  # the gate stays open 300 ms behind the last loud frame
RECALL_FRAMES = 8  # 160 ms before the gate opened are heard too: soft onsets, and a state to judge from
RESET_FRAMES = 100  # after 2 s of quiet the network's state belongs to another conversation


class VoiceDetector(Protocol):
    """Hears one call, in order. `push` takes frames (n, samples of 20 ms) and gives n decisions (bool)."""

    def push(self, frames: NDArray[np.int16]) -> NDArray[np.bool_]: ...


def _ratio(db: float) -> float:
    return float(10.0 ** (db / 10.0))


QUIET_POWER = _ratio(QUIET_DBFS) * 32768.0**2
_OVER_FLOOR = _ratio(GATE_OVER_FLOOR_DB)
_FLOOR_RISE = _ratio(FLOOR_RISE_DB_S * FRAME_S)


def power(frame: NDArray[np.int16]) -> float:
    """Mean square of the samples. One frame at a time: in a call there is no second one to share numpy's cost with."""
    samples = frame.astype(np.float32)
    return float(np.dot(samples, samples)) / len(frame)


class WebrtcDetector:
    """WebRTC's detector, not asked about frames too quiet to matter. 4 µs a frame."""

    def __init__(self, rate: int) -> None:
        self._vad = webrtcvad.Vad(STRICTEST)
        self._rate = rate

    def push(self, frames: NDArray[np.int16]) -> NDArray[np.bool_]:
        # Asked even about quiet frames: its noise model learns from them.
        return np.array(
            [self._vad.is_speech(frame.tobytes(), self._rate) and power(frame) > QUIET_POWER for frame in frames],
            np.bool_,
        )


class Silero:
    """The network itself; one session serves every call, since the state is passed in and out."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime  # here: without it, or the model, the WebRTC detector must still work
        except ImportError as error:
            raise SetupError(f"this voice detector needs onnxruntime; type: {INSTALL_COMMAND}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(
        self, window: NDArray[np.float32], state: NDArray[np.float32], rate: NDArray[np.int64]
    ) -> tuple[float, NDArray[np.float32]]:
        """Probability of speech in a window (1, samples of 36 ms) at `rate` (), and the next state (2, 1, 128)."""
        probability, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
        return float(probability[0, 0]), state


class SileroDetector:
    """Silero on every window. 50 to 120 µs a frame, by what else the core does.

    A frame's decision is that of the last whole window by its end.
    """

    def __init__(self, network: Silero, rate: int) -> None:
        self._network = network
        self._rate = np.array(rate, np.int64)
        self._window = rate * WINDOW_MS // 1000
        self._context = rate * CONTEXT_MS // 1000
        self._samples = np.zeros((1, self._context + self._window), np.float32)
        self.reset()

    def reset(self) -> None:
        self._state = np.zeros((2, 1, 128), np.float32)
        self._samples[:] = 0.0
        self._filled = 0
        self.speaking = False

    def push(self, frames: NDArray[np.int16]) -> NDArray[np.bool_]:
        return np.array([self.hear(frame) for frame in frames], np.bool_)

    def hear(self, frame: NDArray[np.int16]) -> bool:
        audio = frame.astype(np.float32) / np.float32(32768.0)
        while len(audio):
            part = audio[: self._window - self._filled]
            begin = self._context + self._filled
            self._samples[0, begin : begin + len(part)] = part
            self._filled += len(part)
            audio = audio[len(part) :]
            if self._filled == self._window:
                probability, self._state = self._network.run(self._samples, self._state, self._rate)
                self._samples[0, : self._context] = self._samples[0, -self._context :]
                self._filled = 0
                self.speaking = probability > (GO_ON if self.speaking else BEGIN)
        return self.speaking


class GatedDetector:
    """Silero behind a gate that looks at the level only.

    Closed while the line is at its noise floor. When a frame is louder, the network hears the last 160 ms first.
    """

    def __init__(self, network: Silero, rate: int) -> None:
        self._silero = SileroDetector(network, rate)
        self._recent: deque[NDArray[np.int16]] = deque(maxlen=RECALL_FRAMES)  # heard by nobody yet
        self._floor = QUIET_POWER
        self._since_loud = RESET_FRAMES

    def push(self, frames: NDArray[np.int16]) -> NDArray[np.bool_]:
        return np.array([self._hear(frame) for frame in frames], np.bool_)

    def _hear(self, frame: NDArray[np.int16]) -> bool:
        now = power(frame)
        self._floor = max(min(now, self._floor * _FLOOR_RISE), 1.0)  # never zero, from where it could not rise
        if now > max(QUIET_POWER, self._floor * _OVER_FLOOR):
            if self._since_loud >= RESET_FRAMES:
                self._silero.reset()
            if self._since_loud >= GATE_FRAMES:
                for earlier in self._recent:
                    self._silero.hear(earlier)
            self._since_loud = 0
        else:
            self._since_loud += 1
        if self._since_loud < GATE_FRAMES:
            self._recent.clear()
            return self._silero.hear(frame)
        self._silero.speaking = False
        self._recent.append(frame.copy())
        return False


def make_vad(settings: SpeechSettings) -> Callable[[int], VoiceDetector]:
    """What makes a detector for a call's audio of a rate.

    SetupError when the chosen kind's package or model is missing.
    """
    if settings.vad == "webrtc":
        return WebrtcDetector
    network = Silero(locate(settings.vad_model, "vad", settings.model_dir))
    if settings.vad == "silero":
        return lambda rate: SileroDetector(network, rate)
    return lambda rate: GatedDetector(network, rate)
