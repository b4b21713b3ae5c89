"""What is found in the caller's words, in each language."""

import datetime as dt

import pytest

from sipagent.conversation.agents.slots import corrects, find, without_negated
from sipagent.conversation.languages import codes, language
from sipagent.core.errors import ConfigError

SUNDAY = dt.date(2026, 11, 22)


@pytest.mark.parametrize(
    ("kind", "said", "spoken", "plain"),
    [
        ("day", "On Tuesday, please.", "Tuesday", "2026-11-24"),
        ("day", "next friday would be good", "next Friday", "2026-11-27"),
        ("day", "The day after tomorrow.", "day after tomorrow", "2026-11-24"),
        ("day", "whenever", None, None),
        ("date", "Tomorrow", "Monday, November 23", "2026-11-23"),
        ("date", "May the twenty-first", "Friday, May 21", "2027-05-21"),
        ("date", "the third of December", "Thursday, December 3", "2026-12-03"),
        ("date", "the fifth", "Saturday, December 5", "2026-12-05"),
        ("date", "the thirtieth of February", None, None),
        ("time", "At three o'clock.", "3", "15:00"),
        ("time", "half past ten", "10:30", "10:30"),
        ("time", "10:30 would be fine", "10:30", "10:30"),
        ("time", "Quarter to nine.", "8:45", "08:45"),
        ("time", "ten to six", "5:50", "17:50"),
        ("time", "2 p.m.", "2 in the afternoon", "14:00"),
        ("time", "seven in the evening", "7 in the evening", "19:00"),
        ("time", "at 9 in the morning", "9 in the morning", "09:00"),
        ("time", "at noon", "noon", "12:00"),
        ("time", "Ten.", "10", "10:00"),
        ("time", "I am not sure", None, None),
        ("time", "for two people and one dog in my house today", None, None),
        ("number", "I need 4 seats", "4", "4"),
        ("number", "one hundred and five of them", "105", "105"),
        ("number", "none", None, None),
        ("digits", "double five oh seven, two three", "5 5 0 7 2 3", "550723"),
        ("digits", "0171 23 45", "0 1 7 1 2 3 4 5", "01712345"),
        ("digits", "I do not know it", None, None),
        ("choice", "the blue one", "blue", "blue"),
        ("choice", "the bluue one", "blue", "blue"),
        ("choice", "the green one", None, None),
        ("name", "My name is John Smith.", "John Smith", "John Smith"),
        ("name", "It's Meyer, M-A-Y-E-R.", "Mayer", "Mayer"),
        ("spelling", "M as in Mike, A, double L", "M A L L", "MALL"),
        ("spelling", "bravo oh bee seven", "B O B 7", "BOB7"),
        ("email", "john dot smith at example dot com", "john dot smith at example dot com", "john.smith@example.com"),
        ("email", "it is jane_doe@example.com.", "jane_doe at example dot com", "jane_doe@example.com"),
        ("email", "I have none", None, None),
        ("yes_no", "Yes, that's right.", "yes", "yes"),
        ("yes_no", "that is not right", "no", "no"),
        ("yes_no", "well it depends", None, None),
        ("text", " Smith. ", "Smith", "Smith"),
    ],
)
def test_english(kind, said, spoken, plain):
    value = find(kind, said, ["red", "blue"] if kind == "choice" else [], today=SUNDAY)
    assert (value and value.spoken, value and value.plain) == (spoken, plain)


@pytest.mark.parametrize(
    ("kind", "said", "spoken", "plain"),
    [
        ("day", "am nächsten Dienstag", "nächsten Dienstag", "2026-11-24"),
        ("date", "übermorgen", "Dienstag, den 24. November", "2026-11-24"),
        ("date", "am dritten Mai", "Montag, den 3. Mai", "2027-05-03"),
        ("date", "am dritten fünften", "Montag, den 3. Mai", "2027-05-03"),
        ("time", "um halb vier", "3 Uhr 30", "15:30"),
        ("time", "Viertel nach drei", "3 Uhr 15", "15:15"),
        ("time", "dreiviertel elf", "10 Uhr 45", "10:45"),
        ("time", "fünfzehn Uhr dreißig", "15 Uhr 30", "15:30"),
        ("time", "um acht Uhr abends", "8 Uhr abends", "20:00"),
        ("number", "einundzwanzig", "21", "21"),
        ("digits", "null eins sieben zwo", "0 1 7 2", "0172"),
        ("name", "Ich heiße Müller.", "Müller", "Müller"),
        ("spelling", "Martha Ulrich Emil doppel Ludwig", "M U E L L", "MUELL"),
        ("email", "max punkt muster at beispiel punkt de", None, "max.muster@beispiel.de"),
        ("yes_no", "Ja, genau.", "yes", "yes"),
        ("yes_no", "nein, das stimmt nicht", "no", "no"),
    ],
)
def test_german(kind, said, spoken, plain):
    value = find(kind, said, lang="de", today=SUNDAY)
    assert value is not None and value.plain == plain
    assert spoken is None or value.spoken == spoken


def test_corrections():
    english = language("en")
    assert corrects("No, Tuesday.", english) and not corrects("Tuesday", english)
    value = find("day", without_negated("Not Monday, Tuesday.", english), today=SUNDAY)
    assert value is not None and value.spoken == "Tuesday"
    assert without_negated("not", english) == "not"


def test_every_language_is_whole_and_an_unknown_one_is_told():
    assert codes() == ["de", "en"]
    for code in codes():
        assert language(code).code == code
    with pytest.raises(ConfigError, match="no language `xx`: there is de, en"):
        language("xx")


@pytest.mark.parametrize("kind", ["day", "date", "time", "number", "digits", "name", "spelling", "email", "yes_no"])
@pytest.mark.parametrize("lang", ["en", "de"])
def test_whatever_is_said_costs_no_time(kind, lang):
    for said in ("a " * 5000, "1" * 5000, "one " * 5000, "double " * 5000, "@." * 5000, "-" * 5000, "not " * 5000):
        find(kind, said, lang=lang, today=SUNDAY)
