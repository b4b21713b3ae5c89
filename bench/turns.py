"""How long a caller waits for the answer, and what a conversation costs.

    python -m bench.turns 1 200            scripted providers that take no time: what is measured is ours
    python -m bench.turns --local 1 4      the local recogniser and voice

Callers play recorded prompts over RTP; the generator writes down, by the kernel's stamps, when each loud packet was
sent and came. The gap is from the last loud packet of a caller's utterance to the agent's first one after it. Without
the silence that was waited for (by the turn's record) it is what the machinery takes: jitter buffer, ticks, scheduling.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench.rig import ROOT, Column, Load, Result, arguments, measure, prepare, table, where
from sipagent.conversation.audio import SPEECH_POWER, powers
from sipagent.conversation.settings import ConversationSettings
from sipagent.media import g711
from tests.speech.prompts import prompts

BETWEEN_S = 2.6  # of silence after each prompt; the answer comes within it
TURN_OVER_S = 1.0  # without a loud packet: the prompts have no pause as long
SAME_PACKET_S = 0.1
LOUD = np.dtype([("at", "<u8"), ("stream", "<u4"), ("received", "<u4")])

COLUMNS = (
    Column("calls", "calls", "{:d}"),
    Column("turns", "turns", "{:d}"),
    Column("gap_p50", "gap p50 ms", "{:.0f}"),
    Column("gap_p95", "p95", "{:.0f}"),
    Column("own_p50", "without the silence waited for: p50", "{:.0f}"),
    Column("own_p95", "p95", "**{:.0f}**"),
    Column("off_p50", "record minus wire: p50", "{:+.0f}"),
    Column("off_p95", "p95 of its size", "{:.0f}"),
    Column("unanswered", "unanswered", "{:d}"),
    Column("main_ms", "CPU ms per call-second: main", "{:.2f}"),
    Column("media_ms", "media", "{:.2f}"),
    Column("cpu_ms", "both", "**{:.2f}**"),
)
PARTS = ("jitter_buffer", "endpointing", "stt", "llm", "clause", "tts", "playout", "pacing")


def speech_file(folder: Path) -> Path:
    """Prompts without a pause that would end the turn, silence between them; µ-law."""
    said = [prompt.pcm for prompt in prompts(60, words=(3, 8), longest_s=3.0) if _unbroken(prompt.pcm)][:24]
    silence = np.zeros(int(BETWEEN_S * 8000), np.int16)
    pcm = np.concatenate([part for one in said for part in (one, silence)])
    path = folder / "speech.ul"
    path.write_bytes(g711.encode(0, pcm[: len(pcm) // 160 * 160]).tobytes())
    return path


def _unbroken(pcm: NDArray[np.int16]) -> bool:
    loud = np.flatnonzero(powers(pcm[: len(pcm) // 160 * 160].reshape(-1, 160)) > SPEECH_POWER)
    return len(loud) > 20 and int(np.diff(loud).max(initial=1)) < 6


class Gap(NamedTuple):
    stream: int
    end: float  # s, of the caller's last loud packet
    first: float  # of the agent's first

    @property
    def ms(self) -> float:
        return (self.first - self.end) * 1e3


def gaps(log: NDArray[Any], calls: int) -> tuple[list[Gap], int]:
    """From each utterance's last loud packet to the agent's first after it; and how many had no answer.

    The last utterance of a stream is left out: its answer may come after the end.
    """
    found: list[Gap] = []
    unanswered = 0
    for stream in range(calls):
        rows = log[log["stream"] == stream]
        sent, came = (np.sort(rows["at"][rows["received"] == way].astype(np.int64)) for way in (0, 1))
        pauses = np.flatnonzero(np.diff(sent) > TURN_OVER_S * 1e9)
        for end, goes_on in zip(sent[pauses], sent[pauses + 1], strict=True):
            first = came[(came > end) & (came < goes_on)]
            if len(first):
                found.append(Gap(stream, end / 1e9, first[0] / 1e9))
            else:
                unanswered += 1
    return found, unanswered


def on_record(found: Sequence[Gap], turns: Sequence[dict[str, Any]]) -> list[tuple[Gap, dict[str, Any]]]:
    """Each gap with its turn's record, where there is one: the turn whose first packet left just before it came."""
    pairs: list[tuple[Gap, dict[str, Any]]] = []
    for gap in found:
        near = [
            turn for turn in turns if turn["stream"] == gap.stream and abs(turn["sent"] - gap.first) < SAME_PACKET_S
        ]
        pairs += [(gap, near[0])] if near else []
    return pairs


