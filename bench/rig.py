"""What the load benches share: cores, a network of their own, the generator, tables.

The subject (media engine or Asterisk) has the first core; the generator has the last one. What else runs, the process
that owns the engine above all, is put between them: on a machine of two cores that is the generator's core, where the
generator goes first (SCHED_FIFO, where permitted) and the echo next, before whatever else the machine does.
"""

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from tests.peers.asterisk import installation

ROOT = Path(__file__).parents[1]
SOURCE_PORT = 10000  # of the generator's first stream, two apart
FIRST_PORT, LAST_PORT = 30000, 61000  # of the subject
LATE_SHARE = 0.001  # of the generator's packets more than 1 ms late: beyond, the run says nothing about the subject
LOST_SHARE = 0.01
TRIES = 3
ECHO_PRIORITY = 5  # the engine has 10, the generator 20
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

Result = dict[str, Any]


class Load(NamedTuple):
    calls: int
    seconds: int = 10  # measured, after the warm-up
    warm_up: int = 3
    bridged: bool = False  # in pairs: what one of two calls says comes back on the other


class Subject(Protocol):
    """Something that takes calls and sends their audio back; its calls are up while it is entered."""

    name: str
    ports: list[int]  # RTP, one a call
    pids: list[int]  # whose CPU time counts

    async def figures(self) -> dict[str, float]:
        """What it has counted itself since it began; what is so at present is named ``*_now``."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Column(NamedTuple):
    key: str
    title: str
    form: str = "{}"


# --- the machine --------------------------------------------------------------------------------------------------


def prepare(*, asterisk: bool) -> None:
    """Files for thousands of sockets, and a network namespace: ports and packets of others do not meet ours."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    build()
    if asterisk:
        installation()  # may have to be fetched, for which the machine's own network is needed
    if os.geteuid() == 0 and ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            asked = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
            flags: int = struct.unpack("16sH14x", asked)[1]
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def cores(processes: int = 1) -> tuple[list[int], int, int]:
    """For the subject's processes, for what else runs, for the generator."""
    last = (os.cpu_count() or 1) - 1
    return [min(number, last) for number in range(processes)], min(processes, last), last


def pin(pid: int, core: int) -> None:
    """All threads; those to come inherit it."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def prefer(pid: int) -> None:
    """Before all but the generator, where permitted: an echo that starves would look like audio lost."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(ECHO_PRIORITY))


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of another process (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


# --- the generator ------------------------------------------------------------------------------------------------


def build() -> Path:
    """The generator, compiled when its source is newer."""
    program, source = ROOT / ".cache" / "rtpgen", ROOT / "bench" / "rtpgen.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(source), "-lm"], check=True)
    return program


async def measure(subject: Subject, load: Load, extra: Sequence[object] = ()) -> Result:
    """One run of the generator, with these arguments more; under "figures" what the subject counted meanwhile."""
    with tempfile.NamedTemporaryFile("w", suffix=".ports") as ports:
        ports.write("\n".join(map(str, subject.ports)))
        ports.flush()
        _, _, core = cores()
        arguments = ["-n", load.calls, "-d", load.seconds, "-w", load.warm_up, "-s", SOURCE_PORT, "-P", ports.name]
        arguments += [
            "-k",
            core,
            "-f",
            *(["-x"] if load.bridged else []),
            *(word for pid in subject.pids for word in ("-c", pid)),
            *extra,
        ]
        generator = await asyncio.create_subprocess_exec(build(), *map(str, arguments), stdout=asyncio.subprocess.PIPE)
        assert generator.stdout is not None
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        last = b""
        while line := await generator.stdout.readline():
            match line:
                case b"begin\n":
                    before = await subject.figures()
                case b"end\n":
                    after = await subject.figures()
                case _:
                    last = line
        if await generator.wait():
            raise SystemExit("the generator failed; its message is above")
    result: Result = json.loads(last)
    result["subject"] = subject.name
    result["died"] = min(result["cpu_s"]) < 0  # the clock of a process that is gone reads 0
    result["figures"] = {key: round(after[key] - (0 if key.endswith("_now") else before[key]), 3) for key in before}
    return result


async def served(make: Callable[[], Subject], load: Load) -> Result:
    """A run of a new subject that did its work; what dies or loses more than 1 % is cheap, and is run again."""
    for _ in range(TRIES):
        async with make() as subject:
            result = await measure(subject, load)
        if not result["died"] and result["lost"] <= LOST_SHARE * result["sent"]:
            return result
        what = "died" if result["died"] else f"lost {result['lost']} of {result['sent']} frames"
        print(f"{result['subject']} {what} with {load.calls} calls; run again", file=sys.stderr)
    raise SystemExit(f"{result['subject']} did not carry {load.calls} calls in {TRIES} runs")


def blameless(result: Result) -> bool:
    """Whether the generator kept time, so that what is late is the subject's doing."""
    late: float = result["generator_late_1ms"] / max(result["sent"], 1)
    return late <= LATE_SHARE and not result["generator_late_5ms"] and abs(result["clock_step_ms"]) < 1


# --- output -------------------------------------------------------------------------------------------------------


def arguments(description: str | None) -> argparse.ArgumentParser:
    """With the options that all benches have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm-up", type=int, default=3, help="seconds before measuring begins")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="a field of [media]"
    )
    parser.add_argument("--json", action="store_true", help="one object a line instead of the table")
    return parser


def table(columns: Sequence[Column], rows: Sequence[Result]) -> str:
    lines = ["| " + " | ".join(column.title for column in columns) + " |", "|" + "---:|" * len(columns)]
    for row in rows:
        cells = [column.form.format(row[column.key]) if row.get(column.key) is not None else "" for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def medians(results: Sequence[Result]) -> Result:
    """Of each number over the rounds; of counts that should be 0 the worst is told as well, under "worst"."""
    keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
    row: Result = {key: statistics.median(result[key] for result in results) for key in keys}
    row["worst"] = {key: max(result[key] for result in results) for key in keys}
    return row


def where() -> str:
    """One line on the machine, for under the table."""
    subject, other, generator = cores()
    model = next((line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores of {model}, load average {load:.1f}; subject on core {subject[0]}, generator on core "
        f"{generator}, everything else on core {other}."
    )


def _cpu_info() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()
