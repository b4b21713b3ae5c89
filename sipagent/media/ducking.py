"""How loud what is queued for a line leaves: in full, ducked while the caller seems to speak, or held back.

Ducked audio moves on at a lower level. Held audio stays where it is: the frame in which it fades out is not taken from
the queue, and is played again from its beginning once it may go on, so that no word is lost.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rtp import FRAME

UNIT = 15  # bits of a factor
FULL, DUCKED = 1 << UNIT, 5827  # -15 dB: well below the caller's own voice, and still there
RAMP = 80  # samples: 10 ms from one level to another, which is heard as neither a click nor a delay


class TxMode(IntEnum):
    """Values of `Rings.tx_mode`."""

    FULL = 0
    DUCKED = 1
    HELD = 2


def _ramps() -> NDArray[np.int32]:
    """Factors of a frame's samples, by the mode of the frame before it and its own: [3, 3, 160]."""
    levels = np.array([FULL, DUCKED, 0], np.float64)
    share = np.minimum((np.arange(FRAME) + 1) / RAMP, 1.0)
    before, after = levels[:, None, None], levels[None, :, None]
    return np.rint(before + (after - before) * share).astype(np.int32)


RAMPS = _ramps()


def ducked(pcm: NDArray[np.int16], before: NDArray[np.uint8] | int, mode: NDArray[np.uint8] | int) -> NDArray[np.int16]:
    """Frames (n, 160), or (n, 320) at 16 kHz, or one, as they leave; `before` is the mode of the frames before them."""
    factors = RAMPS[before, mode]
    if pcm.shape[-1] != FRAME:
        factors = np.repeat(factors, pcm.shape[-1] // FRAME, axis=-1)
    softer: NDArray[np.int16] = ((pcm.astype(np.int32) * factors) >> UNIT).astype(np.int16)
    return softer
