"""Speech made shorter or longer by one pitch period per frame, without changing its pitch, for many calls at once.

Where audio resembles itself one lag later, a cross-fade over that lag leaves it out or puts it in once more (WSOLA).
Signals are float32 (n, samples).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]
Ints = NDArray[np.int64]

SHORTEST_MS = 2.5
LONGEST_MS = 15


class Match(NamedTuple):
    lag: Ints  # (n,) samples
    likeness: NDArray[np.float32]  # (n,) normalised correlation, up to 1


def match(window: Signal, rate: int, limit: Ints | None = None) -> Match:
    """The lag at which the first 10 ms of `window` (n, 10 ms + LONGEST_MS) return within it; below `limit` (n,)."""
    shortest, longest = int(SHORTEST_MS * rate) // 1000, LONGEST_MS * rate // 1000
    template = rate // 100
    first = window[:, :template]
    region = window[:, shortest : longest + template]
    windows = np.lib.stride_tricks.sliding_window_view(region, template, axis=1)
    products = np.matmul(windows, first[:, :, None])[:, :, 0]
    sums = np.zeros((len(window), region.shape[1] + 1), np.float32)
    np.cumsum(region * region, axis=1, out=sums[:, 1:])
    energies = sums[:, template:] - sums[:, :-template]
    own = np.einsum("ij,ij->i", first, first)
    likeness = products / np.sqrt(np.maximum(energies * own[:, None], 1.0) + 1e3 * template)
    if limit is not None:
        likeness[np.arange(shortest, longest + 1) > limit[:, None]] = -1
    best = likeness.argmax(axis=1)
    return Match((best + shortest).astype(np.int64), likeness[np.arange(len(window)), best])


def level(window: Signal) -> NDArray[np.float32]:
    """RMS (n,)."""
    rms: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", window, window) / window.shape[1])
    return rms


def crossfade(window: Signal, shift: Ints, frame: int, start: int = 0) -> Signal:
    """One frame that begins as `window` does at `start` and, one |shift| later, goes on `shift` samples away from it.

    Positive shifts leave audio out, negative ones repeat it; `start` + frame + shift must lie in the window.
    """
    at = np.arange(frame)
    rows = np.arange(len(window))[:, None]
    over = np.clip((at + np.float32(0.5)) / np.maximum(np.minimum(np.abs(shift), frame), 1)[:, None], 0, 1)
    here = window[:, start : start + frame]
    there = window[rows, start + at + shift[:, None]]
    result: Signal = (here + (there - here) * over).astype(np.float32)
    return result
