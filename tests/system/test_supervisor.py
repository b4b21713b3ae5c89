"""When another main is started, with mains that only end."""

import subprocess
import sys
from pathlib import Path

import pytest

MAIN = """
import os, signal, sys, time
from pathlib import Path
from sipagent.cli import supervisor

supervisor.REFUSED_PAUSE_S = supervisor.PAUSE_S = 0.05
state, ends = Path(sys.argv[1]), sys.argv[2:]
before = supervisor.supervise(state)
end = ends[len(list(state.iterdir()))]
(state / str(os.getpid())).write_text("often" if before and before.often else "")
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if end in ("hangs", "stopped"):
    supervisor.pulse_of_main.beat(1.5)
if end == "hangs":
    time.sleep(60)
if end == "stopped":
    if os.fork() == 0:
        time.sleep(4)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
    end = 0
sys.exit(int(end))
"""


@pytest.mark.parametrize(
    ("ends", "status", "mains"),
    [
        (["3"], 3, 1),
        (["killed", "2", "3", "2", "0"], 0, 5),
        (["killed", "2", "2", "2", "2"], 2, 5),
    ],
)
def test_a_start_that_is_refused_ends_no_calls_at_once(tmp_path: Path, ends: list[str], status: int, mains: int):
    command = [sys.executable, "-c", MAIN, str(tmp_path), *ends]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == status
    started = [file.read_text() for file in tmp_path.iterdir()]
    assert started == [""] * mains, "and none of the calls is taken for the reason"


def test_a_main_that_hangs_is_replaced_and_one_that_was_stopped_is_not(tmp_path: Path):
    command = [sys.executable, "-c", MAIN, str(tmp_path), "hangs", "stopped"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and len(list(tmp_path.iterdir())) == 2
    assert "no sign of life" in done.stderr and "another one goes on" in done.stderr
    assert 'File "<string>", line' in done.stderr, "where it hung"
