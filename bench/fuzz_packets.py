"""What the fuzz run sends: streams as real peers make them, and what a hostile or broken network makes of them."""

import random
import struct
from collections.abc import Callable

from sipagent.media.protocol import Crypto
from sipagent.media.rtcp import (
    Delay,
    Delays,
    Description,
    ExtendedReport,
    Goodbye,
    Packet,
    ReferenceTime,
    Report,
    ReportBlock,
    SenderInfo,
    VoipMetrics,
    compound,
    middle,
)
from sipagent.media.srtp import Refused, SrtpSession

LONGEST = 1500
PTIMES = (10, 20, 20, 20, 20, 30, 40, 50, 60)
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFF00, 0xFFFFFFFF)
_RTP = struct.Struct(">BBHII")
Numbers = random.Random


class Stream:
    """One peer's RTP and RTCP; `crypto` as our side has it, so its keys are swapped here."""

    def __init__(
        self, rng: Numbers, *, payload_type: int, event: int, noise: int, our_ssrc: int, crypto: Crypto | None = None
    ) -> None:
        self._rng = rng
        self.payload_type, self._event, self._noise, self._our_ssrc = payload_type, event, noise, our_ssrc
        self.ssrc = rng.getrandbits(32)
        self.sequence = rng.choice((0, 65_500, rng.getrandbits(16)))
        self.timestamp = rng.choice((0, 0xFFFFF000, rng.getrandbits(32)))
        self.ptime = 20
        self._press: tuple[int, int, int] | None = None  # timestamp, event, packets so far
        self._ntp = rng.getrandbits(64)
        self._audio = rng.randbytes(4096)
        self._srtp: SrtpSession | None = None
        if crypto is not None:
            self._srtp = SrtpSession(
                Crypto(suite=crypto.suite, local_key=crypto.remote_key, remote_key=crypto.local_key)
            )

    def next(self) -> bytes:
        """The packet of the next `ptime`, unprotected."""
        drawn = self._rng.random()
        if self._press is not None:
            return self._pressing()
        if drawn < 0.01 and self._event >= 0:
            self._press = (self.timestamp, self._rng.randrange(20), 0)
            return self._pressing()
        if drawn < 0.02 and self._noise >= 0:
            return self._packet(self._noise, self._rng.randbytes(self._rng.choice((0, 1, 1, 5, 11, 40))), 160)
        if drawn < 0.03:
            self.timestamp += 160 * self._rng.randrange(50)  # silence suppressed
        if drawn > 0.995:
            self.ptime = self._rng.choice(PTIMES)
        if drawn > 0.999:
            self._jump()
        size = 8 * self.ptime
        start = self._rng.randrange(len(self._audio) - size)
        return self._packet(self.payload_type, self._audio[start : start + size], size)

    def protected(self, packet: bytes, control: bool = False) -> bytes:
        """As the peer would encrypt it; what its library does not take is sent as it is."""
        if self._srtp is None:
            return packet
        try:
            return self._srtp.protect_rtcp(packet) if control else self._srtp.protect(packet)
        except Refused:
            return packet

    def report(self) -> bytes:
        rng = self._rng
        self._ntp = self._ntp + rng.getrandbits(34) & 0xFFFFFFFFFFFFFFFF
        block = ReportBlock(
            rng.choice((self._our_ssrc, rng.getrandbits(32))),
            *(rng.getrandbits(8), rng.getrandbits(23), rng.getrandbits(32), rng.getrandbits(16)),
            *(rng.choice((0, middle(self._ntp), rng.getrandbits(32))), rng.getrandbits(rng.choice((8, 20, 32)))),
        )
        sender = SenderInfo(self._ntp, self.timestamp & 0xFFFFFFFF, rng.getrandbits(32), rng.getrandbits(32))
        blocks = (block,) * rng.choice((0, 1, 3))
        parts: list[Packet] = [Report(self.ssrc, sender if rng.random() < 0.7 else None, blocks)]
        parts.append(Description(tuple((self.ssrc, "peer" * n) for n in range(rng.choice((1, 1, 3))))))
        if rng.random() < 0.3:
            figures = *rng.randbytes(4), *[rng.getrandbits(16)] * 4, *rng.randbytes(9), *[9] * 3
            metrics = VoipMetrics(self._our_ssrc, *figures)
            delays = Delays(tuple(Delay(self._our_ssrc, rng.getrandbits(32), n) for n in range(rng.randrange(3))))
            parts.append(ExtendedReport(self.ssrc, (metrics, ReferenceTime(self._ntp), delays)))
        if rng.random() < 0.05:
            parts.append(Goodbye((self.ssrc,), rng.choice(("", "camera malfunction"))))
        return compound(parts)

    def _packet(self, payload_type: int, payload: bytes, samples: int, timestamp: int | None = None) -> bytes:
        at = self.timestamp if timestamp is None else timestamp
        marker = 0x80 if self._rng.random() < 0.02 else 0
        head = _RTP.pack(0x80, payload_type | marker, self.sequence, at & 0xFFFFFFFF, self.ssrc)
        self.sequence = self.sequence + 1 & 0xFFFF
        self.timestamp = self.timestamp + samples & 0xFFFFFFFF
        return head + payload

    def _pressing(self) -> bytes:
        """One packet of a key; its end thrice, sometimes not at all."""
        assert self._press is not None
        start, event, count = self._press
        count += 1
        over = count >= 5 and self._rng.random() < 0.5
        self._press = None if over and self._rng.random() < 0.4 else (start, event, count)
        duration = min(160 * count, 0xFFFF) if self._rng.random() < 0.98 else self._rng.getrandbits(16)
        payload = struct.pack(">BBH", event, (0x80 if over else 0) | 10, duration)
        return self._packet(self._event, payload, 160, start)

    def _jump(self) -> None:
        """The peer restarts, or its clock does."""
        rng = self._rng
        what = rng.randrange(4)
        if what == 0:
            self.ssrc = rng.getrandbits(32)
        if what in (0, 1):
            self.sequence = rng.getrandbits(16)
        if what in (0, 2):
            self.timestamp = rng.choice((rng.getrandbits(32), rng.choice(EDGES)))
        if what == 3:
            self.sequence = self.sequence + rng.choice((1, 5, 99, 2999, 3001)) & 0xFFFF


