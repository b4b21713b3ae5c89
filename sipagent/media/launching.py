"""Starting a media process, taking over one that has lost its main, and seeing one end. Some of it blocks."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from sipagent.core import doors
from sipagent.core.doors import Adopted
from sipagent.core.errors import ProcessDied
from sipagent.core.ipc import FrameBuffer, frame
from sipagent.media.protocol import Ready, notice_decoder
from sipagent.media.settings import MediaSettings

GREETING_LIMIT_S = 2.0  # of an engine that has been without a main
MAX_GREETING = 1 << 18  # bytes

Process = subprocess.Popen[bytes] | Adopted


def meet(door: Path) -> "tuple[socket.socket, Adopted, Ready, bytes, list[int]] | None":
    """The engine behind the door, what it says first, what has come beyond that, memory and eventfd. Blocks."""
    met = doors.knock(door.parent, door.name)
    if met is None:
        return None
    sock, pid = met
    sock.settimeout(GREETING_LIMIT_S)
    fds: list[int] = []
    try:
        process = Adopted(pid)
        data = b""
        while not (messages := FrameBuffer().feed(data)):
            part, more, _, _ = socket.recv_fds(sock, MAX_GREETING, 2)
            fds += more
            if not part:
                raise ProcessDied("the media process closed its end")
            data += part
        ready = notice_decoder.decode(messages[0])
        if not isinstance(ready, Ready) or len(fds) != 2:
            raise ProcessDied("the media process does not greet")
    except (OSError, ProcessDied, msgspec.DecodeError):
        for fd in fds:
            os.close(fd)
        sock.close()
        return None
    return sock, process, ready, data[len(frame(messages[0])) :], fds


def launch(
    settings: MediaSettings, memory: int, wake: int, door: Path | None
) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """The process, and our end of its control socket."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(theirs)
        on_failure = cleanup.enter_context(contextlib.ExitStack())
        on_failure.callback(ours.close)
        arguments = [
            *("--control", str(theirs.fileno()), "--memory", str(memory), "--wake", str(wake)),
            *("--settings", msgspec.json.encode(settings).decode()),
            *(("--door", str(door)) if door is not None else ()),
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "sipagent.media.engine", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory, wake),
            # Small matrices only: a pool of threads would spin on the cores that other processes need.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        on_failure.pop_all()
    return process, ours


async def reap(process: Process, limit_s: float) -> int:
    """The exit code; a process that is still there after the limit is killed."""
    deadline = time.monotonic() + limit_s
    try:
        while process.poll() is None:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.005)
    finally:  # also when nobody waits any more
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.wait()
