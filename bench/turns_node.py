"""The process that has the conversations of `bench.turns`: a media engine, and a session for each of its calls.

It prints a JSON line when all calls are up, the latencies that were recorded for each line it reads, and ends with its
input. Scripted providers answer at once: words of fixed text, an agent that knows its answer, a voice that plays a
recording; what is left is ours. The detector of voice is then the level of a frame, the same as the generator's.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.engine import engine_pids, settings_for
from bench.rig import SOURCE_PORT, cores, pin
from sipagent.conversation.audio import SPEECH_POWER, powers
from sipagent.conversation.interfaces import (
    Asked,
    Expecting,
    MakeDetector,
    OnWords,
    Pcm,
    Piece,
    Recogniser,
    Text,
    Transcript,
    Tts,
    Words,
)
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.session import Session
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.events import Event, TurnEnded
from sipagent.core.ids import CallId
from sipagent.dialplan.model import AgentSpec
from sipagent.media.client import MediaClient
from sipagent.speech.client import SpeechClient
from sipagent.speech.settings import SpeechSettings
from sipagent.speech.vad import make_vad
from tests.speech.prompts import prompts

ANSWER = "Certainly, I will see to that."


class Ledger:
    """Turns as they would go on record."""

    def __init__(self) -> None:
        self.turns: list[dict[str, Any]] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, TurnEnded) and event.latency is not None:
            parts = {name: getattr(event.latency, name) for name in event.latency.__dataclass_fields__}
            parts["stream"] = int(event.call_id.rpartition("_")[2])
            assert event.agent_started_at is not None
            parts["sent"] = event.agent_started_at.wall.timestamp()
            self.turns.append(parts | {"adopted": bool(event.details.get("speculation", {}).get("adopted"))})


class Brief:
    """An agent that says the same to everything."""

    intent = ""
    expecting = Expecting.ANYTHING

    def checkpoint(self) -> object:
        return None

    def rollback(self, state: object) -> None:
        pass

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        yield Text(ANSWER)


class Loudness:
    def __init__(self, rate: int) -> None:
        pass

    def push(self, frames: Pcm) -> NDArray[np.bool_]:
        loud: NDArray[np.bool_] = powers(frames) > SPEECH_POWER
        return loud


class ScriptedWords:
    """Any utterance is known at its first pause, as the same words."""

    def begin(self, on_words: OnWords) -> "ScriptedWords":
        heard = ScriptedWords()
        heard.on_words = on_words
        return heard

    on_words: OnWords

    def push(self, frame: Pcm) -> None:
        pass

    def pause(self) -> None:
        self.on_words(Words("hello", 0.9, paused=True))

    def resume(self) -> None:
        pass

    def cancel(self) -> None:
        pass

    async def finish(self) -> Transcript:
        return Transcript("hello", 0.9)


class ScriptedVoice:
    """Every clause is the same recording of half a second."""

    def __init__(self) -> None:
        pcm = prompts(1, words=(3, 8), longest_s=3.0)[0].pcm
        loud = np.flatnonzero(powers(pcm[: len(pcm) // 160 * 160].reshape(-1, 160)) > SPEECH_POWER)
        self._pcm = pcm[loud[0] * 160 :][:4000]

    async def speak(self, text: str, rate: int) -> AsyncIterator[Pcm]:
        yield self._pcm


async def serve(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        ledger = Ledger()
        client = MediaClient(settings_for(options.calls, ["max_load=1", *options.settings]), ledger)
        await client.start()
        stack.push_async_callback(client.close)
        engines = engine_pids(os.getpid())
        for pid, core in zip(engines, cores(len(engines))[0], strict=True):
            pin(pid, core)
        settings = ConversationSettings(lead_ms=0, speculations=options.speculations)
        recogniser: Recogniser = ScriptedWords()
        tts: Tts = ScriptedVoice()
        vad: MakeDetector = Loudness
        if options.local:
            speech = SpeechClient(SpeechSettings(), ledger)
            await speech.start()
            stack.push_async_callback(speech.close)
            recogniser, tts, vad = LocalRecogniser(speech, settings), speech, make_vad(SpeechSettings())
        elif options.vad:
            vad = make_vad(SpeechSettings(vad=options.vad))
        ports: list[int] = []
        calls: list[asyncio.Task[Any]] = []
        manners = AgentSpec(greeting="", silence_s=3600, filler="", intents={})
        for number in range(options.calls):
            far = SOURCE_PORT + 2 * number
            port = await client.open(("127.0.0.1", far))
            port.connect("127.0.0.1", far, 0, 101, rtcp_port=far + 1)
            session = Session(
                CallId(f"call_{number}"),
                agent=Brief(),
                manners=manners,
                out=port,
                make_vad=vad,
                recogniser=recogniser,
                tts=tts,
                events=ledger,
                settings=settings,
            )
            port.on_frames = session.on_frames
            calls.append(asyncio.create_task(session.run()))
            ports.append(port.port)
        _tell({"pids": [*engines, os.getpid()], "ports": ports})
        await _answer(ledger)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def _answer(ledger: Ledger) -> None:
    """A line for each that is read: what was recorded since the last."""
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    while await questions.readline():
        turns, ledger.turns = ledger.turns, []
        _tell({"turns": turns})


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Internal: the process that has the conversations, see the module.")
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--vad", default="")
    parser.add_argument("--speculations", type=int, default=ConversationSettings().speculations)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
