"""A stereo WAV file that is whole at any time: whoever reads it after our death finds what was written until then."""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEADER = 44  # bytes
SAMPLE = 4  # bytes, of both channels
_CHUNK = 1 << 20


def header(rate: int, samples: int) -> bytes:
    """RIFF of 16-bit stereo PCM."""
    size = samples * SAMPLE
    form = struct.pack("<HHIIHH", 1, 2, rate, rate * SAMPLE, SAMPLE, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + (b"data" + struct.pack("<I", size))
    )


class StereoFile:
    """Blocking; each method raises OSError. Places are in samples since the beginning; what is left out is silence."""

    def __init__(self, path: Path, rate: int) -> None:
        """One that is there already is gone on with."""
        self._rate = rate
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.samples = max(os.fstat(self._fd).st_size - HEADER, 0) // SAMPLE
        self._write_header()

    def write(self, place: int, pcm: NDArray[np.int16]) -> None:
        """Samples (n, 2) from that place on."""
        data = memoryview(pcm.astype("<i2", copy=False).tobytes())
        at = HEADER + place * SAMPLE
        while data:
            count = os.pwrite(self._fd, data, at)
            data, at = data[count:], at + count
        self.samples = max(self.samples, place + len(pcm))
        self._write_header()

    def end(self, samples: int) -> None:
        """It is that long at least."""
        if samples > self.samples:
            os.ftruncate(self._fd, HEADER + samples * SAMPLE)
            self.samples = samples
            self._write_header()

    def sum(self) -> tuple[int, str]:
        """Its size in bytes, and the SHA-256 of it."""
        digest, at = hashlib.sha256(), 0
        while piece := os.pread(self._fd, _CHUNK, at):
            digest.update(piece)
            at += len(piece)
        return at, digest.hexdigest()

    def close(self) -> None:
        os.close(self._fd)

    def _write_header(self) -> None:
        os.pwrite(self._fd, header(self._rate, self.samples), 0)
