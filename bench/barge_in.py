"""How fast an agent yields to the caller, and to what it does not: over real RTP, with the local models.

    python -m bench.barge_in [--part tuned|held-back|all] [--calls 2] [--each 30] [--voices DIR] [--list]

An agent tells a long story without questions. While it is heard, its caller interrupts, or only makes a sound
(`bench.barge_in_sounds`); every second sound of a kind was held back from tuning. The caller's line has noise at
-60 dBFS. For interruptions: the time from sending the first voiced packet to the arrival of the last of the agent's
packets at its full level, which is one whose codes are those of the story.
"""

import argparse
import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import barge_in_sounds as sounds
from bench.barge_in_sounds import Pcm, Sound
from sipagent.conversation import chunking
from sipagent.conversation.audio import SPEECH_POWER, powers, whole_frames
from sipagent.conversation.interfaces import Asked, Expecting, Piece, Text
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.session import Session
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.events import AgentInterrupted, Event
from sipagent.core.ids import CallId
from sipagent.dialplan.model import AgentSpec
from sipagent.media import g711
from sipagent.media.client import MediaClient
from sipagent.media.settings import MediaSettings
from sipagent.speech.client import SpeechClient
from sipagent.speech.settings import SpeechSettings
from sipagent.speech.vad import make_vad
from tests.media.peer import Peer

STORY = (
    "The old lighthouse stands at the end of the harbour. Every evening the keeper climbs up and lights the lamp."
    " Ships from many countries pass by on their way to the north. Some of them carry timber, and others carry grain."
    " In winter the storms are so strong that nobody goes out to sea. Then the people of the town sit by the fire,"
    " and tell each other about the summer. The oldest of them remembers a time before there was any light at all."
)
TIMES = 40  # of the story in a turn
SETTLE_S = 1.2  # heard without a break before the next sound
AFTER_S = 2.2  # for the verdict, behind a sound
SLOW_MS = 160.0  # to be told in the list
LIMIT_S = 20.0  # for the agent to speak again
ECHOES = ((60, -12), (120, -18), (200, -15), (300, -20), (400, -12), (160, -25))  # ms, dB
ECHO_S = 8.0  # of a call with an echo, from its first word


_BRIDGE = np.full(4000, 500, np.int16)  # in place of what is said when an answer takes long


class Storyteller:
    """Tells it whatever is asked."""

    intent = ""
    expecting = Expecting.ANYTHING

    def checkpoint(self) -> object:
        return None

    def rollback(self, state: object) -> None:
        pass

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        await asked.certain()
        for _ in range(TIMES):
            yield Text(STORY + " ")


class Recording:
    """The story as a voice: its clauses, made beforehand."""

    def __init__(self, clauses: dict[str, Pcm]) -> None:
        self._clauses = clauses

    async def speak(self, text: str, rate: int) -> AsyncIterator[Pcm]:
        yield self._clauses.get(text, _BRIDGE)


class Events(deque[Event]):
    def emit(self, event: Event) -> None:
        self.append(event)


class Result(NamedTuple):
    sound: Sound
    cut: bool
    yielded_ms: float  # to the last full-level packet, of one that was cut


