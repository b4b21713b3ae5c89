"""What depends on the language, as data: one TOML file each. A new language is a new file and no code."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from sipagent.core.errors import ConfigError


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Answers(_Part, frozen=True):
    yes: tuple[str, ...]
    no: tuple[str, ...]


class Dialogue(_Part, frozen=True):
    """Words of the caller that steer the dialogue."""

    corrections: tuple[str, ...]  # what was understood before is wrong
    negations: tuple[str, ...]  # what follows is what it is not
    repeat: tuple[str, ...]  # the caller has not understood us
    drop: tuple[str, ...]  # the matter is to be dropped
    lead_ins: tuple[str, ...]  # before a name, and no part of it


class Says(_Part, frozen=True):
    """What an agent of intents says where the dialplan has no words for it."""

    not_understood: tuple[str, ...]  # the n-th for the n-th time
    below: str  # {min}
    above: str  # {max}
    length: str  # {digits}, {heard}
    choices: str  # {choices}
    confirm: str  # {value}
    change: str
    dropped: str
    yes_or_no: str
    or_: str = msgspec.field(name="or")


class Days(_Part, frozen=True):
    relative: dict[str, int]  # words for days, and how many days they are from today
    next: tuple[str, ...]  # makes a weekday that of the week after
    date: str  # how a date is spoken, as CLDR (Unicode TR 35) writes patterns
    dates: tuple[str, ...]  # patterns with `day` and `month` or `number`; {months} stands for the months' names
    ordinal_day: str  # pattern of a `day` without a month


class TimePattern(_Part, frozen=True):
    pattern: str  # with `h`, and `m` (after it) or `before` (minutes before it)
    add: int = 0  # minutes


class Times(_Part, frozen=True):
    twelve_hours: bool  # a bare hour may be before or after noon
    am: tuple[str, ...]  # patterns
    pm: tuple[str, ...]
    names: dict[str, str]  # HH:MM
    patterns: tuple[TimePattern, ...]
    full: str  # how a full hour is spoken: {h}
    minute: str  # and any other time: {h}, {m}
    morning: str  # behind it, where the caller said so
    afternoon: str
    evening: str


class Spelling(_Part, frozen=True):
    zero: tuple[str, ...]
    times: dict[str, int]  # "double": the next one twice
    as_in: tuple[str, ...]  # "m as in mike"
    letters: dict[str, str]  # letters as recognisers write their names
    alphabet: tuple[str, ...]  # words that stand for their first letter
    symbols: dict[str, str]


class TurnEnd(_Part, frozen=True):
    """By which it is told whether a caller who pauses has finished. Phrases may have several words."""

    open_endings: tuple[str, ...]  # no sentence ends on these
    hesitations: tuple[str, ...]  # said while the rest is looked for
    closings: tuple[str, ...]  # nobody goes on behind these
    numbers: tuple[str, ...]  # words behind which a number is told digit by digit
    digits: tuple[str, ...]
    address_endings: tuple[str, ...]  # the last part of an e-mail address
    telephone_digits: tuple[int, ...]  # how many a whole telephone number has; empty where that differs


class Backchannels(_Part, frozen=True):
    """What a listener says without wanting to speak; phrases may have several words."""

    listening: frozenset[str]  # never an answer
    consent: frozenset[str]  # an answer where a question was asked


class CalleePhrases(_Part, frozen=True):
    """By what machines that answer calls can be told; matched as whole words in lower case."""

    voicemail: tuple[str, ...]
    tone: tuple[str, ...]  # announce one, behind which a message or the caller's name is expected
    menu: tuple[str, ...]
    screening: tuple[str, ...]


class Language(_Part, frozen=True):
    code: str  # ISO 639-1
    claims: tuple[str, ...]  # patterns: an agent says that something has been done
    answers: Answers
    dialogue: Dialogue
    says: Says
    days: Days
    times: Times
    spelling: Spelling
    turn_end: TurnEnd
    backchannels: Backchannels
    callee: CalleePhrases
    manners: dict[str, Any] = {}  # texts of an agent in place of the dialplan's English defaults, by its keys


def codes() -> list[str]:
    """Of all languages there are."""
    return sorted(file.name.removesuffix(".toml") for file in files(__name__).iterdir() if file.name.endswith(".toml"))


@cache
def language(code: str) -> Language:
    """Raises ConfigError for one that is not there."""
    if code not in codes():
        raise ConfigError(f"no language `{code}`: there is {', '.join(codes())}")
    text = (files(__name__) / f"{code}.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Language)
