"""What the words up to a pause tell about whether the speaker has finished. Pure; the language is data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from sipagent.conversation.interfaces import Expecting
from sipagent.conversation.languages import Language

LONGEST_PHRASE = 4  # words of a phrase that is looked up
SPELLED_LEAST = 2  # single letters in a row that are spelling
GROUPED_LEAST = 3  # digits in a row that are a number told digit by digit rather than an amount

_WORD = re.compile(r"\d+|(?:[^\W\d_]\.){2,}|[^\W\d_]+(?:['’-][^\W\d_]+)*|@")
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+\.[^\W\d_]{2,}[.!?]?$")
_OPEN_MARKS = (",", "-", "–", "—", "…", "...", ":", ";")


class Phrase(Enum):
    """How finished it is, most finished first."""

    WHOLE = auto()  # an answer nothing can be added to
    SENTENCE = auto()  # ends as a sentence does
    PLAIN = auto()  # no sign of either
    COUNTING = auto()  # in the midst of digits, letters or an address
    OPEN = auto()  # more must come


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What is looked up of a language."""

    open_endings: frozenset[str]
    hesitations: frozenset[str]
    answers: frozenset[str]  # yes and no
    closings: frozenset[str]
    numbers: frozenset[str]
    digits: frozenset[str]
    letters: frozenset[str]  # as recognisers write their names
    alphabet: frozenset[str]  # words that stand for them
    repeats: Mapping[str, int]
    symbols: Mapping[str, str]
    address_endings: frozenset[str]
    telephone_digits: frozenset[int]

    @classmethod
    def of(cls, language: Language) -> "Lexicon":
        words, spelling = language.turn_end, language.spelling
        return cls(
            open_endings=frozenset(words.open_endings),
            hesitations=frozenset(words.hesitations),
            answers=frozenset((*language.answers.yes, *language.answers.no, *words.closings)),
            closings=frozenset(words.closings),
            numbers=frozenset(words.numbers),
            digits=frozenset((*words.digits, *spelling.zero)),
            letters=frozenset(spelling.letters),
            alphabet=frozenset(spelling.alphabet),
            repeats=spelling.times,
            symbols=spelling.symbols,
            address_endings=frozenset(words.address_endings),
            telephone_digits=frozenset(words.telephone_digits),
        )


class Reading(NamedTuple):
    phrase: Phrase
    why: str


def read(text: str, expecting: Expecting, known: Lexicon, digits: int = 0) -> Reading:
    """`text` as the recogniser writes it, with its punctuation if it makes any.

    `digits` is how many the answer has at most, where that is known.
    """
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    mark = text.rstrip()[-3:]
    if not words:
        asked = expecting in (Expecting.DIGITS, Expecting.SPELLING)  # they are the hardest to recognise
        return Reading(Phrase.COUNTING if asked else Phrase.PLAIN, "no words")
    if _last(words, known.hesitations):
        return Reading(Phrase.OPEN, "hesitation")
    counted = (
        _address(text, words, expecting, known)
        or _digits(words, expecting, known, digits)
        or _letters(words, expecting, known)
    )
    if counted is not None:
        return counted
    if mark.endswith(_OPEN_MARKS):
        return Reading(Phrase.OPEN, "open punctuation")
    if not mark.endswith("?") and _last(words, known.open_endings):
        return Reading(Phrase.OPEN, "open word")
    if expecting is Expecting.YES_NO and _whole(words, known.answers):
        return Reading(Phrase.WHOLE, "yes or no")
    if _last(words, known.closings):
        return Reading(Phrase.WHOLE, "closing")
    if words[-1] in known.numbers and not mark.endswith("?"):
        return Reading(Phrase.PLAIN, "number to come")
    if mark.endswith((".", "?", "!")):
        return Reading(Phrase.SENTENCE, "sentence")
    return Reading(Phrase.PLAIN, "no punctuation")


def _last(words: list[str], phrases: frozenset[str]) -> bool:
    return any(" ".join(words[-n:]) in phrases for n in range(1, min(LONGEST_PHRASE, len(words)) + 1))


def _whole(words: list[str], phrases: frozenset[str]) -> bool:
    """Nothing but such phrases: "no, no thank you"."""
    at = 0
    while at < len(words):
        fits = [n for n in range(1, LONGEST_PHRASE + 1) if " ".join(words[at : at + n]) in phrases]
        if not fits:
            return False
        at += max(fits)
    return True


def _address(text: str, words: list[str], expecting: Expecting, known: Lexicon) -> Reading | None:
    """An e-mail address, as it is written or as it is spoken, whole or begun."""
    if _ADDRESS.search(text.rstrip()):
        return Reading(Phrase.WHOLE, "address")
    at = next((i for i in range(len(words) - 1, -1, -1) if words[i] == "@" or known.symbols.get(words[i]) == "@"), 0)
    spelled = at > 0 and (expecting is Expecting.SPELLING or len(words[at - 1]) == 1)
    if not (words[at] == "@" or spelled):
        return None
    ending = words[-1] in known.address_endings or "".join(words[-3:]) in known.address_endings
    dotted = any(known.symbols.get(word) == "." for word in words[at:]) or "." in text.split(words[at])[-1].rstrip(".")
    return Reading(Phrase.WHOLE, "address") if ending and dotted else Reading(Phrase.COUNTING, "address begun")


def _digits(words: list[str], expecting: Expecting, known: Lexicon, wanted: int) -> Reading | None:
    """A number told digit by digit, at the end of what was said."""
    told, groups = 0, 0
    before = ""
    for word in reversed(words):
        if word.isdigit():
            told += len(word)
        elif word in known.digits:
            told += 1
        elif word in known.repeats:
            told += known.repeats[word] - 1
        elif word not in known.symbols:
            before = word
            break
        groups += 1
    asked = expecting is Expecting.DIGITS or before in known.numbers
    if not told or (not asked and (told < GROUPED_LEAST or (groups == 1 and told < GROUPED_LEAST + 1))):
        return None
    if wanted and expecting is Expecting.DIGITS:
        return Reading(Phrase.WHOLE if told >= wanted else Phrase.COUNTING, f"{told} of {wanted} digits")
    if told in known.telephone_digits:
        return Reading(Phrase.SENTENCE, f"{told} digits")
    return Reading(Phrase.COUNTING, f"{told} digits")


def _letters(words: list[str], expecting: Expecting, known: Lexicon) -> Reading | None:
    """Letters one by one, at the end of what was said."""
    asked = expecting is Expecting.SPELLING
    letters = 0
    for word in reversed("-".join(words).split("-")):
        if len(word) > 1 and word not in known.alphabet and not (asked and word in known.letters):
            break
        letters += 1
    if letters >= (1 if asked else SPELLED_LEAST):
        return Reading(Phrase.COUNTING, "letters")
    return None
