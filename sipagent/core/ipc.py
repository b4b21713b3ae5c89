"""Framing between main and its child processes: a 4-byte big-endian length, then the message.

The messages themselves are each plane's own (`sip/protocol.py`, `media/protocol.py`, `speech/protocol.py`). Both ends
are ours, yet a length beyond MAX_MESSAGE is refused: a corrupted stream must not become an allocation.
"""

import asyncio
import ctypes
import signal
import socket
import struct

from sipagent.core.errors import ProcessDied

MAX_MESSAGE = 4 << 20
_LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1


def frame(message: bytes) -> bytes:
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"message of {len(message)} bytes is over the limit of {MAX_MESSAGE}")
    return _LENGTH.pack(len(message)) + message


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next message; raises ProcessDied at end of stream."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(4))
        if length > MAX_MESSAGE:
            raise ProcessDied(f"the peer process sent a length of {length} bytes: stream is corrupt")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise ProcessDied("the peer process closed its end") from error


def read_frame_blocking(sock: socket.socket) -> bytes | None:
    """The next message of a blocking socket, None at end of stream."""
    head = _read_exactly(sock, 4)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return _read_exactly(sock, length) if length <= MAX_MESSAGE else None


def _read_exactly(sock: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            chunk = sock.recv(count - len(parts))
        except ConnectionError:
            return None
        if not chunk:
            return None
        parts += chunk
    return bytes(parts)


class FrameBuffer:
    """Collects bytes of a non-blocking socket and yields whole messages (for loops that are not asyncio's)."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._pending += data
        messages: list[bytes] = []
        while len(self._pending) >= 4:
            (length,) = _LENGTH.unpack_from(self._pending)
            if length > MAX_MESSAGE:
                raise ProcessDied(f"the peer process sent a length of {length} bytes: stream is corrupt")
            if len(self._pending) < 4 + length:
                break
            messages.append(bytes(self._pending[4 : 4 + length]))
            del self._pending[: 4 + length]
        return messages


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent goes, however it goes (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
