"""Text from outside, fit to be stored and sent."""

import re
from typing import Any

# PostgreSQL refuses NUL in text; lone surrogates have no UTF-8. Both can arrive in a SIP header or as a JSON escape.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD."""
    if text.isascii() and "\0" not in text:  # nearly all, and ten times as fast
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def all_storable(value: Any) -> Any:
    """Of a value of plain types: every text in it, keys too."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {all_storable(key): all_storable(item) for key, item in value.items()}
        case list() | tuple():
            return [all_storable(item) for item in value]
        case _:
            return value
