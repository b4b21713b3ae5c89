"""The far end of a call: a real UDP socket that speaks RTP as told and keeps what it gets."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sipagent.core.events import Event
from sipagent.media import g711
from sipagent.media.client import Frames, MediaPort
from sipagent.media.rtp import RtpPacket
from sipagent.media.telephone_event import EventPayload


class Events(list[Event]):
    def emit(self, event: Event) -> None:
        self.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self]


class Peer:
    """`received` holds the packets in order, `arrived` when each came (monotonic ns)."""

    def __init__(self, ssrc: int = 0x5EED, payload_type: int = 0, host: str = "127.0.0.1") -> None:
        self.ssrc, self.payload_type = ssrc, payload_type
        self.sequence, self.timestamp = 65530, 0xFFFFFF00
        self.received: list[RtpPacket] = []
        self.arrived: list[int] = []
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.host, self.port = self.socket.getsockname()[:2]
        self.target = (host, 0)
        asyncio.get_running_loop().add_reader(self.socket, self._read)

    def _read(self) -> None:
        data = self.socket.recv(2048)
        self.received.append(RtpPacket.parse(data))
        self.arrived.append(time.monotonic_ns())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()

    def raw(self, data: bytes) -> None:
        self.socket.sendto(data, self.target)

    def packet(self, payload: bytes, *, skip: bool = False, samples: int | None = None, **changes: int) -> bytes:
        """The next packet of the stream, sent unless `skip`."""
        fields: dict[str, Any] = {
            "payload_type": self.payload_type,
            "sequence": self.sequence,
            "timestamp": self.timestamp,
            "ssrc": self.ssrc,
        } | changes
        data = bytes(RtpPacket(payload=payload, **fields))
        self.sequence = self.sequence + 1 & 0xFFFF
        self.timestamp = self.timestamp + (len(payload) if samples is None else samples) & 0xFFFFFFFF
        if not skip:
            self.raw(data)
        return data

    async def paced(self, packets: list[bytes], ms: float = 20.0) -> None:
        """Sends these packets in real time: of a burst the jitter buffer makes up for the delay."""
        begin = time.monotonic()
        for number, data in enumerate(packets):
            await asyncio.sleep(max(begin + number * ms / 1000 - time.monotonic(), 0))
            self.raw(data)

    def key(self, event: int, payload_type: int = 101, updates: int = 5) -> None:
        """A whole press of 20 ms times `updates`, its end thrice, all at once."""
        for number in [*range(1, updates + 1), updates, updates]:
            payload = EventPayload(event, number == updates, 10, 160 * number)
            self.packet(bytes(payload), samples=0, payload_type=payload_type)
        self.timestamp = self.timestamp + 160 * updates & 0xFFFFFFFF

    def payloads(self) -> bytes:
        return b"".join(packet.payload for packet in self.received)


class Listener:
    """Collects what a port hands to main."""

    def __init__(self, port: MediaPort) -> None:
        self.batches: list[Frames] = []
        self.digits: list[tuple[str, int]] = []
        self.sources: list[tuple[str, int]] = []
        self.silent: list[float] = []
        self.gaps: list[float] = []
        self.lost = 0
        self._changed = asyncio.Event()
        port.on_frames = self._frames
        port.on_digit = lambda digit, ms: self.digits.append((digit, ms))
        port.on_source = lambda host, number: self.sources.append((host, number))
        port.on_silent = self.silent.append
        port.on_interrupted = self.gaps.append
        port.on_lost = self._lost

    def _frames(self, frames: Frames) -> None:
        self.batches.append(frames)
        self._changed.set()

    def _lost(self) -> None:
        self.lost += 1

    @property
    def pcm(self) -> np.ndarray:
        return np.concatenate([batch.pcm for batch in self.batches]).reshape(-1)

    @property
    def flags(self) -> list[int]:
        return [int(flag) for batch in self.batches for flag in batch.flags]

    async def until(self, condition: Callable[[], bool], limit_s: float = 20.0) -> None:
        """Looks again whenever audio came."""
        async with asyncio.timeout(limit_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def heard(self) -> list[int]:
        """The flags from the first frame with audio to the last one."""
        flags = self.flags
        with_audio = [n for n, flag in enumerate(flags) if flag == 0]
        return flags[with_audio[0] : with_audio[-1] + 1] if with_audio else []

    def audio(self) -> np.ndarray:
        """The samples of those frames."""
        flags = self.flags
        with_audio = [n for n, flag in enumerate(flags) if flag == 0]
        return self.pcm[160 * with_audio[0] : 160 * (with_audio[-1] + 1)]


def codes(count: int, seed: int = 711) -> list[bytes]:
    """So many payloads of 20 ms of noise, without µ-law's negative zero, which does not come back."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 256, (count, 160), np.uint8)
    drawn[drawn == 0x7F] = 0xFF
    return [row.tobytes() for row in drawn]


def pcm_of(payloads: list[bytes], payload_type: int = 0) -> np.ndarray:
    return g711.decode(payload_type, np.frombuffer(b"".join(payloads), np.uint8))
