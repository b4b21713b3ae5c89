"""The pure parts of a conversation."""

import numpy as np
import pytest

from sipagent.conversation import chunking
from sipagent.conversation.audio import collect
from sipagent.conversation.endpointing import Change, Endpointer
from sipagent.conversation.history import MAX_ENTRIES, History
from sipagent.conversation.phrases import PhraseCache
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.silence import SilenceAct, SilenceWatch
from sipagent.conversation.turn_end import FixedSilence
from sipagent.core.errors import ProviderError


def changes(pattern: str, settings: ConversationSettings) -> list[tuple[int, Change]]:
    endpointer = Endpointer(settings, FixedSilence(settings.endpointing_ms))
    found = [(i, endpointer.push(i, mark == "#")) for i, mark in enumerate(pattern)]
    return [(i, change) for i, change in found if change is not None]


SETTINGS = ConversationSettings(start_ms=60, pause_ms=100, endpointing_ms=300)


def test_endpointer_start_pause_resume_end():
    pattern = "..###" + "#" * 10 + "." * 6 + "##" + "." * 20
    assert changes(pattern, SETTINGS) == [
        (4, Change.STARTED),
        (19, Change.PAUSED),
        (21, Change.RESUMED),
        (27, Change.PAUSED),
        (37, Change.ENDED),
    ]


def test_endpointer_ignores_clicks():
    assert changes("#.##..#.##....", SETTINGS) == []


def test_endpointer_cuts_an_endless_utterance():
    settings = ConversationSettings(max_utterance_s=2.0)
    assert changes("#" * 120, settings)[-1] == (100, Change.ENDED) or (100, Change.ENDED) in changes(
        "#" * 120, settings
    )


def test_endpointer_knows_where_speech_began_and_last_was():
    endpointer = Endpointer(SETTINGS, FixedSilence(SETTINGS.endpointing_ms))
    for i, mark in enumerate("....####.##."):
        endpointer.push(i, mark == "#")
    assert (endpointer.start, endpointer.last_voiced, endpointer.voiced_ms) == (4, 10, 120)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Hello.", ["Hello."]),
        ("Yes, of course. We are open.", ["Yes, of course.", "We are open."]),
        ("We open at eight, and we close at six.", ["We open at eight,", "and we close at six."]),
        ("Dr. Smith is in at 3.30 today. Come by!", ["Dr. Smith is in at 3.30 today.", "Come by!"]),
        ("No punctuation at all", ["No punctuation at all"]),
        ("", []),
        ("   ", []),
    ],
)
def test_clauses(text, clauses):
    assert chunking.split(text) == clauses


def test_clauses_do_not_depend_on_how_the_text_arrives():
    text = "We are open from eight until six, Monday to Friday. On Saturday we close at noon, and on Sunday all day."
    chunker = chunking.Chunker()
    streamed = [clause for letter in text for clause in chunker.push(letter)] + chunker.flush()
    assert streamed == chunking.split(text)


def test_a_text_without_end_is_cut():
    clauses = chunking.split("word " * 200)
    assert len(clauses) > 2
    assert max(len(clause) for clause in clauses) <= chunking.CLAUSE_MAX
    assert " ".join(clauses).split() == ["word"] * 200


@pytest.mark.parametrize("text", ["word " * 200 + "end. ", "a. " * 20_000, "Dr. etc. e.g. " * 4_000, ". " * 20_000])
def test_what_comes_in_one_piece_is_cut_like_what_comes_in_many(text):
    # Time that grows with the square of such a text is minutes.
    chunker = chunking.Chunker()
    pieces = [text[at : at + 100] for at in range(0, len(text), 100)]
    streamed = [clause for piece in pieces for clause in chunker.push(piece)] + chunker.flush()
    clauses = chunking.split(text)
    assert clauses == streamed and max(len(clause) for clause in clauses) <= chunking.CLAUSE_MAX


def test_silence_watch():
    watch = SilenceWatch(2.0, prompts=1)
    second = 1_000_000_000
    watch.quiet(0)
    assert watch.due(1 * second) is None
    assert watch.due(2 * second) is SilenceAct.PROMPT
    assert watch.due(3 * second) is None  # the prompt is being spoken
    watch.busy()
    watch.quiet(4 * second)
    assert watch.due(6 * second) is SilenceAct.GOODBYE
    watch.caller_spoke()
    watch.quiet(10 * second)
    assert watch.due(12 * second) is SilenceAct.PROMPT


def test_history_is_bounded():
    history = History()
    for i in range(MAX_ENTRIES + 5):
        history.caller(str(i))
    assert len(history.entries) == MAX_ENTRIES
    assert history.entries[-1].text == str(MAX_ENTRIES + 4)


async def test_phrases_are_made_once():
    class Counting:
        made = 0

        async def speak(self, text, rate):
            if text == "broken":
                raise ProviderError("no", retryable=False)
            self.made += 1
            yield np.zeros(rate // 50, np.int16)

    voice = Counting()
    cache = PhraseCache(voice)
    assert await cache.prepare(["a", "b", "a", "broken"]) == 1
    assert len(await collect(cache.speak("a", 8000))) == 160
    assert len(await collect(cache.speak("a", 16_000))) == 320
    await collect(cache.speak("b", 8000))
    assert voice.made == 2
    await collect(cache.speak("c", 8000))
    await collect(cache.speak("c", 8000))
    assert voice.made == 4  # what was not prepared is not kept: callers' names do not pile up
