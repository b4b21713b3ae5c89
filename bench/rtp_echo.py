"""What the media engine costs and how evenly it paces: N calls that hear their own voice.

    python -m bench.rtp_echo 10 100 500 --seconds 10

Three processes: the generator (rtpgen.c) on one core, the engine on the other, and the echo, which takes what the
client hands it and writes it back, on the generator's core. Only the engine's CPU time is in the table.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sipagent.core.events import Event
from sipagent.media.client import Frames, MediaClient, MediaPort
from sipagent.media.settings import MediaSettings

HERE = Path(__file__).parent
SOURCE_PORT = 10000  # of the generator; the engine's ports begin above
COLUMNS = (
    ("calls", "calls", "{:d}"),
    ("cpu_us_per_call_s", "CPU µs per call-second", "{:.0f}"),
    ("core_percent", "% of a core", "{:.1f}"),
    ("pacing_p50_ms", "pacing p50 ms", "{:.2f}"),
    ("pacing_p99_ms", "p99", "{:.2f}"),
    ("pacing_max_ms", "max", "{:.2f}"),
    ("late_10ms", "late > 10 ms", "{:d}"),
    ("lost", "lost", "{:d}"),
    ("concealed", "concealed", "{:d}"),
    ("round_trip_p50_ms", "round trip p50 ms", "{:.0f}"),
)


class _Quiet:
    """The table is all that is printed; what the engine has to complain of is on its own stderr."""

    def emit(self, event: Event) -> None:
        pass


def build() -> Path:
    """The generator, compiled when its source is newer."""
    program = HERE.parent / ".cache" / "rtpgen"
    source = HERE / "rtpgen.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(source), "-lm"], check=True)
    return program


async def serve(calls: int) -> None:
    """The echo: prints the engine's pid and the ports, runs until its input closes."""
    settings = MediaSettings(host="127.0.0.1", port_min=30000, port_max=61000, capacity=calls, media_timeout_s=0)
    client = MediaClient(settings, _Quiet())
    await client.start()
    _pin(client.pid, 0)
    ports: list[MediaPort] = []
    for number in range(calls):
        port = await client.open()
        port.on_frames = _echo(port)
        port.connect("127.0.0.1", SOURCE_PORT + 2 * number, 0)
        ports.append(port)
    print(json.dumps({"pid": client.pid, "ports": [port.port for port in ports]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await client.close()


def _echo(port: MediaPort) -> Any:
    def take(frames: Frames) -> None:
        port.write(frames.pcm.reshape(-1))

    return take


def _pin(pid: int, core: int) -> None:
    """Engine and generator must not share a core, where there are two."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {core})


def measure(calls: int, seconds: int, warm_up: int) -> dict[str, Any]:
    generator = build()
    with (
        subprocess.Popen(
            [sys.executable, "-m", "bench.rtp_echo", "--serve", str(calls)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        ) as echo,
        tempfile.NamedTemporaryFile("w", suffix=".ports") as ports,
    ):
        assert echo.stdin and echo.stdout
        _pin(echo.pid, (os.cpu_count() or 1) - 1)
        told = json.loads(echo.stdout.readline())
        ports.write("\n".join(map(str, told["ports"])))
        ports.flush()
        options = {"-n": calls, "-d": seconds, "-w": warm_up, "-s": SOURCE_PORT, "-P": ports.name, "-c": told["pid"]}
        options["-k"] = (os.cpu_count() or 1) - 1
        command = [str(generator), *(str(part) for pair in options.items() for part in pair)]
        if os.geteuid() == 0:
            command.append("-f")
        run = subprocess.run(command, capture_output=True, text=True)
        echo.stdin.close()
        echo.wait()
    if run.returncode:
        raise SystemExit(run.stderr)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def table(results: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(title for _, title, _ in COLUMNS) + " |", "|" + "---:|" * len(COLUMNS)]
    lines += ["| " + " | ".join(form.format(row[key]) for key, _, form in COLUMNS) + " |" for row in results]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", type=int, nargs="*", default=[10, 100, 500])
    parser.add_argument("--seconds", type=int, default=10, help="measured, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one object a line instead of the table")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    results = [measure(calls, options.seconds, options.warm_up) for calls in options.calls]
    print("\n".join(json.dumps(row) for row in results) if options.json else table(results))


if __name__ == "__main__":
    main()
