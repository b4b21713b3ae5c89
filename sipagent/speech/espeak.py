"""eSpeak NG: a synthetic voice for some hundred languages, in the library that the package `espeakng-loader` carries.

It sounds like a machine, needs a thousandth of real time and no model, and so is the voice of languages for which no
better one is at hand. The library has one voice at a time for the whole process.
"""

import ctypes
import threading

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from sipagent.core.errors import SetupError
from sipagent.core.resample import resample, to_float, to_int16
from sipagent.speech.shaping import level, trim
from sipagent.speech.text import speakable

WORDS_A_MINUTE = 165  # eSpeak's own 175 is hasty on a telephone
SLOWEST, FASTEST = 0.5, 2.0
LONGEST_S = 120

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_BY_CHARACTER, _UTF8 = 1, 1
_OK = 0

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """One language's voice, by eSpeak's name for it ("de", "en-us"). SetupError when there is none of that name."""

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0))
        if self._rate <= 0:
            raise SetupError(
                "eSpeak could not be started: its data files are missing; type: pip install espeakng-loader"
            )
        if self._library.espeak_SetVoiceByName(name.encode()) != _OK:
            raise SetupError(f"eSpeak has no voice `{name}`: give the code of a language, as in espeak:de")
        self._parts: list[bytes] = []
        self._samples = 0
        self._callback = _Callback(self._take)  # kept: the library calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def synthesize(self, text: str, rate: int, speed: float = 1.0, pitch: float = 1.0) -> NDArray[np.int16]:
        """Speech at `rate` Hz and about -20 dBFS, trimmed; empty when `text` has nothing to say."""
        words = speakable(text).encode() + b"\0"
        if words == b"\0":
            return np.zeros(0, np.int16)
        with self._lock:
            self._parts, self._samples = [], 0
            wanted = int(WORDS_A_MINUTE * min(max(speed, SLOWEST), FASTEST))
            self._library.espeak_SetParameter(_RATE, wanted, 0)
            self._library.espeak_SetParameter(_PITCH, int(min(max(50 * pitch, 0), 99)), 0)
            self._library.espeak_Synth(words, len(words), 0, _BY_CHARACTER, 0, _UTF8, None, None)
            audio = np.frombuffer(b"".join(self._parts), np.int16)
        if not len(audio):
            return np.zeros(0, np.int16)
        return to_int16(level(trim(resample(to_float(audio), self._rate, rate), rate), rate))

    def _take(self, audio: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        """Called by the library with each piece; 1 ends the synthesis."""
        if audio and count > 0:
            self._parts.append(ctypes.string_at(audio, count * 2))
            self._samples += count
        return int(self._samples > LONGEST_S * self._rate)
