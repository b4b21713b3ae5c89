"""When the caller has finished: what the listener tells, and what the strategies make of it."""

import asyncio

import numpy as np

from sipagent.conversation.endpointing import Change, Endpointer
from sipagent.conversation.interfaces import Pcm, Words
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import Known, Wait
from sipagent.speech.client import Recognised

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
