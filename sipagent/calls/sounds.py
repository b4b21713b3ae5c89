"""WAV files as telephone audio, from the disk or from a server."""

import asyncio
import io
import wave
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sipagent.conversation.interfaces import Pcm
from sipagent.core.errors import ConfigError
from sipagent.core.resample import convert
from sipagent.web.client import WebClient, WebError

MAX_SECONDS = 600
MAX_FETCHED = 20 << 20  # bytes; a minute of 16-bit stereo at 48 kHz has 11 MB
FETCH_LIMIT_S = 15.0
RATES = range(4000, 192_001)  # Hz
CACHED_BYTES = 1 << 20  # a larger file, about a minute at 8 kHz, is read each time it is played
CACHED_FILES = 32
NOTHING = np.zeros(0, np.int16)


def beside(folder: str, file: str) -> Path:
    """A file of a dialplan's folder. Raises ConfigError where a call has no dialplan that was read from one."""
    if not folder:
        raise ConfigError(f"{file}: this call follows no dialplan, beside which the file could be: give a URL")
    return Path(folder) / file


def read_wav(path: Path, rate: int) -> Pcm:
    """A mono or stereo (first channel is taken) 16-bit WAV file of any rate, at `rate`. Raises ConfigError.

    The result may be shared and is read-only. A file that has changed is read again.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if status.st_size > CACHED_BYTES:
        return _read(path, rate)
    return _cached(path, status.st_mtime_ns, status.st_size, rate)


@lru_cache(maxsize=CACHED_FILES)
def _cached(path: Path, changed_ns: int, size: int, rate: int) -> Pcm:
    return _read(path, rate)


async def fetch_wav(web: WebClient, url: str, rate: int) -> Pcm:
    """The same from a server. Raises ConfigError."""
    sound = await fetch_sound(web, url)
    return await asyncio.to_thread(sound, rate)


async def fetch_sound(web: WebClient, url: str) -> Callable[[int], Pcm]:
    """A WAV file from a server, at any rate; asking for it raises ConfigError where it is none. Raises ConfigError."""
    try:
        answer = await web.get(url, timeout_s=FETCH_LIMIT_S, max_bytes=MAX_FETCHED)
    except WebError as error:
        raise ConfigError(f"the audio file cannot be fetched: {error}") from error
    if not answer.ok:
        raise ConfigError(f"the audio file cannot be fetched: the server answered {answer.status}")
    return lambda rate: _parse(io.BytesIO(answer.body), "the audio file", rate)


def is_url(file: str) -> bool:
    return file.startswith(("http://", "https://"))


def _read(path: Path, rate: int) -> Pcm:
    try:
        with path.open("rb") as file:
            return _parse(file, str(path), rate)
    except OSError as error:
        raise _unreadable(path, error) from error


def _parse(source: BinaryIO, name: str, rate: int) -> Pcm:
    try:
        with wave.open(source, "rb") as file:
            recorded, channels, width, count = (
                file.getframerate(),
                file.getnchannels(),
                file.getsampwidth(),
                file.getnframes(),
            )
            if width != 2 or recorded not in RATES or count > MAX_SECONDS * recorded:
                raise ConfigError(f"{name}: needs 16-bit samples, 4 to 192 kHz and at most {MAX_SECONDS} s")
            data = file.readframes(count)  # fewer bytes than the header says where it was cut off
            pcm = np.frombuffer(data[: len(data) // 2 * 2], "<i2")[::channels]
    except (EOFError, wave.Error) as error:
        raise _unreadable(name, error) from error
    sound = convert(pcm.astype(np.int16), recorded, rate)
    sound.setflags(write=False)
    return sound


def _unreadable(path: Path | str, error: Exception) -> ConfigError:
    return ConfigError(f"{path}: not a readable WAV file ({error})")


def write_stereo_wav(path: Path, left: Pcm, right: Pcm, rate: int) -> None:
    """Two signals as one stereo file; the shorter one is filled with silence."""
    both = np.zeros((max(len(left), len(right)), 2), "<i2")
    both[: len(left), 0] = left
    both[: len(right), 1] = right
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(both.tobytes())
