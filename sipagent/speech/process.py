"""One worker process as main sees it: spawned with a socket, spoken to in frames, reaped for certain."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from sipagent.core.clock import mono_ns
from sipagent.core.doors import UNKNOWN, Adopted, knock, status_text
from sipagent.core.errors import ProcessDied, SetupError
from sipagent.core.ipc import frame, read_frame
from sipagent.speech import protocol
from sipagent.speech.protocol import AnyReply, AnyRequest, Cancel, Failed, WorkerReady
from sipagent.speech.settings import SpeechSettings

PROCESS = "speech"  # its name in events
_POLL_S = 0.01


class WorkerProcess:
    """Made by `spawn`; whoever made it calls `end`."""

    def __init__(
        self,
        popen: "subprocess.Popen[bytes] | Adopted",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._popen = popen
        self._reader = reader
        self._writer = writer
        self._heard = mono_ns()  # when it last answered anything
        self.pid = popen.pid
        self.outstanding: set[int] = set()  # ids it has not answered
        self.settings: SpeechSettings | None = None  # that it was started with, once it is ready

    @classmethod
    async def take_over(cls, run: Path, name: str) -> "WorkerProcess | None":
        """The worker that an earlier main has left behind this door; None when it is gone."""
        met = await asyncio.to_thread(knock, run, name)
        if met is None:
            return None
        sock, pid = met
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            return cls(Adopted(pid), reader, writer)
        except ProcessDied:
            writer.close()
            return None

    @classmethod
    async def spawn(cls, settings: SpeechSettings, run: Path | None = None) -> "WorkerProcess":
        """``run``: the folder for its door, by which a next main finds it."""
        # One thread a library: the lanes are the parallelism, and a pool of idle OpenMP threads spins.
        threads = str(settings.threads)
        limits = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # From the loop's own thread: the kernel ends the child with the thread that made it (prctl(2)).
                popen = subprocess.Popen(  # noqa: ASYNC220 - fork and exec take 2 ms, at start only
                    [
                        sys.executable,
                        "-m",
                        "sipagent.speech.worker",
                        str(theirs.fileno()),
                        msgspec.json.encode(settings).decode(),
                        *([str(run)] if run is not None else []),
                    ],
                    env=os.environ | limits | {"TOKENIZERS_PARALLELISM": "false"},
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:  # cancelled: nobody else knows of the process yet
            ours.close()
            popen.kill()
            popen.wait()
            raise
        return cls(popen, reader, writer)

    def alive(self) -> bool:
        """False as soon as the kernel knows, which is before the socket tells us."""
        return self._popen.poll() is None

    async def ready(self) -> dict[str, str]:
        """Waits until the models are loaded; their names by kind. SetupError with the worker's own reason."""
        first = await self.reply()
        if isinstance(first, WorkerReady):
            self.settings = first.settings
            return first.models
        raise SetupError(first.reason if isinstance(first, Failed) else "it said something else than that it is ready")

    def send(self, request: AnyRequest) -> None:
        """Never blocks. The worker reads at once whatever it is doing, so little is ever buffered here."""
        if not isinstance(request, Cancel):
            self.outstanding.add(request.id)
        if not self._writer.is_closing():
            self._writer.write(frame(protocol.encoder.encode(request)))

    async def reply(self) -> AnyReply:
        """The next answer; ProcessDied when there will be none."""
        try:
            reply = protocol.reply_decoder.decode(await read_frame(self._reader))
        except msgspec.DecodeError as error:
            raise ProcessDied("the speech worker sent something unreadable") from error
        self._heard = mono_ns()
        self.outstanding.discard(reply.id)
        return reply

    def forget(self, request_id: int) -> None:
        """Nobody waits for this answer any more."""
        if request_id in self.outstanding:
            self.outstanding.discard(request_id)
            self.send(Cancel(id=request_id))

    def kill_if_silent(self, limit_s: float) -> None:
        """A worker that answered nothing for so long, with requests before it, is stuck: a new one is better."""
        if mono_ns() - self._heard >= limit_s * 1e9:
            self._popen.kill()

    async def end(self, limit_s: float) -> str:
        """Tells it to leave, and kills it after `limit_s`. How it ended."""
        self.send(Cancel(id=protocol.LEAVE))
        self._writer.close()
        try:
            for _ in range(int(limit_s / _POLL_S)):
                if self._popen.poll() is not None:
                    break
                await asyncio.sleep(_POLL_S)
        finally:  # also when the wait itself is cancelled
            if self._popen.poll() is None:
                self._popen.kill()
            status = self._popen.wait()
        if status == UNKNOWN:
            return status_text(status)
        return f"signal {-status}" if status < 0 else f"status {status}"
