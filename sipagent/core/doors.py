"""How a new main reaches the processes that the one before has left: each keeps a door, a Unix socket in a folder.

While main lives nobody comes in. When the stream to main ends without a word, the process waits at its door for
LONELY_S, doing what it can do alone; then it ends what it has in order and leaves. Who may come in is a matter of the
folder's permissions, and of the user id that the kernel tells (SO_PEERCRED).
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from sipagent.core.errors import ProcessDied

LONELY_S = 10.0  # a process without a main waits so long for the next one
UNKNOWN = 1 << 16  # the exit status of a process that is not our child
_KNOCK_S = 2.0
_BACKLOG = 4
_CREDENTIALS = struct.Struct("3i")


def make_door(folder: Path, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Listening, without blocking. What an earlier process left under this name is taken away."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    door = socket.socket(socket.AF_UNIX, kind)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / name)
    with _short(folder) as place:
        before = os.umask(0o077)
        try:
            door.bind(f"{place}/{name}")
        finally:
            os.umask(before)
    door.listen(_BACKLOG)
    door.setblocking(False)
    return door


def try_door(folder: Path, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket | None:
    """None, and a line on standard error, where the folder takes no sockets: the process then ends with its main."""
    try:
        return make_door(folder, name, kind)
    except OSError as error:
        print(f"{folder} takes no sockets ({error.strerror}): calls do not outlive the main process", file=sys.stderr)
        return None


def admit(door: socket.socket) -> socket.socket | None:
    """Who knocks, when it is ours; None when nobody does that may."""
    with contextlib.suppress(BlockingIOError):
        while True:
            comer, _ = door.accept()
            _, user, _ = _credentials(comer)
            if user in (os.getuid(), 0):
                return comer
            comer.close()
    return None


def wait_for_main(door: socket.socket, limit_s: float = LONELY_S) -> socket.socket | None:
    """Blocks until somebody comes in; None when nobody has in time."""
    poll = select.poll()
    poll.register(door, select.POLLIN)
    while poll.poll(limit_s * 1000):
        comer = admit(door)
        if comer is not None:
            comer.setblocking(True)
            return comer
    return None


def names(folder: Path, prefix: str) -> list[str]:
    """Doors of this kind; whether somebody is behind them is not known."""
    return sorted(path.name for path in folder.glob(f"{prefix}*")) if folder.is_dir() else []


def knock(folder: Path, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[socket.socket, int] | None:
    """A stream to the process behind the door, and its pid; None, and the door taken away, when nobody is there."""
    comer = socket.socket(socket.AF_UNIX, kind)
    comer.settimeout(_KNOCK_S)
    try:
        with _short(folder) as place:
            comer.connect(f"{place}/{name}")
    except OSError:
        comer.close()
        take_away(folder, name)
        return None
    pid, _, _ = _credentials(comer)
    return comer, pid


def take_away(folder: Path, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(folder / name)


def mark(folder: Path, name: str) -> int:
    """Tells a door from a later one of its name, while it is open; 0 for none."""
    try:
        return os.stat(folder / name).st_ino
    except OSError:
        return 0


class Adopted:
    """A process that is not our child, used like a `subprocess.Popen`. How it ends is not told to us: `UNKNOWN`."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessDied when there is none of this number."""
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except OSError as error:
            raise ProcessDied(f"process {pid} is gone") from error

    def poll(self) -> int | None:
        return UNKNOWN if select.select([self._fd], [], [], 0)[0] else None

    def wait(self) -> int:
        select.select([self._fd], [], [])
        return UNKNOWN

    async def over(self) -> None:
        """Returns when it has ended."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(self._fd)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._fd)


def status_text(status: int) -> str:
    """How a process ended, in words."""
    if status == UNKNOWN:
        return "ended; how is not known, an earlier main had started it"
    return f"killed by signal {-status}" if status < 0 else f"exit code {status}"


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """The folder by a name that fits into a socket's address (108 bytes), however long its own is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Pid, user and group of the other end."""
    pid, user, group = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user, group
