"""SIPp as the caller, playing recorded human speech over RTP; what the node makes of it."""

import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sipagent.cli.show import PARTS
from sipagent.media import g711
from tests.peers import sipp
from tests.speech.prompts import Prompt, prompts
from tests.system.node import Node
from tests.system.wire import Capture, Packet
from tests.wer import wer

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(300)]

PCMU = 0
CALLS = 4
PROMPTS = 48
GAP_S = 1.4  # between prompts: more than the endpointing


def speech_file(folder: Path, said: Sequence[Prompt], gap_s: float) -> tuple[Path, float]:
    """The prompts one after another as headerless G.711, and the seconds they take."""
    gap = np.zeros(int(gap_s * 8000), np.int16)
    pcm = np.concatenate([gap, *(part for prompt in said for part in (prompt.pcm, gap))])
    pcm = pcm[: len(pcm) // 160 * 160]
    path = folder / f"{said[0].name.replace('/', '-')}.ulaw"
    path.write_bytes(g711.encode(PCMU, pcm).tobytes())
    return path, len(pcm) / 8000


async def test_words_of_recorded_callers_are_in_the_record(tmp_path):
    said = prompts(PROMPTS)
    shares = [said[i::CALLS] for i in range(CALLS)]
    async with Node() as node:
        files = [speech_file(tmp_path, share, GAP_S) for share in shares]
        results = await asyncio.gather(
            *(
                sipp.run(
                    "uac-inbound-plays-speech.xml",
                    target=node.target,
                    service="listen",
                    speech=path,
                    duration_ms=int(seconds * 1000) + 1500,
                    timeout_s=seconds + 30,
                    args=["-key", "share", str(i)],
                )
                for i, (path, seconds) in enumerate(files)
            )
        )
        for result in results:
            result.check()
        records = await node.ended(CALLS)
    # Calls are matched with what was played by the fewest errors: SIPp's four processes ring in any order.
    heard = [" ".join(turn.caller_text for turn in record.turns) for record in records]
    texts = [" ".join(prompt.text for prompt in share) for share in shares]
    pairs = [(text, _nearest(text, heard)) for text in texts]
    assert len({words for _, words in pairs}) == CALLS
    rate = wer(pairs)
    print(f"\nword error rate of {PROMPTS} prompts over SIP and RTP: {rate:.1%}")
    assert rate < 0.10
    for record in records:
        (leg,) = record.call.legs
        assert leg.lost == 0 and leg.malformed == 0
        assert record.call.ended_by == "caller"


async def test_gap_between_callers_last_speech_packet_and_agents_first(tmp_path):
    said = [prompt for prompt in prompts(60, words=(3, 8), longest_s=3.0) if _unbroken(prompt)][:12]
    assert len(said) >= 8
    async with Node() as node:
        path, seconds = speech_file(tmp_path, said, 2.6)
        with Capture(node.media_port, node.media_port + 255) as wire:
            result = await sipp.run(
                "uac-inbound-plays-speech.xml",
                target=node.target,
                service="short",
                speech=path,
                duration_ms=int(seconds * 1000) + 1500,
                timeout_s=seconds + 30,
            )
        result.check()
        (record,) = await node.ended(1)
    ours = [p for p in wire.packets if node.media_port <= p.source <= node.media_port + 255]
    theirs = [p for p in wire.packets if node.media_port <= p.target <= node.media_port + 255]
    gaps = response_gaps(theirs, ours)
    assert len(gaps) >= len(said) - 2, "nearly every prompt must be answered"
    told = [
        (t.agent_started_at.timestamp(), t.total_ms / 1000) for t in record.turns if t.agent_started_at and t.total_ms
    ]
    off = [took - (first - end) for end, first in gaps for at, took in told if abs(at - first) < 0.1]
    seconds_of = sorted(first - end for end, first in gaps)
    print(
        f"\ngap on the wire over {len(gaps)} turns: p50 {statistics.median(seconds_of) * 1000:.0f} ms,"
        f" max {seconds_of[-1] * 1000:.0f} ms;"
        f" the record differs by {min(off) * 1000:+.0f} to {max(off) * 1000:+.0f} ms"
    )
    # The aim is 600 ms at the median on an idle machine; this bound only catches what is broken.
    assert statistics.median(seconds_of) < 1.5
    # The record tells what the wire shows: the same packets, but for one whose level is at the very limit.
    assert len(off) == len(gaps)
    assert statistics.median(map(abs, off)) < 0.01
    assert max(map(abs, off)) < 0.05
    for turn in record.turns:
        if turn.total_ms is not None:
            assert sum(getattr(turn, name) for name, _, _ in PARTS) == pytest.approx(turn.total_ms)


def _nearest(text: str, heard: Sequence[str]) -> str:
    return min(heard, key=lambda words: wer([(text, words)]))


def response_gaps(caller: Sequence[Packet], agent: Sequence[Packet]) -> list[tuple[float, float]]:
    """When the last loud packet of each of the caller's utterances came, and the agent's first loud one after it."""
    loud = [p.at for p in caller if p.loud]
    ends = [a for a, b in zip(loud, [*loud[1:], float("inf")], strict=True) if b - a > 1.0]
    starts = [p.at for p in agent if p.loud]
    gaps = [(end, min((at for at in starts if at > end), default=float("inf"))) for end in ends]
    return [(end, first) for end, first in gaps if first - end < 2.5]


def _unbroken(prompt: Prompt) -> bool:
    """No pause inside that would count as the end of the turn."""
    frames = prompt.pcm[: len(prompt.pcm) // 160 * 160].reshape(-1, 160).astype(np.float64)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 184.0)
    return len(loud) > 0 and int(np.diff(loud).max(initial=1)) < 8
