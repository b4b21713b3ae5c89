"""Level meters of a line: how loud the speech is that came and that left lately."""

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, RX_FRAMES, Rings
from sipagent.media.rtp import FRAME, RATE

WINDOW = 250  # frames: the 5 s between two reports
EVERY = 10  # frames looked at: one in ten tells the level of speech to about 1 dB
PAUSE_DB = 20  # this far below the loudest is no speech but a pause
SILENCE = 60  # -dBov from which a whole line is silent
INVENTED = FLAG_CONCEALED | FLAG_SILENCE | FLAG_DIGIT
_FULL_SCALE = 10 * np.log10(32768.0**2 * FRAME)


def level(pcm: NDArray[np.int16]) -> NDArray[np.uint8]:
    """-dBov of each row, 0 (full scale) to 127 (digital silence), as RFC 6464 counts."""
    samples = pcm.astype(np.float32)
    power = np.einsum("ij,ij->i", samples, samples)
    full = _FULL_SCALE + 10 * np.log10(pcm.shape[1] / FRAME)
    quiet: NDArray[np.uint8] = np.clip(np.rint(full - 10 * np.log10(power + 1e-3)), 0, 127).astype(np.uint8)
    return quiet


def speech_level(levels: NDArray[np.uint8]) -> float | None:
    """dBov of the speech in frames of these levels, pauses left out (as ITU-T P.56 does); None when all is silent."""
    if not len(levels) or levels.min() >= SILENCE:
        return None
    loud = levels[levels < int(levels.min()) + PAUSE_DB].astype(np.float64)
    return float(10 * np.log10(np.mean(10 ** (-loud / 10))))


def lately(rings: Rings, slot: int) -> tuple[float | None, float | None]:
    """What was received and what was sent in the last 5 s: dBov of the speech."""
    return received(rings, slot), sent(rings, slot)


def received(rings: Rings, slot: int) -> float | None:
    """dBov of the speech received in the last 5 s."""
    places = _recent(rings, slot)
    real = rings.rx_flags[slot, places] & INVENTED == 0
    return speech_level(rings.rx_level[slot, places[real]])


def sent(rings: Rings, slot: int) -> float | None:
    """dBov of the speech sent in the last 5 s."""
    places = _recent(rings, slot)
    pcm = rings.beside(slot, places[rings.rx_beside[slot, places] != -1])
    return speech_level(level(pcm)) if pcm is not None else None


def _recent(rings: Rings, slot: int) -> NDArray[np.int64]:
    head = int(rings.rx_head[slot])
    frames = RX_FRAMES if rings.rate[slot] == RATE else RX_FRAMES // 2
    return np.arange(max(head - min(WINDOW, frames - 2), 0), head, EVERY) % frames
