"""WAV files as 8 kHz audio."""

import wave
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from sipagent.conversation.interfaces import Pcm
from sipagent.core.errors import ConfigError

MAX_SECONDS = 600
RATE = 8000


def read_wav(path: Path) -> Pcm:
    """A mono or stereo (first channel is taken) 16-bit WAV file of any rate, at 8 kHz. Raises ConfigError."""
    try:
        with wave.open(str(path), "rb") as file:
            rate, channels, width, count = (
                file.getframerate(),
                file.getnchannels(),
                file.getsampwidth(),
                file.getnframes(),
            )
            if width != 2 or count > MAX_SECONDS * rate:
                raise ConfigError(f"{path}: needs 16-bit samples and at most {MAX_SECONDS} s")
            pcm = np.frombuffer(file.readframes(count), "<i2")[::channels]
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(f"{path}: not a readable WAV file ({error})") from error
    if rate == RATE:
        return pcm.astype(np.int16)
    divisor = int(np.gcd(rate, RATE))
    scaled = resample_poly(pcm.astype(np.float64), RATE // divisor, rate // divisor)
    eight: Pcm = np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)
    return eight


def write_stereo_wav(path: Path, left: Pcm, right: Pcm) -> None:
    """Two 8 kHz int16 signals as one stereo file; the shorter one is filled with silence."""
    both = np.zeros((max(len(left), len(right)), 2), "<i2")
    both[: len(left), 0] = left
    both[: len(right), 1] = right
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(both.tobytes())
