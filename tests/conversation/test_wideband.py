"""Lines of 16 kHz, and lines whose rate changes by a re-INVITE in the middle of a call."""

import asyncio
from typing import Any

import numpy as np
import pytest

from sipagent.conversation.audio import join, rate_of, whole_frames
from sipagent.conversation.happenings import Ending
from sipagent.conversation.interfaces import Pcm
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.speaker import Speaker
from tests.conversation.scenario import Echo, Scene


def tone(rate: int, seconds: float, hz: float = 440.0) -> Pcm:
    samples: Pcm = np.rint(8000 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.int16)
    return samples


def loudest_hz(pcm: Pcm, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(pcm))) * rate / len(pcm))


async def test_a_conversation_at_16_khz():
    agent = Echo()
    scene = Scene(agent, ["what time is it", "bye"], rate=16_000)
    for _ in range(2):
        await scene.until_quiet()
        await scene.says()
    await scene.until_quiet()
    await scene.run(0.5)
    outcome = await asyncio.wait_for(scene.task, 20)
    assert outcome.ending is Ending.HANGUP
    assert [turn.heard_text for turn in scene.turns()] == ["Hello.", "You said what time is it.", "You said bye."]
    assert {len(frame) for frame in scene.wire.frames} == {320}
    assert scene.words.last is not None and {len(frame) for frame in scene.words.last.frames} == {320}


@pytest.mark.parametrize(("before", "after"), [(8000, 16_000), (16_000, 8000)])
async def test_a_sentence_goes_on_across_a_change_of_rate(before, after):
    agent = Echo()
    scene = Scene(agent, ["one sentence"], rate=before)
    await scene.until_quiet()
    await scene.run(0.5, speaking=True)
    scene.wire.rate = after
    await scene.says(0.5)
    await scene.until_quiet()
    assert agent.asked == ["one sentence"]
    assert scene.words.begun == 1
    assert scene.words.last is not None
    lengths = [len(frame) for frame in scene.words.last.frames]
    assert set(lengths) == {before // 50, after // 50}
    assert [turn.heard_text for turn in scene.turns()] == ["Hello.", "You said one sentence."]
    assert len(scene.wire.frames[-1]) == after // 50
    await scene.end()


class Ring:
    """A way to the wire with room for 10 frames."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.frames: list[Pcm] = []
        self.played = 0

    @property
    def queued(self) -> int:
        return self.written - self.played

    @property
    def written(self) -> int:
        return len(self.frames)

    def write(self, pcm: Pcm) -> int:
        frames = pcm.reshape(-1, self.rate // 50)[: 10 - self.queued]
        self.frames += list(frames)
        return frames.size

    def sent_at(self, position: int) -> int:
        return 1

    def sent_beside(self, position: int, count: int) -> Pcm | None:
        return None

    def duck(self, on: bool) -> None: ...
    def hold(self, on: bool) -> None: ...
    async def flush(self) -> int:
        return self.played


async def speak(ring: Ring, pcm: Pcm, rate: int, change_to: int = 0) -> str:
    """Plays it, the line changing its rate after 10 frames; what was heard of it."""
    speaker = Speaker(ring, 5000)
    utterance = speaker.utterance()
    adding = asyncio.create_task(utterance.play(pcm, rate, lambda: 1, "two words"))
    await asyncio.sleep(0)
    ring.rate = change_to or ring.rate
    while not adding.done():
        ring.played = ring.written
        speaker.tick()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await adding
    utterance.complete()
    ring.played = ring.written
    assert utterance.done
    return utterance.heard_text


@pytest.mark.parametrize(("made", "line"), [(8000, 16_000), (16_000, 8000), (16_000, 16_000)])
async def test_speech_made_for_another_rate_is_converted(made, line):
    ring = Ring(line)
    assert await speak(ring, tone(made, 0.995), made) == "two words"
    heard = np.concatenate(ring.frames)
    assert len(heard) == line
    assert loudest_hz(heard, line) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(("before", "after"), [(8000, 16_000), (16_000, 8000)])
async def test_a_clause_longer_than_the_ring_goes_on_at_the_new_rate(before, after):
    ring = Ring(before)
    assert await speak(ring, tone(before, 1.0), before, change_to=after) == "two words"
    assert [len(frame) for frame in ring.frames] == [before // 50] * 10 + [after // 50] * 40
    assert loudest_hz(np.concatenate(ring.frames[10:]), after) == pytest.approx(440, abs=2)


def test_frames_of_two_rates_become_one_signal():
    narrow, wide = tone(8000, 0.5).reshape(-1, 160), tone(16_000, 0.5).reshape(-1, 320)
    for frames in ([*narrow, *wide], [*wide, *narrow], [*wide[:5], *narrow, *wide[5:]]):
        pcm, rate = join(frames)
        assert (len(pcm), rate) == (16_000, 16_000)
        assert loudest_hz(pcm, rate) == pytest.approx(440, abs=2)
    pcm, rate = join(list(narrow))
    assert rate == 8000 and np.array_equal(pcm, narrow.ravel())


def test_the_last_frame_is_filled_with_silence():
    assert len(whole_frames(tone(16_000, 0.03), 16_000)) == 640
    assert len(whole_frames(tone(8000, 0.04), 8000)) == 320
    assert rate_of(np.zeros((0, 320), np.int16)) == 16_000


async def test_the_recogniser_gets_the_line_as_it_is():
    asked: list[tuple[int, int]] = []

    class Transcriber:
        async def transcribe(self, pcm: Pcm, rate: int, *, prompt: str = "", droppable: bool = False) -> Any:
            asked.append((len(pcm), rate))

    for rate in (8000, 16_000):
        recognition = LocalRecogniser(Transcriber(), ConversationSettings()).begin(lambda text: None)
        for frame in tone(rate, 0.2).reshape(-1, rate // 50):
            recognition.push(frame)
        recognition.pause()
        await asyncio.sleep(0)
    assert asked == [(1600, 8000), (3200, 16_000)]