class Caller:
    """One call: the far end's socket, sending every 20 ms, and what the agent's packets were."""

    def __init__(self, full: set[bytes], number: int) -> None:
        self.peer = Peer(ssrc=number + 1)
        self.events = Events()
        self._full = full
        self._random = np.random.default_rng(number)
        self._say: deque[Pcm] = deque()
        self._echo: tuple[int, float] | None = None
        self._seen = 0
        self.full_ns: deque[int] = deque(maxlen=2000)  # when full-level packets came
        self.voiced_ns = 0  # when the first voiced packet of the sound was sent

    async def send(self) -> None:
        begin, number = time.monotonic(), 0
        while True:
            frame = self._random.normal(0, 33, 160)
            if self._say:
                pcm = self._say.popleft()
                if not self.voiced_ns and powers(pcm[None])[0] > SPEECH_POWER:
                    self.voiced_ns = time.monotonic_ns()
                frame = frame + pcm
            if self._echo is not None:
                back, gain = self._echo
                frame = frame + gain * g711.ULAW_TO_LINEAR[np.frombuffer(self.peer.received[-back].payload, np.uint8)]
            coded = g711.encode(0, np.clip(frame, -32767, 32767).astype(np.int16))
            self.peer.packet(coded.tobytes())
            self._look()
            number += 1
            await asyncio.sleep(max(begin + 0.02 * number - time.monotonic(), 0))

    def _look(self) -> None:
        for packet, at in zip(self.peer.received[self._seen :], self.peer.arrived[self._seen :], strict=True):
            if packet.payload in self._full:
                self.full_ns.append(at)
        self._seen = len(self.peer.received)

    def reflect(self, ms: int, db: int) -> None:
        """From now on what the agent says comes back, so late and so loud."""
        self._echo = ms // 20, 10 ** (db / 20)

    async def make(self, sound: Sound) -> Result:
        """One sound while the agent is heard, and what came of it."""
        await self._agent_heard()
        await asyncio.sleep(float(self._random.uniform(0, 0.8)))
        self.events.clear()
        self.voiced_ns = 0
        pcm = np.pad(sound.pcm, (0, -len(sound.pcm) % 160))
        self._say.extend(pcm.reshape(-1, 160))
        await asyncio.sleep(len(pcm) / 8000 + AFTER_S)
        return self.result(sound)

    def result(self, sound: Sound) -> Result:
        """Of the sound made last."""
        cuts = [event.at.mono for event in self.events if isinstance(event, AgentInterrupted)]
        if not cuts:
            return Result(sound, False, 0.0)
        last = max((at for at in self.full_ns if at < cuts[0]), default=0)
        return Result(sound, True, (last - self.voiced_ns) / 1e6)

    async def _agent_heard(self) -> None:
        """For so long without a break."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                await asyncio.sleep(0.05)
                since = time.monotonic_ns() - int(SETTLE_S * 1e9)
                recent = sum(at > since for at in self.full_ns)
                if recent > 0.9 * SETTLE_S * 50 - 10:  # pauses between sentences are silence, not the story's codes
                    return


async def tell(speech: SpeechClient) -> tuple[dict[str, Pcm], set[bytes]]:
    """The clauses' audio, and the codes of all its frames that are not silence."""
    clauses, codes = {}, set()
    for text in dict.fromkeys(chunking.split((STORY + " ") * 2)):
        pcm = whole_frames(np.concatenate([piece async for piece in speech.speak(text, 8000)]), 8000)
        clauses[text] = pcm
        codes |= {row.tobytes() for row in g711.encode(0, pcm).reshape(-1, 160)}
    return clauses, {code for code in codes if len(set(code)) > 8}


async def collect(speech: SpeechClient, each: int, recorded: list[Sound]) -> list[Sound]:
    said = [(text, np.concatenate([piece async for piece in speech.speak(text, 8000)])) for text in sounds.SAID]
    found = sounds.interruptions(4 * each) + recorded
    found += sounds.spoken(said) + sounds.coughs(each) + sounds.keyboards(each) + sounds.dialling(each)
    return found + [Sound("echo", f"{ms} ms, {db} dB", np.zeros(0, np.int16)) for ms, db in ECHOES * 2]