# --- mutations: data and another packet to new data ---------------------------------------------------------------


def flip(rng: Numbers, data: bytes, other: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    head = rng.random() < 0.7
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(min(len(changed), 16) if head else len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: Numbers, data: bytes, other: bytes) -> bytes:
    return data[: rng.choice((0, 1, 4, 8, 11, 12, 13, 16, rng.randrange(len(data) + 1)))]


def lengthen(rng: Numbers, data: bytes, other: bytes) -> bytes:
    return data + rng.randbytes(rng.choice((1, 4, 80, 160, 320, 500, 1500)))


def edge(rng: Numbers, data: bytes, other: bytes) -> bytes:
    """A field of the header with a number of consequence: sequence, timestamp, SSRC, lengths of RTCP."""
    at, size = rng.choice(((2, 2), (4, 4), (8, 4), (12, 4), (1, 1), (0, 1)))
    value = rng.choice(EDGES) & (1 << 8 * size) - 1
    return data[:at] + value.to_bytes(size, "big") + data[at + size :]


def near(rng: Numbers, data: bytes, other: bytes) -> bytes:
    """Sequence or timestamp a little or a wrap away."""
    if len(data) < 12:
        return data
    first, second, sequence, timestamp, ssrc = _RTP.unpack_from(data)
    if rng.random() < 0.6:
        sequence = sequence + rng.choice((-101, -100, -99, -3, -2, -1, 1, 2, 3, 20, 2999, 3000, 3001, 0x8000)) & 0xFFFF
    if rng.random() < 0.6:
        timestamp += rng.choice((1, -1)) * rng.choice((1, 7, 79, 80, 81, 160, 959, 1600, 5600, 8000, 65536, 1 << 31))
    return _RTP.pack(first, second, sequence, timestamp & 0xFFFFFFFF, ssrc) + data[12:]


def dress(rng: Numbers, data: bytes, other: bytes) -> bytes:
    """CSRC list, header extension and padding, sometimes true to what the header says."""
    if len(data) < 12:
        return data
    first, body = data[0], data[12:]
    honest = rng.random() < 0.6
    if rng.random() < 0.5:
        count = rng.randrange(16)
        first = first & 0xF0 | count
        body = rng.randbytes(4 * count if honest else rng.randrange(20)) + body
    elif rng.random() < 0.5:
        words = rng.choice((0, 1, 3))
        first |= 0x10
        body = struct.pack(">HH", 0xBEDE, words if honest else rng.getrandbits(16)) + rng.randbytes(4 * words) + body
    if rng.random() < 0.5:
        count = rng.choice((1, 4, 8))
        first |= 0x20
        body += bytes(count - 1) + bytes((count if honest else rng.getrandbits(8),))
    return bytes((first,)) + data[1:12] + body


def retype(rng: Numbers, data: bytes, other: bytes) -> bytes:
    kind = rng.choice((0, 8, 9, 13, 72, 96, 101, 127, 200, 201, 207, rng.getrandbits(8)))
    return data[:1] + bytes((kind,)) + data[2:]


def splice(rng: Numbers, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def noise(rng: Numbers, data: bytes, other: bytes) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 4, 12, 16, 40, 172, 512, LONGEST)))


def rubbish(rng: Numbers, data: bytes, other: bytes) -> bytes:
    """The header is right, what follows is not."""
    return data[:12] + rng.randbytes(rng.choice((1, 3, 4, 5, 79, 80, 81, 160, 240, 480, 481)))


def lie(rng: Numbers, data: bytes, other: bytes) -> bytes:
    """A byte or a length anywhere in the structure has an edge value."""
    if len(data) < 4:
        return data
    at = rng.randrange(0, len(data) - 3, 4) + rng.choice((0, 1, 2))
    size = rng.choice((1, 2))
    return data[:at] + (rng.choice(EDGES) & (1 << 8 * size) - 1).to_bytes(size, "big") + data[at + size :]


MUTATIONS: tuple[Callable[[Numbers, bytes, bytes], bytes], ...] = (
    *(flip, truncate, lengthen, edge, near, near, dress, dress, retype, splice, noise, rubbish, lie),
)


def mutate(rng: Numbers, data: bytes, other: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(rng, data, other)
    return data[:LONGEST]
