"""Cutting what a Whisper decoder says twice.

With a short encoder window (see `whisper.py`) the decoder sometimes fails to stop and says the sentence again until its
token limit. A caller may repeat himself too ("no no no", "four two four two"), and must be believed. What tells the two
apart is speed: over 484 recorded prompts real speech had 11 letters a second (99 of 100 below 18), and every
loop more than 21, for it puts the same words twice into the same time.
"""

import re

MAX_LETTERS_PER_S = 15.0
_SPOKEN_DIGIT = "four"  # a digit counts as the letters of its name; they average four


def spoken_letters(text: str) -> int:
    return len(re.sub(r"[\W_]", "", re.sub(r"\d", _SPOKEN_DIGIT, text)))


def cut_loop(text: str, speech_s: float) -> str:
    """`text` without its repeated tail, if so many words cannot have been said in `speech_s` seconds."""
    if spoken_letters(text) <= MAX_LETTERS_PER_S * speech_s:
        return text
    words = text.split()
    ends = [bool(re.search(r"[.!?…][\"')]*$", word)) for word in words]
    end = _end_of_first_round(["".join(re.findall(r"\w+", word.lower())) for word in words], ends)
    return " ".join(words[:end])


def _end_of_first_round(words: list[str], ends: list[bool]) -> int:
    """Where the repetition begins that runs to the end of `words`; len(words) when there is none.

    It is a repetition when at least one whole round follows the first, or three words of a round that was cut off
    (by the token limit, perhaps inside a word), or two when a sentence ended before them. `ends`: where sentences end.
    """
    count = len(words)
    for cut in range(1, count):
        for start in range(cut):
            period = cut - start
            enough = min(period, 2 if ends[cut - 1] else 3)
            if count - cut >= enough and _repeats(words, cut, period):
                return cut
    return count


def _repeats(words: list[str], cut: int, period: int) -> bool:
    last = len(words) - 1
    return all(words[i] == words[i - period] for i in range(cut, last)) and (
        words[last] == words[last - period] or (last > cut and words[last - period].startswith(words[last]))
    )
