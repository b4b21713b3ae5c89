"""The engine's stream to main: commands in, notices out, and what becomes of it when main dies.

Nothing that main says, or does not say, may hold up a tick. With a door (`core.doors`) the end of the stream is not the
end of the engine: it waits for the next main, which is handed the shared memory and all that is open.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable

from sipagent.core.doors import LONELY_S, admit
from sipagent.core.ipc import FrameBuffer, frame
from sipagent.media.protocol import AnyCommand, Notice, command_decoder, encoder
from sipagent.media.rings import Header, Rings

MAX_NOTICES = 1 << 20  # bytes waiting for main to read; beyond, notices are dropped and counted


class MainLink:
    """``attention`` is told of what is to be read. ``over``: no main will come, and the engine shall end."""

    def __init__(
        self, control: socket.socket, door: socket.socket | None, attention: select.epoll, rings: Rings, fds: list[int]
    ) -> None:
        self._control: socket.socket | None = control
        self._door = door
        self._attention = attention
        self._rings = rings
        self._fds = fds  # what a new main gets
        self._buffer = FrameBuffer()
        self._unsent = bytearray()
        self._lonely_until = 0  # ns; 0 while there is a main
        self.lost_at = 0  # ns, when the last one went
        self.over = False
        control.setblocking(False)
        attention.register(control.fileno(), select.EPOLLIN)

    @property
    def alone(self) -> bool:
        """Main is gone and may come back."""
        return self._control is None

    @property
    def waiting(self) -> bool:
        """Notices wait for main to read."""
        return bool(self._unsent) and self._control is not None

    def send(self, notice: Notice) -> None:
        """Without a main it waits for the next one."""
        if len(self._unsent) > MAX_NOTICES:
            self._rings.header[Header.NOTICES_DROPPED] += 1
            return
        self._unsent += frame(encoder.encode(notice))
        self.flush()

    def flush(self) -> None:
        if self._control is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._control.send(self._unsent)]
        except BlockingIOError:
            pass  # main is busy; the next tick tries again
        except ConnectionError:
            self._lost()

    def commands(self) -> list[AnyCommand]:
        """What has come; nothing while there is no main."""
        if self._control is None:
            return []
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            self._lost()
            return []
        return [command_decoder.decode(message) for message in self._buffer.feed(data)]

    def look_out(self, greeting: Callable[[], Notice]) -> bool:
        """While alone: lets a new main in, whose first notice is the greeting; True when one has come."""
        if self._door is None or not self.alone:
            return False
        comer = admit(self._door)
        if comer is None:
            self.over = self.over or time.monotonic_ns() > self._lonely_until
            return False
        with contextlib.suppress(OSError):
            comer.setblocking(False)
            said = frame(encoder.encode(greeting()))
            socket.send_fds(comer, [said[:1]], self._fds)  # a fresh socket has room for it, if not for all the lines
            self._unsent[:0] = said[1:]
            self._attention.unregister(self._door.fileno())
            self._attention.register(comer.fileno(), select.EPOLLIN)
            self._control, self._buffer, self._lonely_until = comer, FrameBuffer(), 0
            self.flush()
            return True
        comer.close()
        return False

    def close(self) -> None:
        if self._control is not None:
            self._control.close()

    def _lost(self) -> None:
        assert self._control is not None
        self._attention.unregister(self._control.fileno())
        self._control.close()
        self._control = None
        self._unsent.clear()  # it may begin in the middle of a message
        if self._door is None:
            self.over = True
            return
        self.lost_at = time.monotonic_ns()
        self._lonely_until = self.lost_at + int(LONELY_S * 1e9)
        self._attention.register(self._door.fileno(), select.EPOLLIN)
