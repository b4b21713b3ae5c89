"""Digits in the bodies of INFO requests: the two forms the field uses, neither of them a standard."""

import re

RELAY = "application/dtmf-relay"  # "Signal=5\r\nDuration=160\r\n"
PLAIN = "application/dtmf"  # "5"
DIGITS = "0123456789*#ABCD"
_LONGEST_MS = 10_000
_NUMBERS = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}  # by event number, as some write them


def digit_of(content_type: str, body: str) -> tuple[str, int] | None:
    """The digit and its duration in ms (0 when not told); None when the body holds none."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (RELAY, PLAIN):
        return None
    if "=" not in body:
        return _digit(body.strip(), 0)
    values = {name.strip().lower(): value.strip() for name, _, value in map(_pair, body[:512].splitlines())}
    duration = values.get("duration", "")
    return _digit(values.get("signal", ""), min(int(duration), _LONGEST_MS) if _is_number(duration) else 0)


def relay_body(digit: str, duration_ms: int) -> str:
    """Raises ValueError for what is no key."""
    if digit not in DIGITS or len(digit) != 1:
        raise ValueError("not one of the keys 0 to 9, *, # and A to D")
    return f"Signal={digit}\r\nDuration={duration_ms}\r\n"


def is_digits(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in (RELAY, PLAIN)


def _digit(text: str, duration_ms: int) -> tuple[str, int] | None:
    digit = _NUMBERS.get(text, text.upper())
    return (digit, duration_ms) if len(digit) == 1 and digit in DIGITS else None


def _pair(line: str) -> tuple[str, str, str]:
    return line.partition("=")


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]{1,6}", text) is not None
