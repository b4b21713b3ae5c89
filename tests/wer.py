"""Word error rate, after writing both sides the same way."""

import re
from collections.abc import Iterable

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
# Two spellings of one spoken word.
SPELLINGS = {
    "voice mail": "voicemail",
    "mail box": "mailbox",
    "e mail": "email",
    "log in": "login",
    "log out": "logout",
    "log off": "logoff",
    "logged on": "loggedon",
    "logged off": "loggedoff",
    "re record": "rerecord",
    "speed dial": "speeddial",
    "call back": "callback",
    "black list": "blacklist",
    "okay": "ok",
}


def number_words(digits: str) -> str:
    """As it is most often said: up to ninety-nine as one number, round hundreds and thousands too, others by digit."""
    value = int(digits)
    if len(digits) == 1 or (digits[0] != "0" and value < 20):
        return ONES[value]
    if digits[0] != "0" and value < 100:
        return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if digits[0] != "0" and value % size == 0 and value // size < 100:
            return f"{number_words(str(value // size))} {name}"
    return " ".join(ONES[int(digit)] for digit in digits)


def _ordinal(match: re.Match[str]) -> str:
    value = int(match[1])
    for name, number in ORDINALS.items():
        if number == value:
            return name
    words = number_words(match[1])
    return words[:-1] + "ieth" if words.endswith("y") else words + "th"


def normalise(text: str) -> str:
    """Lower-case words without punctuation, numbers in words, one spelling for compounds."""
    text = text.lower().replace("\u2019", "'").replace("'", "")
    text = re.sub(r"\[.*?\]|\(.*?\)", " ", text)
    text = re.sub(r"(?<=\d)[,](?=\d{3}\b)", "", text)
    text = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", _ordinal, text)
    text = re.sub(r"\d+", lambda match: f" {number_words(match[0])} ", text)
    for sign, word in (("%", " percent "), ("&", " and "), ("#", " pound "), ("*", " star ")):
        text = text.replace(sign, word)
    text = " ".join(re.sub(r"[^a-z]", " ", text).split())
    for apart, together in SPELLINGS.items():
        text = re.sub(rf"\b{apart}\b", together, text)
    return text


def errors(reference: str, heard: str) -> tuple[int, int]:
    """Words wrong, missing or added (Levenshtein), and words in the reference."""
    wanted, got = normalise(reference).split(), normalise(heard).split()
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1], len(wanted)


def wer(pairs: Iterable[tuple[str, str]]) -> float:
    """Errors as a share of the reference's words, over all (reference, heard) pairs together."""
    counted = [errors(reference, heard) for reference, heard in pairs]
    return sum(wrong for wrong, _ in counted) / max(1, sum(words for _, words in counted))
