"""Conversations while everything they depend on fails: no call without an ending, no silence beyond the bound.

    python -m bench.conversations --calls 20 --minutes 60

SIPp's callers play recorded prompts over RTP to a node whose agent hears, thinks and speaks by two vendors each, the
local models behind them. The vendors are a server that speaks their protocols and fails, by chance and for whole
stretches, in every way that tests/peers/vendors.py knows. What the callers hear is taken from the wire:

    reply    from the last loud packet of a caller's utterance to the agent's first
    silence  between two loud packets of the agent's within one turn, as its record has it

Both may last the bound (`dead_air_ms`); a reply the silence that ends a turn besides.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sipagent.conversation.settings import ConversationSettings
from sipagent.media import g711
from sipagent.store.queries import Queries
from sipagent.store.records import CallFilter, FullCall
from tests.peers.ports import free_block
from tests.peers.sipp import Sipp
from tests.peers.vendors import EVERY, Trouble, Vendor
from tests.speech.prompts import prompts
from tests.system.node import Node
from tests.system.wire import Capture, Packet

BOUND_S = ConversationSettings().dead_air_ms / 1000
ENDING_S = ConversationSettings().endpointing_ms / 1000
SLACK_S = 0.4  # jitter buffers, ticks, and what of a word is too quiet to count as loud
UTTERANCE_OVER_S = 1.0  # without a loud packet of the caller's
ANSWER_S = 9.0  # of silence after each prompt
OUTAGE_S, EVERY_S = 12.0, 60.0  # one vendor fails altogether for so long, once in so long

PROVIDERS = """
[providers.{name}_ears]
kind = "deepgram"
base_url = "{url}"
[providers.{name}_words]
kind = "openai_transcription"
base_url = "{url}"
model = "m"
[providers.{name}_model]
kind = "openai_chat"
base_url = "{url}"
model = "m"
hedge_ms = 900
[providers.{name}_voice]
kind = "elevenlabs"
base_url = "{url}"
voice = "v"
[providers.{name}_speech]
kind = "openai_speech"
base_url = "{url}"
model = "m"
voice = "v"
"""
DIALPLAN = """
routes: [{steps: talk}]
steps: {talk: [answer, agent: talker]}
agents:
  talker:
    greeting: "Hello, how can I help you?"
    silence_s: 30
    turn_end: silence
    filler: ["One moment, please.", "I am still looking."]
    stt: [one_ears, two_words]
    llm: [one_model, two_model]
    tts: [one_voice, two_speech]
    chat: {prompt: "You are the front desk."}
"""


class Loud:
    """Takes the packets of a capture and keeps when each port sent or got a loud one."""

    def __init__(self) -> None:
        self.sent: defaultdict[int, list[float]] = defaultdict(list)
        self.received: defaultdict[int, list[float]] = defaultdict(list)

    def append(self, packet: Packet) -> None:
        if packet.payload_type == 0 and packet.loud:
            self.sent[packet.source].append(packet.at)
            self.received[packet.target].append(packet.at)


@dataclass
class Found:
    """What the run has shown."""

    calls: int = 0
    turns: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    replies_s: list[float] = field(default_factory=list)
    silences_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raises AssertionError."""
        assert not self.wrong, "\n".join(self.wrong[:20])
        assert self.turns >= self.calls, f"{self.turns} turns in {self.calls} calls are no conversations"

    def __str__(self) -> str:
        replies, silences = np.array(self.replies_s or [0.0]), np.array(self.silences_s or [0.0])
        return (
            f"{self.calls} calls, {self.turns} turns, {sum(self.troubles.values())} troubles {dict(self.troubles)}\n"
            f"ended: {dict(self.endings)}\n"
            f"reply s: p50 {np.median(replies):.2f}, p95 {np.percentile(replies, 95):.2f}, longest {replies.max():.2f}"
            f" (allowed {BOUND_S + ENDING_S + SLACK_S:.2f})\n"
            f"silence within a turn s: p95 {np.percentile(silences, 95):.2f}, longest {silences.max():.2f}"
            f" (allowed {BOUND_S + SLACK_S:.2f})\n"
            f"beyond the bound or without an ending: {len(self.wrong)}"
        )


class Chance:
    """When a vendor fails: by chance, and altogether for a while in every minute."""

    def __init__(self, seed: int, share: float, offset_s: float, found: Found) -> None:
        self._random = random.Random(seed)
        self._share = share
        self._offset_s = offset_s
        self._found = found

    def __call__(self, role: str) -> Trouble:
        at = (asyncio.get_running_loop().time() + self._offset_s) % EVERY_S
        if at < OUTAGE_S or self._random.random() < self._share:
            trouble = self._random.choice(EVERY)
            self._found.troubles[f"{role} {trouble}"] += 1
            return trouble
        return Trouble.NONE


