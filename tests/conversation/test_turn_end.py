"""When the caller has finished: what the listener tells, and what the strategies make of it."""

import asyncio
from typing import Any, get_args

import numpy as np
import pytest

from sipagent.conversation.caller_pauses import CallerPauses
from sipagent.conversation.endpointing import Change, Endpointer
from sipagent.conversation.interfaces import Expecting, Pcm, Words
from sipagent.conversation.loudness import Loudness
from sipagent.conversation.prosody import Prosody
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import Known, TurnEnd, Wait
from sipagent.conversation.turn_strategies import NAMES, make
from sipagent.core.errors import ProviderError
from sipagent.dialplan.model import ExpectedName, TurnEndName, TurnEndSpec
from sipagent.speech.client import Recognised
from tests.conversation.scenario import Echo, Scene

SETTINGS = ConversationSettings(start_ms=60, pause_ms=100)


class ByWords:
    """Waits 200 ms once the words are known, 500 ms before."""

    name = "by_words"

    def __init__(self) -> None:
        self.asked: list[Known] = []

    def wait(self, known: Known) -> Wait:
        self.asked.append(known)
        return Wait(500, "no words") if known.words is None else Wait(200, known.words.text)


def push(endpointer: Endpointer, begin: int, pattern: str) -> list[tuple[int, Change]]:
    found = [(begin + i, endpointer.push(begin + i, mark == "#")) for i, mark in enumerate(pattern)]
    return [(at, change) for at, change in found if change is not None]


def test_the_turn_ends_when_the_strategy_has_waited_enough_for_what_is_known():
    endpointer = Endpointer(SETTINGS, ByWords())
    push(endpointer, 0, "#" * 20)
    assert push(endpointer, 20, "." * 25) == [(24, Change.PAUSED), (44, Change.ENDED)]
    assert endpointer.decided == Wait(500, "no words")


def test_words_of_a_pause_shorten_it():
    strategy = ByWords()
    endpointer = Endpointer(SETTINGS, strategy)
    push(endpointer, 0, "#" * 20 + "." * 7)
    endpointer.hear(Words("Good bye.", 0.9, paused=True))
    assert push(endpointer, 27, "." * 5) == [(29, Change.ENDED)]
    assert endpointer.decided == Wait(200, "Good bye.")
    assert (strategy.asked[-1].silence_ms, strategy.asked[-1].speech_ms) == (200, 400)


def test_words_are_of_no_use_once_the_caller_goes_on():
    endpointer = Endpointer(SETTINGS, ByWords())
    push(endpointer, 0, "#" * 20 + "." * 7)
    endpointer.hear(Words("I would like", 0.9, paused=True))
    assert push(endpointer, 27, "##" + "." * 25) == [
        (27, Change.RESUMED),
        (33, Change.PAUSED),
        (53, Change.ENDED),
    ]


def test_partial_words_and_those_that_come_while_the_caller_speaks_tell_nothing_about_a_pause():
    endpointer = Endpointer(SETTINGS, ByWords())
    push(endpointer, 0, "#" * 20)
    endpointer.hear(Words("I would", 0.9, paused=True))
    push(endpointer, 20, "." * 7)
    endpointer.hear(Words("I would", 0.9))
    assert push(endpointer, 27, "." * 25) == [(44, Change.ENDED)]


async def test_the_local_recogniser_tells_what_was_said_up_to_a_pause():
    class Transcriber:
        async def transcribe(self, pcm: Pcm, rate: int, *, prompt: str = "", droppable: bool = False) -> Recognised:
            return Recognised(f"{len(pcm) // 160} frames", 0.8, 0.0, 0.0)

    told: list[Words] = []
    recognition = LocalRecogniser(Transcriber(), ConversationSettings(partial_ms=10_000)).begin(told.append)
    for _ in range(10):
        recognition.push(np.zeros(160, np.int16))
    recognition.pause()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == [Words("10 frames", 0.8, paused=True)]

    recognition.resume()
    recognition.push(np.zeros(160, np.int16))
    recognition.pause()
    recognition.resume()  # before the words were there: nobody hears of them
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(told) == 1
    assert (await recognition.finish()).text == "11 frames"


# --- the strategies ---

SAID = Known(200, 800, Words("I would like an appointment.", 0.9, paused=True))


def ms(strategy: TurnEnd, text: str = "", **known: Any) -> int:
    words = Words(text, known.pop("confidence", 0.9), paused=True, end_of_turn=known.pop("end_of_turn", False))
    return strategy.wait(Known(200, 800, words, **known)).ms


@pytest.fixture
def adaptive() -> TurnEnd:
    return make("adaptive", SETTINGS)


def test_adaptive_waits_longer_the_less_finished_the_words_are(adaptive):
    whole = ms(adaptive, "Yes.", expecting=Expecting.YES_NO)
    sentence = ms(adaptive, "I would like an appointment.")
    plain = ms(adaptive, "I would like an appointment")
    open_ = ms(adaptive, "I would like an")
    assert whole < sentence < plain < open_


def test_adaptive_trusts_words_less_that_the_recogniser_is_unsure_of(adaptive):
    sure, unsure = ms(adaptive, "On Tuesday."), ms(adaptive, "On Tuesday.", confidence=0.2)
    assert sure < unsure < ms(adaptive, "On Tuesday and")


def test_adaptive_goes_by_melody_besides(adaptive):
    text = "On Tuesday."
    assert ms(adaptive, text, prosody=1.0) < ms(adaptive, text) < ms(adaptive, text, prosody=0.0)
    assert ms(adaptive, text, prosody=0.5) == ms(adaptive, text)