async def run(options: argparse.Namespace, recorded: list[Sound]) -> list[Result]:
    results: list[Result] = []
    async with AsyncExitStack() as stack:
        speech = SpeechClient(SpeechSettings(), Events())
        await speech.start()
        stack.push_async_callback(speech.close)
        clauses, full = await tell(speech)
        todo: deque[Sound] = deque()
        for kind, found in _by_kind(await collect(speech, options.each, recorded)).items():
            if options.kind and options.kind != kind:
                continue
            chosen = {"tuned": found[::2], "held-back": found[1::2], "all": found}[options.part]
            many = 2 * options.each if kind == "interruption" else options.each
            todo.extend(chosen[:: max(1, -(-len(chosen) // many))])
        client = MediaClient(MediaSettings(host="127.0.0.1", capacity=8), Events())
        await client.start()
        stack.push_async_callback(client.close)
        makers = Calls(client, speech, clauses, full)
        await asyncio.gather(*(_make_all(makers, todo, results) for _ in range(options.calls)))
    return results


class Calls:
    def __init__(self, client: MediaClient, speech: SpeechClient, clauses: dict[str, Pcm], full: set[bytes]) -> None:
        self._client = client
        self._speech = speech
        self._clauses = clauses
        self._full = full
        self._opened = 0

    @asynccontextmanager
    async def call(self) -> AsyncIterator[Caller]:
        """One that is up."""
        self._opened += 1
        caller = Caller(self._full, self._opened)
        port = await self._client.open()
        caller.peer.target = (port.host, port.port)
        port.connect(caller.peer.host, caller.peer.port, 0)
        settings, story = ConversationSettings(lead_ms=0), (STORY + " ") * TIMES
        session = Session(
            CallId(f"call_{self._opened}"),
            agent=Storyteller(),
            manners=AgentSpec(greeting=story, silence_prompt=story, silence_s=2, silence_prompts=1000, filler=""),
            out=port,
            make_vad=make_vad(SpeechSettings()),
            recogniser=LocalRecogniser(self._speech, settings),
            tts=Recording(self._clauses),
            events=caller.events,
            settings=settings,
        )
        port.on_frames = session.on_frames
        tasks = [asyncio.create_task(caller.send()), asyncio.ensure_future(session.run())]
        try:
            yield caller
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await port.close()
            caller.peer.close()


async def _make_all(calls: Calls, todo: deque[Sound], results: list[Result]) -> None:
    async with calls.call() as caller:
        while todo:
            sound = todo.popleft()
            if sound.kind != "echo":
                results.append(await caller.make(sound))
                continue
            ms, db = (int(part.split()[0]) for part in sound.name.split(","))
            async with calls.call() as another:
                another.reflect(ms, db)
                await asyncio.sleep(ECHO_S)
                results.append(another.result(sound))


def _by_kind(found: list[Sound]) -> dict[str, list[Sound]]:
    kinds: dict[str, list[Sound]] = {}
    for sound in found:
        kinds.setdefault(sound.kind, []).append(sound)
    return kinds


def report(results: list[Result], details: bool) -> None:
    print("| sound | events | agent cut | % |\n|---|---|---|---|")
    kinds = sorted({result.sound.kind for result in results})
    for kind in kinds:
        of = [result for result in results if result.sound.kind == kind]
        cut = sum(result.cut for result in of)
        print(f"| {kind} | {len(of)} | {cut} | {100 * cut / len(of):.1f} |")
    others = [result for result in results if result.sound.kind != "interruption"]
    meant = [result for result in results if result.sound.kind == "interruption"]
    if others:
        cut = sum(result.cut for result in others)
        print(f"| all but interruptions: false cuts | {len(others)} | {cut} | **{100 * cut / len(others):.1f}** |")
    if meant:
        missed = sum(not result.cut for result in meant)
        print(f"| interruptions: missed | {len(meant)} | {missed} | **{100 * missed / len(meant):.1f}** |\n")
        ms = np.array([result.yielded_ms for result in meant if result.cut])
        p50, p95, most = np.percentile(ms, [50, 95, 100])
        print(f"First voiced packet to the last at full level, ms: p50 {p50:.0f}, p95 **{p95:.0f}**, worst {most:.0f}")
    if details:
        for result in results:
            if result.cut is not (result.sound.kind == "interruption"):
                print(
                    f"  {result.sound.kind}: {result.sound.name!r} {'cut' if result.cut else 'did not cut'} the agent"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("tuned", "held-back", "all"), default="all")
    parser.add_argument("--kind", default="", help="only this one")
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--each", type=int, default=30, help="events of a kind; interruptions twice as many")
    parser.add_argument("--voices", default=str(sounds.VOICES), help="of hedgewars-data")
    parser.add_argument("--list", action="store_true", help="tell which sounds were taken for something else")
    options = parser.parse_args()
    report(asyncio.run(run(options, sounds.recorded(Path(options.voices)))), options.list)


if __name__ == "__main__":
    main()