class Conversations:
    """``async with Conversations(100, ["--local"]) as subject:``, the other process with its calls up."""

    name = "conversations"

    def __init__(self, calls: int, options: Sequence[str]) -> None:
        self._command = ["--calls", str(calls), *options]
        self.ports: list[int] = []
        self.pids: list[int] = []
        self.turns: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.turns_node", *self._command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=1 << 26,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        told = await self._answer()
        self.ports, self.pids = told["ports"], told["pids"]
        return self

    async def figures(self) -> dict[str, float]:
        """Asked when measuring begins and when it ends: the turns between are kept."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"turns\n")
        self.turns = (await self._answer())["turns"]
        return {}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the process that has the conversations ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


async def measured(calls: int, load: Load, options: Sequence[str], folder: Path) -> Result:
    log = folder / f"{calls}.loud"
    speech = speech_file(folder)
    async with Conversations(calls, options) as subject:
        result = await measure(subject, load, ["-u", speech, "-l", log])
    found, unanswered = gaps(np.fromfile(log, LOUD), calls)
    pairs = on_record(found, subject.turns)
    ms = [1e3 * seconds / result["elapsed_s"] / calls for seconds in result["cpu_s"]]
    row: Result = {"calls": calls, "turns": len(found), "unanswered": unanswered, "parts": {}}
    if not pairs:
        raise SystemExit(f"no turn was answered in {load.seconds} s; {unanswered} had no answer")
    row["gap_p50"], row["gap_p95"] = np.percentile([gap.ms for gap in found], (50, 95))
    row["own_p50"], row["own_p95"] = np.percentile([gap.ms - turn["endpointing_ms"] for gap, turn in pairs], (50, 95))
    off = [turn["total_ms"] - gap.ms for gap, turn in pairs]
    row["off_p50"], row["off_p95"] = np.median(off), np.percentile(np.abs(off), 95)
    row["media_ms"], row["main_ms"], row["cpu_ms"] = sum(ms[:-1]), ms[-1], sum(ms)
    row["parts"] = {part: np.mean([turn[f"{part}_ms"] for turn in subject.turns]) for part in PARTS}
    row["adopted"] = np.mean([turn["adopted"] for turn in subject.turns])
    row["generator"] = {key: result[key] for key in ("generator_late_p99_ms", "generator_percent")}
    return row


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("calls", type=int, nargs="*", default=[1, 200])
    parser.add_argument("--local", action="store_true", help="the local models in place of scripted providers")
    parser.add_argument("--vad", default="", help="a detector in place of the level of a frame")
    parser.add_argument("--speculations", type=int, default=ConversationSettings().speculations)
    parser.add_argument("--seconds", type=int, default=40, help="measured, after the warm-up")
    options = parser.parse_args()
    prepare(asterisk=False)
    node = [
        "--speculations",
        str(options.speculations),
        *(word for each in options.settings for word in ("--set", each)),
    ]
    node += [*(["--local"] if options.local else []), *(["--vad", options.vad] if options.vad else [])]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            asyncio.run(measured(calls, Load(calls, options.seconds, options.warm_up), node, Path(folder)))
            for calls in options.calls
        ]
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(table(COLUMNS, rows))
    for row in rows:
        parts = ", ".join(f"{name} {value:.0f}" for name, value in row["parts"].items())
        print(f"\n{row['calls']} calls, mean parts in ms: {parts}; begun at the pause: {row['adopted']:.0%}")
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
