"""Which words of a clause its audio has reached, where the voice does not say: by what has sounded of it.

A word takes time by its syllables and its other letters; pauses take none, and where there are as many in the audio as
marks in the text, they tell where the parts between them begin and end.
"""

import re
from collections.abc import Sequence
from itertools import groupby

FRAMES_PER_WEIGHT = 2.4  # of sounding speech, for a clause that is cut before all of it was made
SYLLABLE, LETTER, DIGIT = 1.5, 0.9, 3.4  # weights of a group of vowels, of any other letter, of a digit
PAUSE_FRAMES = 5  # of silence that are a pause, not a stop consonant
EARLY_FRAMES = 1.0  # by which a word counts before its end: nothing is missing of it then

_VOWELS = re.compile(r"[aeiouyäöüéèà]+")
_MARK = re.compile(r"[,;:.!?–—…]+[\"')\]]*$")


def weight(word: str) -> float:
    """How long the word takes to say, in no particular unit."""
    letters = [c for c in word.lower() if c.isalpha()]
    groups = _VOWELS.findall("".join(letters))
    others = len(letters) - sum(map(len, groups))
    digits = sum(c.isdigit() for c in word)
    return max(1.0, SYLLABLE * len(groups) + LETTER * others + DIGIT * digits)


def words_within(text: str, sounds: Sequence[bool], played: int, *, whole: bool) -> str:
    """The leading words that had been said when `played` frames had left.

    `sounds` tells of each frame of the clause whether it sounds; `whole` that these are all.
    """
    words = text.split()
    ends = _ends(words, sounds, whole=whole)
    heard = [word for word, end in zip(words, ends, strict=True) if end <= played + EARLY_FRAMES]
    return " ".join(heard)


def _ends(words: Sequence[str], sounds: Sequence[bool], *, whole: bool) -> list[float]:
    """The frame at which each word ends."""
    runs = _runs(sounds)
    parts = _parts(words)
    if whole and len(parts) == len(runs):
        ends: list[float] = []
        for part, (first, last) in zip(parts, runs, strict=True):
            ends += _spread(part, [i for i in range(first, last) if sounds[i]], last)
        return ends
    sounding = [i for i, sound in enumerate(sounds) if sound]
    if not whole:  # what is not made yet is taken to follow at once
        missing = int(sum(map(weight, words)) * FRAMES_PER_WEIGHT) - len(sounding)
        sounding += range(len(sounds), len(sounds) + max(0, missing))
    return _spread(words, sounding, sounding[-1] + 1 if sounding else len(sounds))


def _spread(words: Sequence[str], sounding: Sequence[int], end: int) -> list[float]:
    """Ends of words that share these frames by their weights; the last one's is `end`."""
    weights = [weight(word) for word in words]
    total, reached = sum(weights), 0.0
    ends: list[float] = []
    for each in weights:
        reached += each
        place = min(int(reached / total * len(sounding)), len(sounding) - 1)
        ends.append(float(sounding[place]) if sounding else float(end))
    if ends:
        ends[-1] = float(end)
    return ends


def _runs(sounds: Sequence[bool]) -> list[tuple[int, int]]:
    """Stretches of sound between pauses, as (first frame, frame after the last)."""
    runs: list[tuple[int, int]] = []
    at = 0
    for sound, group in groupby(sounds):
        length = sum(1 for _ in group)
        if sound:
            if runs and at - runs[-1][1] < PAUSE_FRAMES:
                runs[-1] = (runs[-1][0], at + length)
            else:
                runs.append((at, at + length))
        at += length
    return runs


def _parts(words: Sequence[str]) -> list[list[str]]:
    """The words between marks."""
    parts: list[list[str]] = [[]]
    for word in words:
        parts[-1].append(word)
        if _MARK.search(word):
            parts.append([])
    return [part for part in parts if part]
