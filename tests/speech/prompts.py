"""Recorded human speech for tests and benches: Debian's Asterisk prompts with their transcripts, G.711 and G.722."""

import gzip
import re
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.core.resample import convert
from sipagent.media.g722 import Decoder, Encoder
from tests.wer import normalise

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
INSTALL = "type: apt-get install asterisk-core-sounds-en asterisk-core-sounds-en-wav"


class Prompt(NamedTuple):
    name: str
    text: str
    pcm: NDArray[np.int16]  # 8 kHz


def read_wav(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2), path
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def prompts(count: int, *, words: tuple[int, int] = (3, 30), longest_s: float = 12.0) -> list[Prompt]:
    """`count` prompts of so many words, spread evenly over the collection; the same ones every time."""
    if not (SOUNDS.is_dir() and TRANSCRIPTS.is_file()):
        raise FileNotFoundError(f"the recorded prompts are not installed; {INSTALL}")
    found: list[Prompt] = []
    for line in gzip.decompress(TRANSCRIPTS.read_bytes()).decode("utf-8", "replace").splitlines():
        name, colon, text = line.partition(":")
        path = SOUNDS / f"{name.strip()}.wav"
        # Transcripts with brackets or dots describe sounds or unfinished sentences.
        if line.startswith(";") or not colon or re.search(r"[\[\]()<>]|\.\.\.", text) or not path.is_file():
            continue
        if words[0] <= len(normalise(text).split()) <= words[1]:
            pcm = read_wav(path)
            if 0.4 <= len(pcm) / 8000 <= longest_s:
                found.append(Prompt(name.strip(), text.strip(), pcm))
    if len(found) < count:
        raise FileNotFoundError(f"only {len(found)} usable prompts of {count}; {INSTALL}")
    return [found[i * len(found) // count] for i in range(count)]


def through_ulaw(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    """What is left of `pcm` behind a PCMU line (ITU-T G.711), by arithmetic: independent of the table in media/."""
    sign = np.where(pcm < 0, -1, 1)
    magnitude = np.minimum(np.abs(pcm.astype(np.int32)), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    result: NDArray[np.int16] = (sign * ((((mantissa << 3) + 132) << exponent) - 132)).astype(np.int16)
    return result


def through_g722(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    """8 kHz audio as a G.722 line brings it, at 16 kHz."""
    return Decoder().decode(Encoder().encode(convert(pcm, 8000, 16_000)))


def tones(*hz: float, seconds: float = 2.0, amplitude: float = 4000.0) -> NDArray[np.int16]:
    time = np.arange(int(seconds * 8000)) / 8000
    wave_form: NDArray[np.float64] = np.sum([amplitude * np.sin(2 * np.pi * f * time) for f in hz], axis=0)
    return wave_form.astype(np.int16)


def ringback(seconds: float = 6.0) -> NDArray[np.int16]:
    """North American ringback tone: 440 and 480 Hz, 2 s on, 4 s off (here 1 s on, 1 s off)."""
    tone = tones(440, 480, seconds=seconds, amplitude=3000)
    return np.where(np.arange(len(tone)) % 16000 < 8000, tone, 0).astype(np.int16)


def noise(dbfs: float, seconds: float = 3.0, seed: int = 0) -> NDArray[np.int16]:
    """White noise of this RMS."""
    rms = 32768 * 10 ** (dbfs / 20)
    return np.clip(np.random.default_rng(seed).normal(0, rms, int(seconds * 8000)), -32768, 32767).astype(np.int16)
