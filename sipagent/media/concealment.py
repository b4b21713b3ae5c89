"""Audio in place of what was lost, for many calls at once: repetition of the pitch, from the past and from the future.

After the idea of ITU-T G.711 Appendix I: the last one, then two, then three pitch periods are repeated and fade. Where
the audio behind the hole has already come, the hole is bridged: the past is carried forward, the future backward, and
one fades into the other. All signals are float32 (n, samples); `rate` is 8000 or 16000.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]
Ints = NDArray[np.int64]

SHORTEST_MS = 2.5  # of a pitch period: 400 Hz
LONGEST_MS = 15  # 66 Hz
TEMPLATE_MS = 7  # of audio that must resemble itself one period earlier
HISTORY_MS = 60  # what `pitch` and `extend` want to see
_HOLD_MS = 0  # before concealment begins to fade
_SILENT_MS = 120  # after which it has faded
_JOIN_MS = 2.5  # of cross-fade where a repetition starts over


class Pitch(NamedTuple):
    lag: Ints  # (n,) samples
    likeness: NDArray[np.float32]  # (n,) normalised correlation one lag apart, up to 1


def pitch(history: Signal, rate: int) -> Pitch:
    """The period of the newest audio in `history` (n, HISTORY_MS)."""
    shortest, longest = int(SHORTEST_MS * rate) // 1000, LONGEST_MS * rate // 1000
    template = TEMPLATE_MS * rate // 1000
    newest = history[:, -template:]
    region = history[:, -template - longest : -shortest]
    windows = np.lib.stride_tricks.sliding_window_view(region, template, axis=1)  # the longest lag first
    products = np.matmul(windows, newest[:, :, None])[:, :, 0]
    sums = np.zeros((len(history), region.shape[1] + 1), np.float32)
    np.cumsum(region * region, axis=1, out=sums[:, 1:])
    energies = sums[:, template:] - sums[:, :-template]
    own = np.einsum("ij,ij->i", newest, newest)
    likeness = products / np.sqrt(np.maximum(energies * own[:, None], 1.0) + 1e3 * template)
    best = likeness.argmax(axis=1)
    return Pitch((longest - best).astype(np.int64), likeness[np.arange(len(history)), best])


def fade(start: Ints, count: int, rate: int) -> Signal:
    """Gain (n, count) of concealment that has lasted `start` samples."""
    lasted = start[:, None] + np.arange(count)
    hold, silent = _HOLD_MS * rate // 1000, _SILENT_MS * rate // 1000
    return np.clip((silent - lasted) / np.float32(silent - hold), 0, 1).astype(np.float32)


def rising(count: int) -> Signal:
    """The weight (count,) of what fades in."""
    weight: Signal = (np.arange(1, count + 1) / (count + 1)).astype(np.float32)
    return weight


def extend(history: Signal, lag: Ints, start: Ints, count: int, rate: int) -> Signal:
    """`history` carried on by repetition: the samples start .. start + count after it, without fading."""
    length, join = history.shape[1], int(_JOIN_MS * rate) // 1000
    step = rate // 100
    at = start[:, None] + np.arange(count)
    rows = np.arange(len(history))[:, None]
    join_of = np.minimum(join, lag // 2)[:, None]
    result = np.zeros((len(history), count), np.float32)
    for periods in (1, 2, 3):
        begins = (periods - 1) * step
        weight: Signal = np.clip((at - begins) / join + 1, periods == 1, 1).astype(np.float32)
        if not weight.any():
            break
        fits = np.minimum(periods, (length - join) // lag)[:, None]
        whole = fits * lag[:, None]
        within = at % whole
        repeated = history[rows, length - whole + within]
        # The end of the repeated part turns into what precedes its beginning, so that it joins itself.
        closing = np.clip((within - (whole - join_of)) / np.maximum(join_of, 1), 0, 1).astype(np.float32)
        before = history[rows, length - whole + np.where(closing > 0, within - whole, 0)]
        repeated = repeated + (before - repeated) * closing
        result = (result + (repeated - result) * weight).astype(np.float32)
    # The first samples go on from the very last one of the past.
    click = history[:, -1] - history[np.arange(len(history)), length - lag - 1]
    result += click[:, None] * np.clip(1 - (at + 1) / np.float32(join), 0, 1).astype(np.float32)
    return result


def bridge(past: Signal, future: Signal, start: Ints, count: int, rate: int) -> Signal:
    """`count` samples between the two: the past carried forward, fading into the future carried backward.

    `start` samples (n,) of the past's repetition have been played already.
    """
    forward = extend(past, pitch(past, rate).lag, start, count, rate) * fade(start, count, rate)
    mirrored = np.ascontiguousarray(future[:, ::-1])
    nothing = np.zeros_like(start)
    backward = extend(mirrored, pitch(mirrored, rate).lag, nothing, count, rate) * fade(nothing, count, rate)
    audio: Signal = (forward + (backward[:, ::-1] - forward) * rising(count)).astype(np.float32)
    return audio
