"""What is blacked out on its way into the record: keys, card numbers, digits, and what patterns find.

Party numbers stay, since calls are found by them; `store.erasure` takes a caller out altogether. So do live events:
they show what happens now. Webhooks stand in the record, too: they are made of what is redacted.
"""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

from sipagent.core.events import EVENT_TYPES, DigitReceived, Event, Gathered, SipMessages, TurnEnded, WebhookDue
from sipagent.store.settings import RedactionSettings

BLACK = "x"
REDACTED = "[redacted]"
_PARTIES = frozenset({"from_number", "to_number", "target", "diversions", "name", "url", "messages"})
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")  # ISO/IEC 7812: up to 19 digits
_SHOWN_OF_CARD = 4
_SIGNAL = re.compile(r"(?mi)^(Signal[ \t]*=[ \t]*)\S+")  # the key in a body of application/dtmf-relay
_DIGIT = re.compile(r"\d")

Blacken = Callable[[str], str]


def redactor(settings: RedactionSettings) -> Callable[[Event], Event] | None:
    """The policy as a function, None when nothing is blacked out."""
    blacken = _blackening(settings)
    if not blacken and not settings.keys:
        return None

    def redact(event: Event) -> Event:
        if isinstance(event, DigitReceived):
            return replace(event, digit=BLACK) if settings.keys else event
        if isinstance(event, Gathered) and settings.keys:
            event = replace(event, digits=BLACK * len(event.digits))
        if isinstance(event, WebhookDue):
            return event
        if isinstance(event, SipMessages):
            return _without_signals(event) if settings.keys else event
        if settings.keys and isinstance(event, TurnEnded) and event.details.get("keys"):
            event = _without_keys(event)
        names = _words(type(event).__name__)
        if not names or not blacken:
            return event
        return replace(event, **{name: _everywhere(getattr(event, name), blacken) for name in names})

    return redact


def _blackening(settings: RedactionSettings) -> list[Blacken]:
    found: list[Blacken] = []
    for pattern in map(re.compile, settings.patterns):
        found.append(lambda text, pattern=pattern: pattern.sub(REDACTED, text))  # type: ignore[misc]
    if settings.cards:
        found.append(lambda text: _CARD.sub(_card, text))
    if settings.digits:
        run = re.compile(rf"\d(?:[ -]?\d){{{settings.digits - 1},}}")
        found.append(lambda text: run.sub(lambda match: _DIGIT.sub(BLACK, match[0]), text))
    return found


@cache
def _words(kind: str) -> tuple[str, ...]:
    """The fields that hold what somebody said or gave."""
    private = [field.name for field in fields(EVENT_TYPES[kind]) if field.metadata.get("private")]
    return tuple(name for name in private if name not in _PARTIES)


def _everywhere(value: Any, blacken: list[Blacken]) -> Any:
    match value:
        case str():
            for each in blacken:
                value = each(value)
            return value
        case dict():
            return {key: _everywhere(item, blacken) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_everywhere(item, blacken) for item in value)
        case _:
            return value


def _card(match: re.Match[str]) -> str:
    text = match[0]
    digits = [int(digit) for digit in text if digit.isdigit()]
    if not luhn(digits):
        return text
    left = len(digits) - _SHOWN_OF_CARD
    black: list[str] = []
    for character in text:
        if character.isdigit() and left > 0:
            left -= 1
            character = BLACK
        black.append(character)
    return "".join(black)


def luhn(digits: list[int]) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _without_keys(event: TurnEnded) -> TurnEnded:
    """A turn that the caller answered by keys: the answer, and digits of what is said back."""

    def black(text: str) -> str:
        return _DIGIT.sub(BLACK, text)

    return replace(
        event,
        caller_text=BLACK * len(event.caller_text),
        agent_text=black(event.agent_text),
        heard_text=black(event.heard_text),
    )


def _without_signals(event: SipMessages) -> SipMessages:
    messages = tuple(
        replace(message, text=_SIGNAL.sub(rf"\g<1>{BLACK}", message.text)) if "ignal" in message.text else message
        for message in event.messages
    )
    return replace(event, messages=messages)
