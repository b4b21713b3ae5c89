"""Finds what an intent needs to know in what the caller said. Every rule is a plain function of text and language."""

import datetime as dt
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import babel.dates
from text_to_num import alpha2digit

from sipagent.conversation.languages import Language, language

LONGEST = 400  # characters of what was said that are looked at; a slot's answer has a few words
NEAR = 0.82  # likeness of a word to a choice that is taken for it: recognisers mistake a letter
AFTERNOON_BEFORE = 7  # a bare hour below this is meant in the afternoon
EVENING = 18


@dataclass(frozen=True, slots=True)
class Value:
    """What was found: as it is said back to the caller, and for machines (ISO 8601, digits, the choice as written)."""

    spoken: str
    plain: str


def find(
    kind: str, text: str, choices: Sequence[str] = (), *, lang: str = "en", today: dt.date | None = None
) -> Value | None:
    """The slot's value, None when the text does not say it."""
    words = language(lang)
    text = text[:LONGEST]
    match kind:
        case "day" | "date":
            return _day(normal(text, words), words, today or dt.date.today(), exact=kind == "date")
        case "time":
            return _time(normal(text, words), words)
        case "number":
            return _number(normal(text, words))
        case "digits":
            return _digits(text, words)
        case "choice":
            return _choice(plain(text), choices)
        case "yes_no":
            said = yes_or_no(text, words)
            return None if said is None else Value("yes" if said else "no", "yes" if said else "no")
        case "name":
            return _name(text, words)
        case "spelling":
            return _spelled(text, words)
        case "email":
            return _email(text, words)
        case _:
            said_text = text.strip().rstrip(".")
            return Value(said_text, said_text) if said_text else None


def plain(text: str) -> str:
    """Lower case, words and what belongs to numbers only."""
    return " ".join(re.sub(r"[^\w:.'@+-]+|(?<!\d)[.](?!\w)|[.](?=\s|$)(?<!\d\.)", " ", text.lower()).split())


def normal(text: str, words: Language) -> str:
    """`plain`, with numbers in digits."""
    said = alpha2digit(plain(text), words.code, threshold=0)
    return re.sub(r"(\d)\.(?=\s*$)", r"\1", said)


def says(text: str, phrases: Sequence[str]) -> bool:
    """Whether one of these phrases is in it, as whole words."""
    return any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) for phrase in phrases)


def yes_or_no(text: str, words: Language) -> bool | None:
    """None when it is neither, or both."""
    said = plain(text).replace(",", " ")
    no = says(said, words.answers.no)
    if no:
        for phrase in sorted(words.answers.no, key=len, reverse=True):  # "that is not right" is no yes
            said = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", " ", said)
    yes = says(said, words.answers.yes)
    if no == yes or len(said.split()) > 8:
        return None
    return yes


def corrects(text: str, words: Language) -> bool:
    """It announces that something understood before was wrong."""
    return says(plain(text), words.dialogue.corrections)


def without_negated(text: str, words: Language) -> str:
    """ "Not Monday, Tuesday" without the Monday."""
    negated = "|".join(re.escape(word) for word in words.dialogue.negations)
    return re.sub(rf"\b(?:{negated})\s+(?:on |at |the )?[\w:.]+(?:\s*[,.;]|\s+but\b|$)?", " ", text, flags=re.I) or text


def spoken_choices(choices: Sequence[str], words: Language) -> str:
    *rest, last = choices
    return f"{', '.join(rest)} {words.says.or_} {last}" if rest else last


# --- days and times -------------------------------------------------------------------------------------------


@cache
def _weekdays(code: str) -> tuple[tuple[str, int], ...]:
    names = babel.dates.get_day_names("wide", locale=code)
    return tuple((name.lower(), number) for number, name in names.items())


@cache
def _months(code: str) -> dict[str, int]:
    names = babel.dates.get_month_names("wide", locale=code)
    return {name.lower(): number for number, name in names.items()}


