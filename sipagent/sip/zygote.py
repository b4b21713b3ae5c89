"""The lanes' parent: a small process that has imported pjsua2 and forks a lane whenever main asks for one.

A forked lane shares the imported library's pages with its siblings (25 MB resident, 3 MB of it private) and is there
in a tenth of a second. The zygote has one thread and starts nothing of PJSIP. When main's end of the control socket
closes it waits for another main, if it has a door for it (`core.doors`), and leaves when its lanes have; it does not
use PDEATHSIG itself, because its own death would take the lanes with it before they could say BYE.

Control socket (SOCK_SEQPACKET): main sends `FORK` with the lane's socket attached; the answers are `Forked` and,
whenever a lane has ended, `Exited`.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from sipagent.core.doors import LONELY_S, mark, take_away, try_door, wait_for_main
from sipagent.sip.lane import serve

DOOR = "zygote"
FORK = b"fork"
LEAVE = b"leave"  # main ends in order: no other is waited for
MAX_NOTICE = 4096
_GRACE_S = 1.0  # for lanes to hang up after main is gone


class Forked(msgspec.Struct, tag=True, kw_only=True):
    pid: int


class Exited(msgspec.Struct, tag=True, kw_only=True):
    pid: int
    status: int  # the exit status, or the number of the signal as a negative number


Notice = Forked | Exited
encoder = msgspec.msgpack.Encoder()
notice_decoder: msgspec.msgpack.Decoder[Notice] = msgspec.msgpack.Decoder(Notice)


class Zygote:
    def __init__(self, control: socket.socket, door: socket.socket | None = None) -> None:
        self.control = control
        self.door = door
        self.lanes: set[int] = set()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        control = self.control.fileno()
        while True:
            readable, _, _ = select.select([control, self._wake_read], [], [])
            if self._wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if control in readable and not self._obey():
                if not self._another_main():
                    break
                control = self.control.fileno()
        self._end_lanes()

    def _another_main(self) -> bool:
        """Waits for one as long as lanes do, and a little longer: they end by themselves."""
        comer = wait_for_main(self.door, LONELY_S + _GRACE_S) if self.door is not None else None
        if comer is None:
            return False
        self.control.close()
        self.control = comer
        self._reap()
        return True

    def _obey(self) -> bool:
        """Carries out one request; False when main is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, 64, 1)
        except ConnectionError:
            return False
        if not data or data == LEAVE:
            self.door = self.door if data != LEAVE else None
            return False
        for fd in fds:
            self._fork(socket.socket(fileno=fd))
        return True

    def _fork(self, main: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(self._wake_read)
                os.close(self._wake_write)
                self.control.close()
                if self.door is not None:
                    self.door.close()
                serve(main)
            finally:
                os._exit(1)  # whatever was raised, a lane must not go on as a second zygote
        main.close()
        self.lanes.add(pid)
        self._tell(Forked(pid=pid))

    def _reap(self) -> None:
        while self.lanes:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.lanes.discard(pid)
            self._tell(Exited(pid=pid, status=os.waitstatus_to_exitcode(status)))

    def _tell(self, notice: Notice) -> None:
        with contextlib.suppress(OSError):
            self.control.send(encoder.encode(notice))

    def _end_lanes(self) -> None:
        """Main is gone. Lanes see that for themselves and hang up; those that do not are killed."""
        deadline = time.monotonic() + _GRACE_S
        while self.lanes and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for pid in self.lanes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.lanes:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    run = Path(sys.argv[2]) if len(sys.argv) > 2 else None  # the folder for its door
    door = try_door(run, DOOR, socket.SOCK_SEQPACKET) if run is not None else None
    ours = mark(run, DOOR) if run is not None and door is not None else 0
    # See lane.serve: the end is main's to announce.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("sipagent-zygote")
    # Objects made so far are shared with every lane: keep the collector from writing into their pages.
    gc.collect()
    gc.freeze()
    Zygote(control, door).run()
    if run is not None and ours and mark(run, DOOR) == ours:  # not that of another zygote, which came meanwhile
        take_away(run, DOOR)


if __name__ == "__main__":
    main()
