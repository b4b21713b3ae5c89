"""What a caller hears of an agent that is coughed at and interrupted: every packet of the wire, through the engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from sipagent.conversation.session import Session
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.events import TurnEnded
from sipagent.core.ids import CallId
from sipagent.dialplan.model import AgentSpec
from sipagent.media.ducking import DUCKED, FULL
from sipagent.media.g711 import encode
from tests.conversation.scenario import Echo, LoudnessVad, Words
from tests.media.peer import Events, Peer, codes, pcm_of
from tests.media.test_engine import Rig

GREETING = "Welcome to the office where we are open from nine to five"
FRAMES = 150  # of the greeting, each unlike all others
SURE = 60  # of them, by which the echo gate knows that there is no echo


class Voice:
    def __init__(self) -> None:
        self.codes = codes(FRAMES, seed=3)

    async def speak(self, text: str, rate: int) -> AsyncIterator[np.ndarray]:
        yield pcm_of(self.codes) if text == GREETING else np.full(1600, 3000, np.int16)


class Caller:
    """Sends a packet every 20 ms, silent but for what it utters."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._loud = 0
        self._random = np.random.default_rng(1)
        self.task = asyncio.create_task(self._send())

    def utters(self, frames: int) -> None:
        self._loud = frames

    async def _send(self) -> None:
        begin, sent = time.monotonic(), 0
        while True:
            loud = self._random.integers(-6000, 6000, 160, np.int16) * (self._loud > 0)
            self._loud -= self._loud > 0
            self.peer.packet(encode(0, loud.astype(np.int16)).tobytes())
            sent += 1
            await asyncio.sleep(max(begin + 0.02 * sent - time.monotonic(), 0))

    async def hears(self, frame: int, voice: Voice) -> None:
        """Until this frame of the greeting has come at its full level."""
        async with asyncio.timeout(10):
            while not any(packet.payload == voice.codes[frame] for packet in self.peer.received):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def greeted(words: list[str | list[str] | Exception]) -> AsyncIterator[tuple[Caller, Voice, Events]]:
    async with Rig(playout_min_ms=20, playout_max_ms=60) as rig:
        port, peer, _ = await rig.call()
        events, voice, settings = Events(), Voice(), ConversationSettings(lead_ms=0)
        session = Session(
            CallId("call_1"),
            agent=Echo(),
            manners=AgentSpec(greeting=GREETING),
            out=port,
            make_vad=LoudnessVad,
            recogniser=Words(words),
            tts=voice,
            events=events,
            settings=settings,
        )
        port.on_frames = session.on_frames
        caller, talking = Caller(peer), asyncio.create_task(session.run())
        try:
            yield caller, voice, events
        finally:
            caller.task.cancel()
            talking.cancel()
            await asyncio.wait([caller.task, talking])


async def turn_ended(events: Events) -> TurnEnded:
    async with asyncio.timeout(10):
        while not (ended := [event for event in events if isinstance(event, TurnEnded)]):
            await asyncio.sleep(0.01)
    return ended[0]


def levels(caller: Caller, voice: Voice) -> list[tuple[int, float]]:
    """Which frame of the greeting each packet that is not silent is, and how loud: 1 in full."""
    said = pcm_of(voice.codes).reshape(FRAMES, 160).astype(float)
    power = (said**2).sum(axis=1)
    found = []
    for packet in caller.peer.received:
        heard = pcm_of([packet.payload]).astype(float)
        if heard.any():
            share = said[:, 80:] @ heard[80:] / (said[:, 80:] ** 2).sum(axis=1)  # behind the ramp
            best = int(np.argmax(said @ heard / np.sqrt(power)))
            found.append((best, float(share[best])))
    return found


async def test_a_cough_makes_the_agent_softer_for_a_moment_and_no_word_is_lost():
    async with greeted([""]) as (caller, voice, events):
        await caller.hears(SURE, voice)
        caller.utters(8)
        ended = await turn_ended(events)
        assert (ended.interrupted, ended.heard_text) == (False, GREETING)
        await asyncio.sleep(0.1)
        heard = levels(caller, voice)
    assert [frame for frame, _ in heard] == list(range(FRAMES)), "every frame once, in its place"
    soft = [frame for frame, level in heard if level < 0.5]
    assert 8 <= len(soft) < 60 and soft == list(range(soft[0], soft[-1] + 1))
    assert all(abs(level - DUCKED / FULL) < 0.05 for frame, level in heard if frame in soft)
    assert all(level > 0.9 for frame, level in heard if frame not in soft)


async def test_longer_noise_stops_the_agent_who_goes_on_with_the_same_sample():
    async with greeted([[""]]) as (caller, voice, events):
        await caller.hears(SURE, voice)
        caller.utters(25)
        ended = await turn_ended(events)
        assert (ended.interrupted, ended.heard_text) == (False, GREETING)
        (aside,) = ended.details["barge_in"]
        assert aside["what"] == "noise" and aside["held_ms"] >= 100
        await asyncio.sleep(0.1)
        payloads = [packet.payload for packet in caller.peer.received]
    held = next(n for n, payload in enumerate(payloads) if payload == voice.codes[SURE])
    while payloads[held] != b"\xff" * 160:
        held += 1
    goes_on = next(n for n in range(held, len(payloads)) if payloads[n] != b"\xff" * 160)
    frame = next(n for n, code in enumerate(voice.codes) if code[80:] == payloads[goes_on][80:])
    assert payloads[goes_on + 1 : goes_on + FRAMES - frame] == voice.codes[frame + 1 :]
    ducked = pcm_of([payloads[held - 2]]).astype(float)  # the one before the frame that faded out
    before = pcm_of([voice.codes[frame - 1]])
    assert ducked @ before > 0.9 * np.sqrt((ducked @ ducked) * (before.astype(float) @ before))


async def test_an_interruption_cuts_the_agent_and_the_record_has_what_left():
    async with greeted([["no wait"]]) as (caller, voice, events):
        await caller.hears(30, voice)
        caller.utters(30)
        ended = await turn_ended(events)
        await asyncio.sleep(0.5)
        assert ended.interrupted and ended.details["barge_in"][0]["words"] == "no wait"
        came = [voice.codes.index(packet.payload) for packet in caller.peer.received if packet.payload in voice.codes]
    assert came == list(range(len(came))) and 30 < len(came) < 60
    assert GREETING.startswith(ended.heard_text) and 5 < len(ended.heard_text) < 30