def _day(said: str, words: Language, today: dt.date, *, exact: bool) -> Value | None:
    """``exact``: said back as a date, else as the caller said it where that was not a date."""
    for phrase in sorted(words.days.relative, key=len, reverse=True):
        if says(said, (phrase,)):
            day = today + dt.timedelta(days=words.days.relative[phrase])
            return Value(_spoken_date(day, words) if exact else phrase, day.isoformat())
    day_of = _date(said, words, today)
    if day_of is not None:
        return Value(_spoken_date(day_of, words), day_of.isoformat())
    for name, number in _weekdays(words.code):
        found = re.search(rf"(?:\b({'|'.join(map(re.escape, words.days.next))}) )?\b{name}s?\b", said)
        if found:
            ahead = (number - today.weekday()) % 7 or 7
            if found.group(1) and today.weekday() + ahead < 7:
                ahead += 7
            day = today + dt.timedelta(days=ahead)
            shown = babel.dates.get_day_names("wide", locale=words.code)[number]
            spoken = f"{found.group(1)} {shown}" if found.group(1) else shown
            return Value(_spoken_date(day, words) if exact else spoken, day.isoformat())
    return None


def _date(said: str, words: Language, today: dt.date) -> dt.date | None:
    """The next such date from today on."""
    months = _months(words.code)
    for pattern in words.days.dates:
        found = re.search(rf"\b{pattern}".replace("{months}", "|".join(months)), said)
        if found:
            groups = found.groupdict()
            month = months[groups["month"]] if groups.get("month") else int(groups["number"])
            return _upcoming(today, month, int(groups["day"]))
    if found := re.search(words.days.ordinal_day, said):
        day = int(found.group("day"))
        month = today.month if day >= today.day else today.month % 12 + 1
        return _upcoming(today, month, day)
    return None


def _upcoming(today: dt.date, month: int, day: int) -> dt.date | None:
    for year in range(today.year, today.year + 5):  # the 29th of February comes every four
        try:
            date = dt.date(year, month, day)
        except ValueError:
            continue
        if date >= today:
            return date
    return None


def _spoken_date(day: dt.date, words: Language) -> str:
    return babel.dates.format_date(day, words.days.date, locale=words.code)


def _time(said: str, words: Language) -> Value | None:
    times = words.times
    for name, at in times.names.items():
        if says(said, (name,)):
            return Value(name, at)
    for each in times.patterns:
        found = re.search(rf"(?<![\d:.]){each.pattern}" if each.pattern[0] != "^" else each.pattern, said)
        if found is None:
            continue
        groups = found.groupdict()
        minutes = int(groups["h"]) * 60 + int(groups.get("m") or 0) - int(groups.get("before") or 0) + each.add
        if not 0 <= minutes < 24 * 60 or int(groups["h"]) > 24:
            continue
        return _spoken_time(minutes, said, words)
    return None


def _spoken_time(minutes: int, said: str, words: Language) -> Value:
    times = words.times
    hour, minute = divmod(minutes, 60)
    am, pm = (any(re.search(rf"(?<![a-z]){pattern}", said) for pattern in half) for half in (times.am, times.pm))
    if am and hour == 12:
        hour = 0
    shown = (hour - 1) % 12 + 1 if times.twelve_hours else hour
    if hour < 12 and (pm or (not am and hour < AFTERNOON_BEFORE)):
        hour += 12
    half = times.morning if am else "" if not pm else times.evening if hour >= EVENING else times.afternoon
    spoken = (times.minute if minute else times.full).format(h=shown, m=minute)
    return Value(spoken + half, f"{hour:02}:{minute:02}")


# --- numbers, digits, letters ---------------------------------------------------------------------------------


def _number(said: str) -> Value | None:
    found = re.search(r"(?<![\w.])-?\d{1,12}(?:st|nd|rd|th|\.)?(?!\w)", said)
    if found is None:
        return None
    digits = re.sub(r"\D+$", "", found.group(0))
    return Value(digits, digits)


