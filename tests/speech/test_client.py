"""The pool of workers as main uses it, with real processes and real models."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from sipagent.core.errors import ProviderError, SetupError
from sipagent.core.events import ProcessEnded, ProcessStarted
from sipagent.speech import client as client_module
from sipagent.speech.client import SpeechClient
from sipagent.speech.process import WorkerProcess
from sipagent.speech.settings import SpeechSettings
from tests.speech.conftest import Events
from tests.speech.prompts import prompts, through_ulaw
from tests.wer import wer

pytestmark = [pytest.mark.models, pytest.mark.asyncio(loop_scope="session")]


def workers_left() -> list[int]:
    """Our children that are speech workers."""
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and "sipagent.speech.worker" in " ".join(child.cmdline())
    ]


async def test_recorded_prompts_behind_mu_law_are_recognised(client: SpeechClient) -> None:
    said = prompts(48)
    heard = [await client.transcribe(through_ulaw(prompt.pcm), 8000) for prompt in said]
    rate = wer((prompt.text, each.text) for prompt, each in zip(said, heard, strict=True) if each)
    print(f"\nWER over {len(said)} prompts: {100 * rate:.1f} %")
    assert rate < 0.10
    assert np.median([each.confidence for each in heard if each]) > 0.7
    assert all(each and each.cpu_ms > 0 for each in heard)


async def test_what_the_voice_says_is_recognised(client: SpeechClient) -> None:
    texts = [
        "Good morning, this is the front desk.",
        "We are open from nine to five on weekdays.",
        "A check up costs sixty pounds.",
        "I can put you through to a colleague, if you like.",
        "Your appointment is on Tuesday at ten.",
        "Thank you for calling, and goodbye.",
    ]
    pairs = []
    for pitch in (1.0, 1.2):
        for text in texts:
            heard = await client.transcribe(through_ulaw(await client.synthesize(text, 8000, pitch=pitch)), 8000)
            assert heard
            pairs.append((text, heard.text))
    assert wer(pairs) < 0.2  # each synthesis is a little different: 5 to 13 % in most runs


async def test_both_kinds_of_line_are_spoken_and_understood(client: SpeechClient) -> None:
    text = "I can put you through to a colleague, if you like."  # without numbers, which come as words or as digits
    for rate in (8000, 16_000):
        spoken = await client.synthesize(text, rate)
        assert 1.5 < len(spoken) / rate < 6
        heard = await client.transcribe(spoken, rate)
        assert heard and wer([(text, heard.text)]) < 0.15


async def test_interims_are_dropped_when_the_recogniser_is_behind_and_finals_are_not(client: SpeechClient) -> None:
    pcm = through_ulaw(prompts(1)[0].pcm)
    interims = [asyncio.create_task(client.transcribe(pcm, 8000, droppable=True)) for _ in range(12)]
    final = asyncio.create_task(client.transcribe(pcm, 8000))
    answers = await asyncio.gather(*interims)
    assert (await final) is not None
    assert 1 <= sum(answer is None for answer in answers) < 12


async def test_a_cancelled_request_leaves_the_worker_free(client: SpeechClient) -> None:
    pcm = np.tile(through_ulaw(prompts(1)[0].pcm), 4)
    tasks = [asyncio.create_task(client.transcribe(pcm, 8000)) for _ in range(20)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await client.transcribe(pcm, 8000)
    assert loop.time() - began < 4.0  # not behind nineteen others


async def test_too_many_requests_are_refused(client: SpeechClient) -> None:
    tasks = [asyncio.create_task(client.synthesize("One.", 8000)) for _ in range(client_module.OUTSTANDING + 1)]
    with pytest.raises(ProviderError, match="outstanding") as refused:
        await tasks[-1]
    assert refused.value.retryable
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_absurd_utterance_is_refused(client: SpeechClient) -> None:
    with pytest.raises(ProviderError):
        await client.transcribe(np.zeros(8000 * 130, np.int16), 8000)


async def test_a_worker_killed_in_a_request_is_replaced_and_the_request_answered(local_models: None) -> None:
    events = Events()
    speech = SpeechClient(SpeechSettings(workers=2, tts_voice="", embedding_model="", turn_model=""), events)
    try:
        assert await speech.start() == {"stt": "whisper-tiny.en"}
        first, second = speech.pids
        prompt = prompts(2)[1]
        pcm = through_ulaw(prompt.pcm)

        waiting = [asyncio.create_task(speech.transcribe(pcm, 8000)) for _ in range(4)]
        await asyncio.sleep(0.02)
        os.kill(first, signal.SIGKILL)
        answers = await asyncio.gather(*waiting)  # by the other worker
        assert wer((prompt.text, answer.text) for answer in answers if answer) < 0.2
        assert all(answers)

        while len(speech.pids) < 2:
            await asyncio.sleep(0.05)
        both = set(speech.pids)
        for pid in both:  # now both at once: the request waits for a new one
            os.kill(pid, signal.SIGKILL)
        while both & set(speech.pids):
            await asyncio.sleep(0.005)
        assert await speech.transcribe(pcm, 8000)

        ended = [event for event in events.seen if isinstance(event, ProcessEnded)]
        assert {first, second} <= {event.pid for event in ended}
        assert next(event for event in ended if event.pid == first).calls_affected == 2
        assert all(event.process == "speech" and "signal 9" in event.reason for event in ended)
        assert len([event for event in events.seen if isinstance(event, ProcessStarted)]) >= 5

        with pytest.raises(ProviderError, match="no local model for tts"):
            await speech.synthesize("Hello", 8000)
    finally:
        await speech.close()


async def test_signals_to_the_whole_group_do_not_end_a_worker(local_models: None) -> None:
    events = Events()
    speech = SpeechClient(SpeechSettings(tts_voice="", stt_model=""), events)
    try:
        await speech.start()
        pids = speech.pids
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pids[0], number)
        assert (await speech.embed(["still there"])).shape == (1, 512)
        assert speech.pids == pids
    finally:
        await speech.close()
    (ended,) = [event for event in events.seen if isinstance(event, ProcessEnded)]
    assert "status 0" in ended.reason


async def test_a_stuck_worker_is_replaced(local_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = SpeechClient(SpeechSettings(tts_voice="", stt_model=""), Events())
    try:
        await speech.start()
        (stuck,) = speech.pids
        os.kill(stuck, signal.SIGSTOP)
        monkeypatch.setattr(client_module, "REQUEST_LIMIT_S", 0.5)
        with pytest.raises(ProviderError, match="no answer") as failed:
            await speech.embed(["anybody there"])
        assert failed.value.retryable
        monkeypatch.setattr(client_module, "REQUEST_LIMIT_S", 15.0)
        assert (await speech.embed(["now then"])).shape == (1, 512)
        assert speech.pids != [stuck]
    finally:
        await speech.close()


async def test_without_any_worker_requests_fail_at_once_until_one_is_back(
    local_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = SpeechClient(SpeechSettings(tts_voice="", stt_model=""), Events())
    loop = asyncio.get_running_loop()
    try:
        await speech.start()
        monkeypatch.setattr(client_module, "BACKOFF_S", (1.0,))
        with monkeypatch.context() as broken:

            async def refuse(*_: object) -> WorkerProcess:
                raise OSError("no more processes")

            broken.setattr(WorkerProcess, "spawn", refuse)
            under_way = asyncio.create_task(speech.embed(["x"] * 500))
            await asyncio.sleep(0.01)
            os.kill(speech.pids[0], signal.SIGKILL)
            began = loop.time()
            for request in (under_way, speech.embed(["y"])):
                with pytest.raises(ProviderError, match="no speech worker is running") as failed:
                    await request
                assert failed.value.retryable
            assert loop.time() - began < 1.0
        while not speech.pids:
            await asyncio.sleep(0.05)
        assert len(await speech.embed(["z"])) == 1
    finally:
        await speech.close()


async def test_close_leaves_no_process_and_may_be_repeated(local_models: None) -> None:
    before = set(workers_left())
    events = Events()
    speech = SpeechClient(SpeechSettings(stt_model="", tts_voice=""), events)
    await speech.start()
    pids = set(speech.pids)
    assert set(workers_left()) == before | pids
    waiting = asyncio.create_task(speech.embed(["x"] * 500))
    await asyncio.sleep(0.005)
    await speech.close()
    await speech.close()
    assert set(workers_left()) == before
    with pytest.raises(ProviderError):
        await waiting
    with pytest.raises(ProviderError):
        await speech.embed(["x"])
    (ended,) = [event for event in events.seen if isinstance(event, ProcessEnded)]
    assert "status 0" in ended.reason


async def test_a_worker_that_cannot_load_says_why_and_nothing_stays(tmp_path: Path) -> None:
    before = set(workers_left())
    speech = SpeechClient(SpeechSettings(stt_model=str(tmp_path), tts_voice="", embedding_model=""), Events())
    with pytest.raises(SetupError, match=r"a speech worker did not start: .*model\.bin"):
        await speech.start()
    assert set(workers_left()) == before
    speech = SpeechClient(SpeechSettings(stt_model="whisper-huge"), Events())
    with pytest.raises(SetupError, match="give one of whisper-tiny.en, whisper-base or a path"):
        await speech.start()
    assert set(workers_left()) == before