def test_adaptive_learns_how_long_the_callers_pauses_are(adaptive):
    text = "My number is 555 1"
    assert ms(adaptive, text, own_pause_ms=250) < ms(adaptive, text) < ms(adaptive, text, own_pause_ms=900)
    finished = "I would like an appointment."
    assert ms(adaptive, finished, own_pause_ms=900) == ms(adaptive, finished)


def test_adaptive_believes_the_provider(adaptive):
    assert ms(adaptive, "On", end_of_turn=True) < ms(adaptive, "On Tuesday.")


def test_adaptive_ends_a_turn_also_when_no_words_come(adaptive):
    assert SETTINGS.pause_ms < adaptive.wait(Known(200, 800)).ms < 2000


def test_the_same_knowledge_gets_the_same_answer(adaptive):
    first = adaptive.wait(SAID)
    ms(adaptive, "and")
    assert adaptive.wait(SAID) == first


def test_the_providers_own_signal_alone():
    strategy = make("provider", SETTINGS)
    assert ms(strategy, "On Tuesday", end_of_turn=True) < 300
    assert ms(strategy, "On Tuesday.") >= 1000


def test_patience_lengthens_every_wait_and_answers_have_their_own():
    plain = make("silence", SETTINGS).wait(SAID).ms
    spec = TurnEndSpec(strategy="silence", patience=1.5, answers={"digits": 2.0})
    strategy = make(spec, SETTINGS)
    assert strategy.wait(SAID).ms == plain + 250
    assert ms(strategy, "3 4", expecting=Expecting.DIGITS) == plain + 1000
    assert make(TurnEndSpec(strategy="silence", patience=0.5), SETTINGS).wait(SAID).ms == plain // 2
    assert make(TurnEndSpec(strategy="silence", silence_ms=800), SETTINGS).wait(SAID).ms == 800


def test_dialplans_know_the_names_of_all_strategies_and_of_all_expectations():
    assert get_args(TurnEndName) == NAMES
    assert get_args(ExpectedName) == tuple(Expecting)
    assert all(make(name, SETTINGS).name == name for name in NAMES)


# --- the caller's own pauses, loudness, melody ---


def test_a_callers_pauses_are_learned_bit_by_bit():
    pauses = CallerPauses()
    general = pauses.typical_ms
    for _ in range(3):
        pauses.add(900)
    some = pauses.typical_ms
    for _ in range(20):
        pauses.add(900)
    assert general < some < pauses.typical_ms <= 900
    pauses.add(60_000)  # between turns
    assert pauses.typical_ms <= 900


def test_pauses_within_the_turn_and_cut_offs_are_learned_from():
    known: list[float] = []

    class Asking(ByWords):
        def wait(self, known_now: Known) -> Wait:
            known.append(known_now.own_pause_ms)
            return super().wait(known_now)

    endpointer = Endpointer(SETTINGS, Asking())
    push(endpointer, 0, "#" * 20 + "." * 20 + "#" * 20 + "." * 25)  # 400 ms within, 500 ms end it
    push(endpointer, 85, "." * 5 + "#" * 20 + "." * 8)  # it had not been the end: the pause was 600 ms
    assert known[-1] > known[20] != known[0]


def test_frames_far_below_the_utterance_are_silence_though_the_detector_holds_them():
    def frame(dbfs: float) -> Pcm:
        return np.full(160, 32768 * 10 ** (dbfs / 20), np.int16)

    loudness = Loudness()
    assert [loudness.push(frame(db)) for db in (-30, -22, -40, -60, -55)] == [True, True, True, False, False]
    loudness.reset()
    assert loudness.push(frame(-55))  # a soft caller is judged by the caller's own level

    endpointer = Endpointer(SETTINGS, ByWords())
    push(endpointer, 0, "#" * 20)
    ended = [i for i in range(20, 60) if endpointer.push(i, i < 28, loud=False) is Change.ENDED]
    assert ended == [44]  # as if the detector had let go at once
    assert endpointer.voiced_ms == 28 * 20


async def test_melody_is_asked_for_at_a_pause_and_dropped_when_the_caller_goes_on():
    class Judge:
        asked: list[int] = []

        async def complete(self, pcm: Pcm, rate: int) -> float | None:
            self.asked.append(len(pcm) * 1000 // rate)
            await asyncio.sleep(0)
            return 1.7  # whatever a network says, it stays within 0..1

    judged: list[float] = []
    prosody = Prosody(Judge(), judged.append)
    for _ in range(500):
        prosody.push(np.zeros(160, np.int16))
    prosody.pause(silent=0)
    await asyncio.sleep(0)
    prosody.cancel()
    await asyncio.sleep(0.01)
    assert (Judge.asked, judged) == ([8000], [])
    prosody.pause(silent=50)
    await asyncio.sleep(0.01)
    assert (Judge.asked[-1], judged) == (7000, [1.0])


async def test_a_judge_that_fails_changes_nothing():
    class Broken:
        async def complete(self, pcm: Pcm, rate: int) -> float | None:
            raise ProviderError("broken", retryable=False)

    judged: list[float] = []
    prosody = Prosody(Broken(), judged.append)
    prosody.push(np.zeros(160, np.int16))
    prosody.pause(silent=0)
    await asyncio.sleep(0.01)
    assert judged == []


async def test_the_turns_record_says_what_was_decided_and_why():
    scene = Scene(Echo(), ["hi there"], settings=ConversationSettings(endpointing_ms=300, lead_ms=0))
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    end = {"strategy": "silence", "why": "silence", "wait_ms": 300, "silence_ms": 300}
    assert scene.turns()[-1].details["end"] == end
    assert "end" not in scene.turns()[0].details  # the agent spoke first
    await scene.end()