def _digits(text: str, words: Language) -> Value | None:
    """All digits said, in order; spoken back one by one."""
    tokens = plain(text).replace("-", " ").split()
    spelling, out = words.spelling, []
    # "Twenty one" within a row of digits is 21, and so on: each run of other words is read as numbers are.
    run: list[str] = []

    def flush(times: int = 1) -> None:
        if run:
            read = alpha2digit(" ".join(run), words.code, threshold=0)
            digits = re.sub(r"\D", "", read)
            if times > 1 and digits:
                digits = digits[0] * times + digits[1:]
            out.append(digits)
            run.clear()

    times = 1
    for token in tokens:
        if token in spelling.times:
            flush(times)
            times = spelling.times[token]
        elif token in spelling.zero:
            flush(times)
            out.append("0" * (times if not run else 1))
            times = 1
        else:
            run.append(token)
            if times > 1:
                flush(times)
                times = 1
    flush(times)
    digits = "".join(out)
    return Value(" ".join(digits), digits) if digits else None


def _letters(text: str, words: Language) -> list[str] | None:
    """The letters, digits and symbols of something spelled; None when it is not spelled through."""
    spelling = words.spelling
    said = plain(text).replace("-", " - ") if " - " in text else plain(text)
    said = re.sub(r"(?<=\b\w)-(?=\w\b)", " ", said)
    for phrase in spelling.as_in:
        said = re.sub(rf"\b(\w) {re.escape(phrase)} \w+", r"\1", said)
    for phrase, letter in spelling.letters.items():
        if " " in phrase:
            said = said.replace(phrase, letter)
    letters: list[str] = []
    times = 1
    for token in said.split():
        token = token.strip(".")
        if token in spelling.times:
            times = spelling.times[token]
            continue
        if len(token) == 1 and token.isalnum():
            letter = token
        elif token in spelling.letters:
            letter = spelling.letters[token]
        elif token in spelling.alphabet:
            letter = token[0]
        elif token in spelling.symbols:
            letter = spelling.symbols[token]
        else:
            read = re.sub(r"\D", "", alpha2digit(token, words.code, threshold=0))
            if not read:
                return None
            letter = read
        letters += [letter] * times
        times = 1
    return letters


def _spelled(text: str, words: Language) -> Value | None:
    letters = _letters(_after_lead_in(text, words), words)
    if not letters:
        return None
    return Value(" ".join(letters).upper(), "".join(letters).upper())


def _name(text: str, words: Language) -> Value | None:
    said = _after_lead_in(text, words)
    letters = _letters(said, words)
    if letters and len(letters) > 1:
        name = "".join(letters).capitalize()
    else:
        # "Mayer, M A Y E R": who spells a name after saying it means the spelling.
        head, _, tail = said.partition(",")
        spelled = _letters(tail, words) if tail else None
        name = "".join(spelled).capitalize() if spelled and len(spelled) > 1 else head.strip(" .!?,")
    name = " ".join(part[:1].upper() + part[1:] for part in name.split()[:6])
    return Value(name, name) if any(c.isalpha() for c in name) else None


def _email(text: str, words: Language) -> Value | None:
    symbols = words.spelling.symbols
    said = _after_lead_in(plain(text), words)
    for word, symbol in sorted(symbols.items(), key=lambda each: -len(each[0])):
        said = re.sub(rf"\b{re.escape(word)}\b", f" {symbol} ", said)
    said = alpha2digit(said, words.code, threshold=0)
    joined = re.sub(r"\s+", "", said)
    found = re.search(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", joined)
    if found is None:
        return None
    address = found.group(0).rstrip(".")
    at, dot = (next((w for w, s in symbols.items() if s == symbol), symbol) for symbol in "@.")
    return Value(address.replace("@", f" {at} ").replace(".", f" {dot} "), address)


def _after_lead_in(text: str, words: Language) -> str:
    said = text.strip()
    for _ in range(3):
        for phrase in words.dialogue.lead_ins:
            if re.match(rf"{re.escape(phrase)}\b", said, re.I):
                said = said[len(phrase) :].lstrip(" ,:.")
                break
        else:
            return said
    return said


def _choice(said: str, choices: Sequence[str]) -> Value | None:
    for choice in choices:
        if says(said, (choice.lower(),)):
            return Value(choice, choice)
    for choice in choices:  # a letter may be wrong, or an ending
        size = len(choice.split())
        words = said.split()
        for i in range(len(words) - size + 1):
            part = " ".join(words[i : i + size])
            if difflib.SequenceMatcher(None, part, choice.lower()).ratio() >= NEAR:
                return Value(choice, choice)
    return None
