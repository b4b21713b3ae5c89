"""Main's side of the zygote: starts it, has it fork lanes, and hears how each of them ended."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from sipagent.core import doors
from sipagent.core.doors import Adopted
from sipagent.core.errors import ProcessDied, SetupError
from sipagent.sip import zygote

log = logging.getLogger("sipagent.sip")

_CLOSE_S = 3.0
_EXITS_KEPT = 1024  # of lanes long gone, for whoever still asks


class Nursery:
    """Forks one lane at a time, however many are asked for; a zygote that died is started again with the next one."""

    def __init__(self, run: Path | None = None) -> None:
        """``run``: the folder by which a new main finds the zygote and its lanes again."""
        self.run = run
        self._process: asyncio.subprocess.Process | Adopted | None = None
        self._control: socket.socket | None = None
        self._exits: dict[int, int] = {}  # lanes that have ended, pid to status
        self._exited = asyncio.Event()
        self._forked: asyncio.Queue[int] = asyncio.Queue(maxsize=8)  # one fork is asked for at a time
        self._forking = asyncio.Lock()
        self._abandoned = 0  # forks asked for whose pid nobody waits for any more
        self._closing = False

    @property
    def pid(self) -> int:
        """The zygote's, 0 while there is none."""
        return self._process.pid if self._process is not None and _runs(self._process) else 0

    def take_over(self) -> bool:
        """The zygote of an earlier main; False when there is none."""
        if self.run is None or not doors.names(self.run, zygote.DOOR):
            return False
        met = doors.knock(self.run, zygote.DOOR, socket.SOCK_SEQPACKET)
        if met is None:
            return False
        control, pid = met
        try:
            self._process = Adopted(pid)
        except ProcessDied:
            control.close()
            return False
        control.setblocking(False)
        self._control = control
        asyncio.get_running_loop().add_reader(control.fileno(), self._hear)
        return True

    async def fork(self) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        """A new lane's pid and the stream to it. Raises SetupError or ProcessDied."""
        async with self._forking:
            if not self._up:
                await self._start()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.setblocking(False)
            try:
                assert self._control is not None
                while not self._forked.empty():
                    self._forked.get_nowait()
                socket.send_fds(self._control, [zygote.FORK], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ProcessDied("the zygote is gone") from error
            finally:
                theirs.close()
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                pid = await self._forked.get()
            except asyncio.CancelledError:
                self._abandoned += 1
                writer.close()  # the lane, if it comes, sees the end of its stream and leaves
                raise
            if pid == 0:
                writer.close()
                raise ProcessDied("the lanes' parent process ended")
            return pid, reader, writer

    def kill(self, pid: int) -> None:
        """Only while the zygote vouches for the pid: reaped, it may be anybody's. Lanes do not outlive the zygote."""
        self._hear()
        if pid and pid not in self._exits and self._up:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def exit_of(self, pid: int) -> None:
        """Returns when the lane has ended, or when nobody is left who could tell."""
        while pid not in self._exits and self._up:
            self._exited.clear()
            await self._exited.wait()

    def exit_text(self, pid: int) -> str:
        """How the lane ended, in words."""
        status = self._exits.get(pid)
        if status is None:
            return "its parent process died"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"

    async def close(self) -> None:
        """Ends the zygote, and by that every lane that is still there. May be called again."""
        self._closing = True
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(zygote.LEAVE)
        self._close_control()
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await _over(process)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await _over(process)

    @property
    def _up(self) -> bool:
        return self.pid != 0 and self._control is not None

    async def _start(self) -> None:
        self._close_control()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sipagent.sip.zygote",
                str(theirs.fileno()),
                *([str(self.run)] if self.run is not None else []),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            raise SetupError("the SIP lanes' parent process could not be started") from error
        finally:
            theirs.close()
        self._control = ours
        self._abandoned = 0
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)

    def _hear(self) -> None:
        control = self._control
        while control is not None:
            try:
                data = control.recv(zygote.MAX_NOTICE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                if not self._closing:
                    log.error("the lanes' parent process ended")
                self._close_control()
                self._forked.put_nowait(0)
                return
            notice = zygote.notice_decoder.decode(data)
            if isinstance(notice, zygote.Forked):
                self._exits.pop(notice.pid, None)  # of an earlier lane with this number
                if self._abandoned:
                    self._abandoned -= 1
                else:
                    self._forked.put_nowait(notice.pid)
            else:
                self._exits[notice.pid] = notice.status
                if len(self._exits) > _EXITS_KEPT:
                    del self._exits[next(iter(self._exits))]
                self._exited.set()

    def _close_control(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        self._exited.set()


def _runs(process: asyncio.subprocess.Process | Adopted) -> bool:
    return (process.poll() if isinstance(process, Adopted) else process.returncode) is None


async def _over(process: asyncio.subprocess.Process | Adopted) -> None:
    await (process.over() if isinstance(process, Adopted) else process.wait())
