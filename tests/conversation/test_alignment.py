"""Which words were heard when speech was cut, from what had sounded of it."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from sipagent.conversation.alignment import weight, words_within
from sipagent.conversation.interfaces import Pcm, Speech, Timed
from tests.conversation.scenario import Echo, Scene, Voice


def sounding(pattern: str) -> list[bool]:
    """A frame each: # sounds."""
    return [mark == "#" for mark in pattern]


def test_all_or_nothing_of_it():
    sounds = sounding("#" * 50)
    assert words_within("one two three", sounds, 50, whole=True) == "one two three"
    assert words_within("one two three", sounds, 0, whole=True) == ""
    assert words_within("", sounds, 50, whole=True) == ""
    assert words_within("one two", [], 0, whole=False) == ""


def test_long_words_take_longer():
    assert weight("responsibility") > 2 * weight("spoken")
    assert weight("1984") > weight("it")
    sounds = sounding("#" * 60)
    assert words_within("responsibility is ours", sounds, 25, whole=True) == ""
    assert words_within("is ours responsibility", sounds, 25, whole=True) == "is ours"


def test_pauses_take_no_words_and_tell_where_the_parts_begin():
    sounds = sounding("#" * 40 + "." * 20 + "#" * 10)
    text = "we are open every day, except Sunday"
    assert words_within(text, sounds, 55, whole=True) == "we are open every day,"
    # The same words without the pause would have been cut earlier.
    assert words_within(text, sounds, 40, whole=True) == "we are open every day,"


def test_of_speech_that_is_not_all_there_the_rest_is_estimated():
    text = "this sentence was cut while its voice was still at work"
    known = sounding("#" * 30)
    heard = words_within(text, known, 30, whole=False)
    assert text.startswith(heard) and 0 < len(heard) < len(text) / 2


async def test_a_voice_that_tells_where_its_words_are_is_believed():
    class Telling(Voice):
        """Half a second of nothing, then each word longer than the one before."""

        async def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
            at = rate // 2
            yield np.zeros(at, np.int16)
            place = -1
            for number, word in enumerate(text.split()):
                length = rate // 10 * (number + 1)
                at, place = at + length, place + 1 + len(word)
                yield Timed(np.full(length, 5000, np.int16), ((place, at),))

    scene = Scene(Echo(), ["one", "stop"], voice=Telling())
    await scene.until_quiet()
    await scene.says()
    # "You said one.": 100, 200 and 300 ms. The frame of silence before it counts too.
    while scene.wire.queued > 13:
        await scene.run(0.02)
    assert scene.session._turn is not None
    assert scene.session._turn.utterance.heard_text == "You said"
    while scene.wire.queued > 14 - 12:
        await scene.run(0.02)
    assert scene.session._turn.utterance.heard_text == "You said"
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "You said one."
    await scene.end()


@pytest.mark.parametrize("rate", [8000, 16_000])
async def test_what_is_cut_is_cut_at_a_word(rate):
    class Even(Voice):
        async def speak(self, text: str, rate: int) -> AsyncIterator[Pcm]:
            for _ in text.split():
                yield np.full(rate // 5, 5000, np.int16)  # 200 ms a word

    scene = Scene(Echo(), ["big red dog ran far far off", ["stop"]], voice=Even(), rate=rate)
    await scene.until_quiet()
    await scene.says()
    await scene.run(1.2)
    await scene.run(0.4, speaking=True)
    await scene.run(0.2)
    turn = scene.turns()[-1]
    assert turn.interrupted
    assert turn.agent_text.startswith(turn.heard_text)
    assert turn.agent_text[len(turn.heard_text)] == " "
    await scene.end()
