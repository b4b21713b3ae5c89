"""Keeps a main process alive: forks one, waits, and forks another when it died without a word.

Everything is imported before, so a new main is there at once; nothing of a node runs here. The processes that a main
has started become ours when it dies, and wait for the next one (`core.doors`).
"""

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path

from sipagent.cli import heart
from sipagent.core.program import fingerprint
from sipagent.predecessor import Death, dismiss

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
_SI_KERNEL = 128  # who sent a signal: the terminal, which has told main as well
UNEXPECTED = 1  # the exit status of an error that nobody had foreseen
REFUSED = (2, 3)  # of a start: a configuration or dialplan that is wrong, something that the machine lacks
DEATHS_WITHIN_S = 60.0
OFTEN = 3  # deaths within that time: one of the calls may be the reason, so all are ended
MOST_DEATHS = 5  # then it is none of the calls
PAUSE_S = 0.5  # before another main, from the second death within that time on
REFUSED_PAUSE_S = 1.5  # after a start that was refused: all of them together stay below doors.LONELY_S
_LEFT_S = 5.0  # for what a main has left to end its calls and go
_ABORT_S = 2.0  # for a main that hangs to say where
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


pulse_of_main = heart.Heart()


def supervise(state: Path) -> Death | None:
    """Returns in each main process, with how the one before it has ended. The supervisor itself never returns: it
    leaves as its last main did."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    deaths: deque[tuple[float, bool]] = deque(maxlen=MOST_DEATHS)  # when, and whether its start was refused
    before: Death | None = None
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    fingerprint()  # of what this process has loaded, whatever becomes of the files
    gc.collect()
    gc.freeze()  # what is shared with every main stays shared
    while True:
        ours = os.getpid()
        pulse_of_main.reset()
        pid = os.fork()
        if pid == 0:
            _become_main(ours)
            return before
        status, stopped, hung_s = _watch(pid)
        # What was well when the first main started is, as a rule, being changed: its calls outlive a bad moment.
        refused = before is not None and status in REFUSED
        if stopped or not (refused or status == UNEXPECTED or status < 0):
            _leave(status, state)
        deaths.append((time.monotonic(), refused))
        lately = [refusal for at, refusal in deaths if deaths[-1][0] - at < DEATHS_WITHIN_S]
        reason = f"no sign of life for {hung_s:.0f} s" if hung_s else _reason(status)
        before = Death(pid, reason, time.monotonic_ns(), lately.count(False) >= OFTEN)
        if len(lately) == MOST_DEATHS:
            print(f"the main process has died {MOST_DEATHS} times ({before.reason}): giving up", file=sys.stderr)
            _leave(status, state)
        print(f"the main process has died ({before.reason}): another one goes on", file=sys.stderr)
        if len(lately) > 1:
            time.sleep(REFUSED_PAUSE_S if refused else PAUSE_S)


def _become_main(supervisor: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # without a supervisor it ends in order
    if os.getppid() != supervisor:
        os._exit(UNEXPECTED)
    faulthandler.enable()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})


def _watch(main: int) -> tuple[int, bool, float]:
    """Until main has ended: its exit status, -n for signal n, whether it had been told to stop, and for how many
    seconds it had hung when it was killed for that."""
    stopped, hung_s, kill_at = False, 0.0, 0.0
    pulse = heart.Pulse()
    while True:
        told = signal.sigtimedwait({*_PASSED_ON, signal.SIGCHLD}, heart.LOOK_S)
        if told is not None and told.si_signo == signal.SIGCHLD:
            for pid, status in _ended():
                if pid == main:
                    return status, stopped, hung_s
        elif told is not None:
            stopped = stopped or told.si_signo != signal.SIGHUP
            if told.si_code != _SI_KERNEL:
                _signal(main, told.si_signo)
        now = time.monotonic()
        if hung_s and now >= kill_at:
            _signal(main, signal.SIGKILL)
        elif not hung_s and not stopped and _hangs(pulse, main, now):
            hung_s, kill_at = pulse.silent_s, now + _ABORT_S
            print(f"the main process has given no sign of life for {hung_s:.0f} s: ending it", file=sys.stderr)
            _signal(main, signal.SIGABRT)  # it writes down where it hangs


def _hangs(pulse: heart.Pulse, main: int, now: float) -> bool:
    look = heart.seen(main, pulse_of_main, now)
    return look is not None and pulse.hangs(look)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _ended() -> list[tuple[int, int]]:
    """Children that have ended, and how; those of dead mains are ours too."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def _leave(status: int, state: Path) -> None:
    """When everything that the mains have started is gone; what is stuck is killed."""
    if _children():
        dismiss(state)
    deadline = time.monotonic() + _LEFT_S
    while _children() and time.monotonic() < deadline:
        _ended()
        time.sleep(0.02)
    for pid in _children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _ended()
    os._exit(status if status >= 0 else 128 - status)


def _children() -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as children:
        return [int(pid) for pid in children.read().split()]
    return []


def _reason(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
