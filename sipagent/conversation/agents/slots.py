"""Finds what an intent needs to know in what the caller said. English; every rule is a plain function of text."""

import re
from collections.abc import Sequence

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_RELATIVE = ("day after tomorrow", "tomorrow", "today", "tonight", "next week")
_NUMBERS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen eighteen nineteen".split()
    )
} | {word: 10 * (i + 2) for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
_HOUR = "|".join([*list(_NUMBERS)[1:13], r"1[0-2]", r"[1-9]"])
_HALF = re.compile(rf"\bhalf past ({_HOUR})\b")
_QUARTER = re.compile(rf"\b(?:a )?quarter (past|after|to) ({_HOUR})\b")
_CLOCK = re.compile(r"\b([01]?\d|2[0-3])[:.h]([0-5]\d)\b\s*([ap])?\.?m?\b")
_AT = re.compile(
    rf"\b(?:at |around |about )?({_HOUR})(?: (fifteen|thirty|forty five|15|30|45))?\s*(o'?clock|[ap]\.?\s?m\b\.?|in the"
    r" (?:morning|afternoon|evening))?"
)


def find(kind: str, text: str, choices: Sequence[str] = ()) -> str | None:
    """The slot's value as it should be spoken back, None when the text does not say it."""
    said = " ".join(re.sub(r"[^a-z0-9:.' ]", " ", text.lower()).split()).rstrip(".")
    match kind:
        case "day":
            return _day(said)
        case "time":
            return _time(said)
        case "number":
            return _number(said)
        case "choice":
            return next((c for c in choices if re.search(rf"\b{re.escape(c.lower())}\b", said)), None)
        case _:
            return text.strip().rstrip(".") or None


def _day(said: str) -> str | None:
    for phrase in _RELATIVE:
        if phrase in said:
            return phrase
    for day in _DAYS:
        if re.search(rf"\b{day}s?\b", said):
            prefix = "next " if f"next {day}" in said else ""
            return prefix + day.capitalize()
    return None


def _time(said: str) -> str | None:
    if found := _HALF.search(said):
        return f"half past {_hour_word(found.group(1))}"
    if found := _QUARTER.search(said):
        way = "to" if found.group(1) == "to" else "past"
        return f"a quarter {way} {_hour_word(found.group(2))}"
    if found := _CLOCK.search(said):
        minute = found.group(2)
        half = {"a": " in the morning", "p": " in the afternoon"}.get(found.group(3) or "", "")
        return _hour_word(str(int(found.group(1)))) + ("" if minute == "00" else f" {_minute_word(minute)}") + half
    if re.search(r"\b(noon|midday)\b", said):
        return "noon"
    # A bare number is taken for an hour only when nothing else in the sentence could be meant by it.
    for found in _AT.finditer(said):
        hour, minute, suffix = found.group(1), found.group(2), (found.group(3) or "").replace(".", "").replace(" ", "")
        if not suffix and not minute and "at " not in found.group(0) and len(said.split()) > 6:
            continue
        half = {"am": " in the morning", "pm": " in the afternoon"}.get(suffix, "")
        if suffix.startswith("inthe"):
            half = " in the " + suffix[5:]
        return _hour_word(hour) + (f" {_minute_word(minute)}" if minute else "") + half
    return None


def _number(said: str) -> str | None:
    if found := re.search(r"\b\d+\b", said):
        return found.group(0)
    return next((str(_NUMBERS[word]) for word in said.split() if word in _NUMBERS), None)


def _hour_word(hour: str) -> str:
    value = _NUMBERS.get(hour) if not hour.isdigit() else int(hour)
    words = {number: word for word, number in _NUMBERS.items()}
    return words.get(value, hour) if value is not None else hour


def _minute_word(minute: str) -> str:
    return {"15": "fifteen", "30": "thirty", "45": "forty five"}.get(minute, minute)
