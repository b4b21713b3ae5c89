"""G.722 at 64 kbit/s (ITU-T G.722): 16 kHz audio, two samples to a byte, by libg722.

Encoder and decoder adapt to what they have coded, so each direction of a call has its own and gets everything in order.
libg722's decoder equals FFmpeg's bit for bit, also on random bytes. It keeps the interpreter's lock and has no state
outside its objects.
"""

import numpy as np
from G722 import G722
from numpy.typing import NDArray

RATE = 16_000
BIT_RATE = 64_000


class Encoder:
    def __init__(self) -> None:
        self._codec = G722(RATE, BIT_RATE, use_numpy=False)  # else it searches for an optional module every time

    def encode(self, pcm: NDArray[np.int16]) -> bytes:
        """One byte for two samples. ValueError unless `pcm` is one-dimensional and of an even length."""
        if pcm.ndim != 1 or len(pcm) % 2:
            # The library would read behind the end of an odd number of samples.
            raise ValueError(f"G.722 codes pairs of samples, not an array of shape {pcm.shape}")
        # Anything else than native int16 in one piece would be taken sample by sample, or refused.
        coded: bytes = self._codec.encode(np.ascontiguousarray(pcm, np.int16))
        return coded


class Decoder:
    """Any bytes are valid G.722: rubbish decodes to noise, and the next second of speech is heard again."""

    def __init__(self) -> None:
        self._codec = G722(RATE, BIT_RATE, use_numpy=False)

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """Two samples for a byte."""
        return np.frombuffer(self._codec.decode(payload), np.int16)
