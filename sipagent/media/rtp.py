"""RTP's wire format and its wrapping numbers (RFC 3550 section 5.1). Values only: no sockets, no clocks."""

import struct
from dataclasses import dataclass

RATE = 8000
FRAME = 160  # samples of the 20 ms frame that is handed to main and sent out
HEADER = 12  # bytes of an RTP header without CSRC list and extension

PCMU = 0  # RFC 3551 section 6
PCMA = 8
COMFORT_NOISE = 13  # RFC 3389

_FIXED = struct.Struct(">BBHII")


def sequence_diff(a: int, b: int) -> int:
    """a - b on the 16-bit circle: -32768..32767, positive when a is newer."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


def timestamp_diff(a: int, b: int) -> int:
    """a - b on the 32-bit circle: positive when a is newer."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpPacket:
    """One packet. ``bytes(packet)`` writes it without CSRC list, extension and padding, which `parse` strips."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    @classmethod
    def parse(cls, data: bytes) -> "RtpPacket":
        """Raises ValueError that says what is wrong; only for the caller to count."""
        if len(data) < HEADER:
            raise ValueError(f"RTP header truncated: need {HEADER} bytes, got {len(data)}")
        first, second, sequence, timestamp, ssrc = _FIXED.unpack_from(data)
        if first >> 6 != 2:
            raise ValueError(f"RTP version is {first >> 6}, not 2")
        start, end = HEADER + 4 * (first & 0x0F), len(data)
        if end < start:
            raise ValueError(f"CSRC list truncated: need {start} bytes, got {end}")
        if first & 0x10:
            if end < start + 4:
                raise ValueError(f"header extension truncated: need {start + 4} bytes, got {end}")
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
            if end < start:
                raise ValueError(f"header extension truncated: need {start} bytes, got {end}")
        if first & 0x20:
            padding = data[-1]
            if not 1 <= padding <= end - start:
                raise ValueError(f"padding of {padding} bytes in {end - start} bytes of payload")
            end -= padding
        return cls(
            payload_type=second & 0x7F,
            sequence=sequence,
            timestamp=timestamp,
            ssrc=ssrc,
            payload=data[start:end],
            marker=bool(second & 0x80),
        )

    def __bytes__(self) -> bytes:
        second = self.payload_type | (0x80 if self.marker else 0)
        return _FIXED.pack(0x80, second, self.sequence, self.timestamp, self.ssrc) + self.payload
