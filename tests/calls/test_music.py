"""Music for whoever waits, on a port played by the test."""

import asyncio
import wave
from types import SimpleNamespace

import numpy as np
import pytest

from sipagent.calls.music import AHEAD_MS, playing, sound_of, while_waiting
from sipagent.calls.settings import WaitingSettings
from sipagent.calls.speaking import read_sound
from sipagent.core.errors import ConfigError
from sipagent.core.events import Problem
from sipagent.media.melody import hold_music
from sipagent.media.ringback import RINGBACK
from sipagent.media.tones import ringback


class Port:
    """Takes what is written; the test lets it play."""

    def __init__(self, rate=8000):
        self.rate, self.heard, self.waiting = rate, [], []

    @property
    def queued(self):
        return len(self.waiting)

    def write(self, pcm):
        self.waiting += list(pcm.reshape(-1, self.rate // 50))
        return len(pcm)

    async def flush(self):
        self.waiting.clear()
        return len(self.heard)

    async def plays(self, frames):
        async with asyncio.timeout(10):
            while len(self.heard) < frames:
                self.heard += self.waiting[:10]
                del self.waiting[:10]
                await asyncio.sleep(0.01)
        return np.concatenate(self.heard)


def call(port, folder, **waiting):
    problems: list[Problem] = []
    services = SimpleNamespace(waiting=WaitingSettings(**waiting), events=SimpleNamespace(emit=problems.append))
    match = SimpleNamespace(dialplan=SimpleNamespace(folder=str(folder)))
    return SimpleNamespace(id="c", leg=SimpleNamespace(port=port), services=services, match=match, problems=problems)


def write(path, samples, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


async def test_the_loop_repeats_without_a_seam_and_little_is_queued():
    port, tune = Port(), np.arange(1000, dtype=np.int16)  # not whole frames
    async with playing(port, lambda _: tune):
        heard = await port.plays(60)
        assert len(port.waiting) <= AHEAD_MS // 20
    assert (heard == np.arange(len(heard)) % 1000).all()
    assert port.queued == 0, "whoever is back is heard at once"


async def test_it_goes_on_where_it_was_when_the_rate_changes():
    port = Port()
    async with playing(port, lambda rate: np.full(rate, rate // 100, np.int16)):
        await port.plays(10)
        port.rate, port.waiting[:], port.heard[:] = 16000, [], []
        heard = await port.plays(25)
    assert set(heard[-320 * 10 :]) == {160}


@pytest.mark.parametrize(("music", "expected"), [("", hold_music), ("ringback", lambda rate: ringback("US", rate))])
async def test_music_or_the_ringing_tone(tmp_path, music, expected):
    port = Port()
    waiting = call(port, tmp_path, ringback="US")
    async with while_waiting(waiting, music):
        heard = await port.plays(20)
    assert (heard == expected(8000)[: len(heard)]).all() and not waiting.problems


async def test_silence_plays_nothing(tmp_path):
    port = Port()
    async with while_waiting(call(port, tmp_path), "silence"):
        await asyncio.sleep(0.05)
    assert not port.waiting


async def test_a_file_of_the_dialplan_or_of_the_settings(tmp_path):
    write(tmp_path / "tune.wav", np.arange(1600))
    for music, settings in (("tune.wav", {}), ("", {"hold_music": str(tmp_path / "tune.wav")})):
        port = Port()
        async with while_waiting(call(port, tmp_path, **settings), music):
            assert (await port.plays(15))[:2400].tolist() == [*range(1600), *range(800)]


async def test_a_file_that_is_not_there_is_a_problem_and_music_plays(tmp_path):
    port = Port()
    waiting = call(port, tmp_path)
    async with while_waiting(waiting, "none.wav"):
        heard = await port.plays(20)
    assert (heard == hold_music(8000)[: len(heard)]).all()
    assert [(problem.where, "none.wav" in problem.what) for problem in waiting.problems] == [("music", True)]


async def test_a_call_without_a_dialplan_has_no_files_of_where_the_node_was_started(tmp_path, monkeypatch):
    write(tmp_path / "tune.wav", np.arange(1600))
    monkeypatch.chdir(tmp_path)
    waiting = call(Port(), "")
    async with while_waiting(waiting, "tune.wav"):
        pass
    assert ["no dialplan" in problem.what for problem in waiting.problems] == [True]
    with pytest.raises(ConfigError, match="tune.wav.*no dialplan"):
        await read_sound(waiting, "tune.wav", 8000)


def test_a_country_without_a_tone_is_refused_by_name():
    with pytest.raises(ValueError, match="'XX'.*DE.*GB"):
        WaitingSettings(ringback="XX")
    for country in RINGBACK:
        assert sound_of("ringback", WaitingSettings(ringback=country), "")(8000).any()
