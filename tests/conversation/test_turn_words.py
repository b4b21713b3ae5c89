"""What the words up to a pause tell about whether the caller has finished."""

import pytest

from sipagent.conversation.interfaces import Expecting
from sipagent.conversation.languages import language
from sipagent.conversation.turn_words import Lexicon, Phrase, read

ENGLISH = Lexicon.of(language("en"))


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("I would like an appointment.", Phrase.SENTENCE),
        ("Where are you from?", Phrase.SENTENCE),
        ("Where you are", Phrase.OPEN),
        ("an appointment on Tuesday", Phrase.PLAIN),
        ("I would like to", Phrase.OPEN),
        ("I would like to.", Phrase.OPEN),
        ("My name is", Phrase.OPEN),
        ("On Tuesday and", Phrase.OPEN),
        ("It was the", Phrase.OPEN),
        ("It was, um...", Phrase.OPEN),
        ("Yes, let me see.", Phrase.OPEN),
        ("Hold on.", Phrase.OPEN),
        ("On Tuesday,", Phrase.OPEN),
        ("On Tuesday...", Phrase.OPEN),
        ("That’s all.", Phrase.WHOLE),
        ("Thank you very much", Phrase.WHOLE),
        ("Good bye!", Phrase.WHOLE),
        ("", Phrase.PLAIN),
        ("...", Phrase.PLAIN),
    ],
)
def test_sentences(text, phrase):
    assert read(text, Expecting.ANYTHING, ENGLISH).phrase is phrase


@pytest.mark.parametrize(
    ("text", "expecting", "phrase"),
    [
        ("My number is 0 1 7 6", Expecting.ANYTHING, Phrase.COUNTING),
        ("five five five one", Expecting.ANYTHING, Phrase.COUNTING),
        ("555-12", Expecting.ANYTHING, Phrase.COUNTING),
        ("555-1234.", Expecting.ANYTHING, Phrase.SENTENCE),
        ("It is 212 555 1234", Expecting.ANYTHING, Phrase.SENTENCE),
        ("double five 1 2 3 4 5", Expecting.ANYTHING, Phrase.SENTENCE),
        ("At 10.", Expecting.ANYTHING, Phrase.SENTENCE),
        ("A table for 2.", Expecting.NUMBER, Phrase.SENTENCE),
        ("3 4.", Expecting.DIGITS, Phrase.COUNTING),
        ("7.", Expecting.DIGITS, Phrase.COUNTING),
        ("A B C", Expecting.ANYTHING, Phrase.COUNTING),
        ("M-I-L.", Expecting.ANYTHING, Phrase.COUNTING),
        ("B.", Expecting.SPELLING, Phrase.COUNTING),
        ("Miller.", Expecting.SPELLING, Phrase.SENTENCE),
        ("john at", Expecting.SPELLING, Phrase.COUNTING),
        ("john at example dot", Expecting.SPELLING, Phrase.COUNTING),
        ("john at example dot com", Expecting.SPELLING, Phrase.WHOLE),
        ("It is j o at k dot o r g", Expecting.ANYTHING, Phrase.WHOLE),
        ("john@example.com.", Expecting.ANYTHING, Phrase.WHOLE),
        ("john@", Expecting.ANYTHING, Phrase.COUNTING),
        ("I was at the doctor", Expecting.ANYTHING, Phrase.PLAIN),
    ],
)
def test_numbers_spelling_and_addresses(text, expecting, phrase):
    assert read(text, expecting, ENGLISH).phrase is phrase


@pytest.mark.parametrize("text", ["Yes.", "No, no thank you.", "Yeah, that's right", "Okay, sure."])
def test_yes_and_no_are_a_whole_answer_where_they_were_asked_for(text):
    assert read(text, Expecting.YES_NO, ENGLISH).phrase is Phrase.WHOLE
    assert read("No, I wanted Tuesday.", Expecting.YES_NO, ENGLISH).phrase is Phrase.SENTENCE


def test_yes_may_be_the_beginning_of_something_where_nothing_was_asked():
    assert read("Yes.", Expecting.ANYTHING, ENGLISH).phrase is Phrase.SENTENCE


def test_a_number_is_whole_with_as_many_digits_as_were_asked_for():
    assert read("My PIN is 4 7 1.", Expecting.DIGITS, ENGLISH, 4).phrase is Phrase.COUNTING
    assert read("4 7 1 1.", Expecting.DIGITS, ENGLISH, 4).phrase is Phrase.WHOLE
    assert read("555 1234.", Expecting.DIGITS, ENGLISH, 8).phrase is Phrase.COUNTING  # not a local number here
    assert read("4 7 1 1.", Expecting.ANYTHING, ENGLISH, 4).phrase is Phrase.COUNTING


def test_any_text_at_all_is_read():
    for text in ("@", "@@@.", "1" * 5000, "a " * 5000, "\x00\ud800 ?", "…", "'’'", "١٢٣ 四"):
        read(text, Expecting.SPELLING, ENGLISH)
        read(text, Expecting.ANYTHING, ENGLISH)


def test_german():
    german = Lexicon.of(language("de"))
    assert read("Ich möchte einen", Expecting.ANYTHING, german).phrase is Phrase.OPEN
    assert read("Ja, genau.", Expecting.YES_NO, german).phrase is Phrase.WHOLE
    assert read("0 1 7 6", Expecting.DIGITS, german).phrase is Phrase.COUNTING
