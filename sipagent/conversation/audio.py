"""Frames of 20 ms at 8 or 16 kHz, and how audio of one rate becomes audio of another."""

from collections.abc import AsyncIterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sipagent.conversation.interfaces import FRAME_MS, Pcm, Speech, Timed
from sipagent.core.resample import convert

# Mean square above which a frame sounds like speech: -45 dBFS. G.711's own noise is at -70, a quiet talker at -45.
SPEECH_POWER = 184.0**2


def powers(frames: Pcm) -> NDArray[np.float32]:
    """Mean square of each frame (n, samples)."""
    samples = frames.astype(np.float32)
    if len(samples) == 1:  # as mostly: half the time
        return np.array([np.dot(samples[0], samples[0]) / np.float32(samples.shape[1])])
    means: NDArray[np.float32] = np.einsum("ij,ij->i", samples, samples) / np.float32(max(1, frames.shape[1]))
    return means


def frame_samples(rate: int) -> int:
    return rate * FRAME_MS // 1000


def rate_of(frames: Pcm) -> int:
    """The rate of one frame (samples,) or several (n, samples)."""
    samples: int = frames.shape[-1]
    return samples * 1000 // FRAME_MS


def whole_frames(pcm: Pcm, rate: int) -> Pcm:
    """`pcm` followed by silence up to the end of its last frame."""
    missing = -len(pcm) % frame_samples(rate)
    return np.concatenate([pcm, np.zeros(missing, np.int16)]) if missing else pcm


def join(frames: Sequence[Pcm]) -> tuple[Pcm, int]:
    """Frames as one signal at the highest of their rates, and that rate. There must be at least one."""
    rate = max(rate_of(frame) for frame in frames)
    runs = [np.concatenate(list(run)) for _, run in groupby(frames, len)]
    if len(runs) == 1:
        return runs[0], rate
    rates = [each for each, _ in groupby(rate_of(frame) for frame in frames)]
    return np.concatenate([convert(run, each, rate) for run, each in zip(runs, rates, strict=True)]), rate


def pcm_of(piece: Speech) -> Pcm:
    return piece.pcm if isinstance(piece, Timed) else piece


async def collect(pieces: AsyncIterator[Speech]) -> Pcm:
    """All of a clause in one piece."""
    parts = [pcm_of(piece) async for piece in pieces]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)