async def run(calls: int, seconds: float, call_s: float, seed: int = 1) -> Found:
    """So many at a time, each for so long."""
    found = Found()
    async with Vendor() as one, Vendor() as two:
        one.trouble, two.trouble = Chance(seed, 0.25, 0.0, found), Chance(seed + 1, 0.1, EVERY_S / 2, found)
        extra = PROVIDERS.format(name="one", url=one.url) + PROVIDERS.format(name="two", url=two.url)
        extra += f"[limits]\nmax_calls = {calls + 4}\n"
        async with Node(extra=extra, dialplan=DIALPLAN) as node:
            loud = Loud()
            with Capture(node.media_port, node.media_port + 255) as wire, tempfile.TemporaryDirectory() as folder:
                wire.packets = loud  # type: ignore[assignment]
                total = max(calls, round(calls * seconds / call_s))
                callers = Sipp(
                    "uac-inbound-plays-speech.xml",
                    target=node.target,
                    service="talk",
                    calls=total,
                    rate=2.0,
                    limit=calls,
                    duration_ms=int(call_s * 1000),
                    timeout_s=seconds * 2 + call_s + 60,
                    speech=_speech(Path(folder), call_s, seed),
                    media_port=free_block(calls * 8),
                )
                await callers.start()
                await callers.wait()
                await _until_idle(node)
            for record in _records(node):
                _look_at(record, loud, found)
    return found


async def _until_idle(node: Node) -> None:
    async def idle() -> bool:
        return int((await node.health())["calls_active"]) == 0

    await node.until(idle, 90)
    await asyncio.sleep(2)  # until the record has it


def _records(node: Node) -> list[FullCall]:
    queries = Queries(node.url)
    try:
        found, cursor = [], None
        while True:
            page = queries.list_calls(CallFilter(limit=100, cursor_after=cursor))
            found += [full for call in page.calls if (full := queries.get_call(call.id)) is not None]
            cursor = page.next_cursor
            if not page.has_more:
                return found
    finally:
        queries.close()


def _speech(folder: Path, call_s: float, seed: int) -> Path:
    """What a caller says in a whole call."""
    said = [prompt.pcm for prompt in prompts(40, words=(3, 8), longest_s=3.0)]
    random.Random(seed).shuffle(said)
    parts, length = [np.zeros(int(3.5 * 8000), np.int16)], 3.5
    for pcm in said * 100:
        length += len(pcm) / 8000 + ANSWER_S
        if length > call_s:
            break
        parts += [pcm, np.zeros(int(ANSWER_S * 8000), np.int16)]
    samples = np.concatenate(parts)
    path = folder / "speech.ulaw"
    path.write_bytes(g711.encode(0, samples[: len(samples) // 160 * 160]).tobytes())
    return path


def _look_at(record: FullCall, loud: Loud, found: Found) -> None:
    call, leg = record.call, record.call.legs[0]
    found.calls += 1
    found.endings[f"{call.cause} by {call.ended_by}"] += 1
    if call.ended_at is None or not call.cause:
        found.wrong.append(f"{call.id} has no ending")
        return
    port = int((leg.local_media or ":0").rpartition(":")[2])
    begun = call.answered_at or call.ended_at
    span = (begun.timestamp(), call.ended_at.timestamp())
    agent = [at for at in loud.sent[port] if span[0] <= at <= span[1] + 0.1]
    caller = [at for at in loud.received[port] if span[0] <= at <= span[1] + 0.1]
    _replies(call.id, agent, caller, span[1], found)
    for turn in record.turns:
        if turn.caller_text and turn.agent_started_at is not None:
            found.turns += 1
            start, end = turn.agent_started_at.timestamp(), turn.ended_at.timestamp()
            spoken = [at for at in agent if start - 0.1 <= at <= end + 0.1]
            gaps = [later - earlier for earlier, later in zip(spoken, spoken[1:], strict=False)]
            longest = max(gaps, default=0.0)
            found.silences_s.append(longest)
            if longest > BOUND_S + SLACK_S:
                found.wrong.append(f"{call.id} turn {turn.turn_index}: {longest:.2f} s of silence; {turn.details}")


def _replies(call_id: str, agent: list[float], caller: list[float], ended: float, found: Found) -> None:
    """After each utterance of the caller's something is heard in time, or the call is over.

    What is said while the agent speaks need not be answered: it may be a "yes", or the sentence must be heard whole.
    """
    limit = BOUND_S + ENDING_S + SLACK_S
    began = caller[0] if caller else 0.0
    for at, following in zip(caller, [*caller[1:], float("inf")], strict=True):
        if following - at < UTTERANCE_OVER_S:
            continue
        alone = bisect_right(agent, at) == bisect_right(agent, began - UTTERANCE_OVER_S)
        began = following
        place = bisect_right(agent, at)
        first = agent[place] if place < len(agent) else float("inf")
        waited = min(first, following, ended) - at
        if alone and waited > limit:
            found.wrong.append(f"{call_id}: {waited:.2f} s without a reply")
        elif alone and first < min(following, ended):
            found.replies_s.append(waited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20, help="at a time")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--call-s", type=float, default=60.0, help="how long each caller stays")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    found = asyncio.run(run(asked.calls, asked.minutes * 60, asked.call_s, asked.seed))
    print(found)
    for wrong in found.wrong:
        print(wrong, file=sys.stderr)
    raise SystemExit(bool(found.wrong))


if __name__ == "__main__":
    main()
