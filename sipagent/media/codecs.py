"""The codecs a call may use, and their encoders and decoders.

All of them carry 8 bytes a millisecond, and their RTP clock runs at 8 kHz: for G.722 too, although its audio has 16 kHz
(RFC 3551, section 4.5.2: a mistake of RFC 1890 that is kept).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sipagent.media import g711, g722
from sipagent.media.rtp import PCMA, PCMU

G722 = 9  # static payload type, RFC 3551 table 4
RTP_CLOCK = 8000
BYTES_PER_FRAME = 160  # 20 ms
LONGEST_PAYLOAD = 480  # 60 ms, the longest packet time taken


class Encoder(Protocol):
    """One direction of one call."""

    def encode(self, pcm: NDArray[np.int16]) -> bytes:
        """The codes of whole frames of 20 ms, one-dimensional."""
        ...


class Decoder(Protocol):
    """One direction of one call; gets the payloads of a stream in order."""

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """The samples of a payload of any length and content."""
        ...


class _G711:
    """Without state, so that calls may share it."""

    def __init__(self, payload_type: int) -> None:
        self._payload_type = payload_type

    def encode(self, pcm: NDArray[np.int16]) -> bytes:
        return g711.encode(self._payload_type, np.ascontiguousarray(pcm)).tobytes()

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        return g711.decode(self._payload_type, np.frombuffer(payload, np.uint8))


@dataclass(frozen=True, slots=True)
class Codec:
    name: str  # as in a=rtpmap
    payload_type: int
    rate: int  # samples per second of its audio
    silence: int  # the byte that, repeated, sounds like nothing
    encoder: Callable[[], Encoder]  # makes one for a direction of a call
    decoder: Callable[[], Decoder]

    @property
    def frame(self) -> int:
        """Samples of 20 ms."""
        return self.rate // 50

    @property
    def samples_per_tick(self) -> int:
        """Samples of audio for one tick of the RTP clock, which is also one byte."""
        return self.rate // RTP_CLOCK


_ULAW, _ALAW = _G711(PCMU), _G711(PCMA)

CODECS = {
    codec.payload_type: codec
    for codec in (
        Codec("PCMU", PCMU, 8000, g711.ULAW_SILENCE, lambda: _ULAW, lambda: _ULAW),
        Codec("PCMA", PCMA, 8000, g711.ALAW_SILENCE, lambda: _ALAW, lambda: _ALAW),
        Codec("G722", G722, g722.RATE, 0xFF, g722.Encoder, g722.Decoder),
    )
}
