"""Texts with places to fill in: ``{name}``; ``{{`` and ``}}`` are braces.

>>> fill("/orders/{order}?by={call.from}", {"order": "a/7", "call.from": "12"}, quote=str.upper)
'/orders/A/7?by=12'
>>> sorted(names("{a} and {{b}} and {digits.pin}"))
['a', 'digits.pin']
"""

import html
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

_PLACE = re.compile(r"\{\{|\}\}|\{([\w.:-]+)\}")
_MOST = 64  # levels of a nested value; a real one has three


def names(template: str) -> set[str]:
    """What is to be filled in. Raises ValueError for a brace that stands alone."""
    if "{" in (rest := _PLACE.sub("", template)) or "}" in rest:
        raise ValueError("a brace stands alone: write {name} for a place to fill in, and {{ for a brace")
    return {found.group(1) for found in _PLACE.finditer(template) if found.group(1)}


def fill(template: str, values: Mapping[str, Any], quote: Callable[[str], str] = str) -> str:
    """Each place filled in with its value as text, quoted. Raises KeyError for a place without a value."""

    def place(found: re.Match[str]) -> str:
        name = found.group(1)
        if name is None:
            return found.group(0)[0]
        return quote(as_text(values[name]))

    return _PLACE.sub(place, template)


def quoting(content_type: str) -> Callable[[str], str] | None:
    """How a value becomes part of a text of this type and stays one value; None where that is not known.

    >>> quoting("application/x-www-form-urlencoded; charset=utf-8")("7&amount=9")
    '7%26amount%3D9'
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/xml", "+xml")):
        return html.escape
    known: dict[str, Callable[[str], str]] = {"text/plain": str, "application/x-www-form-urlencoded": quote_plus}
    return known.get(kind)


def fill_in(value: Any, values: Mapping[str, Any], depth: int = 0) -> Any:
    """The same for every text inside of a value; a text that is nothing but one place becomes the value itself."""
    if depth > _MOST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {key: fill_in(inner, values, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_in(inner, values, depth + 1) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    if whole is not None and whole.group(1):
        return values[whole.group(1)]
    return fill(value, values)


def names_in(value: Any, depth: int = 0) -> set[str]:
    """What is to be filled in anywhere inside of a value. Raises ValueError as `names`."""
    if depth > _MOST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return set().union(*(names_in(inner, depth + 1) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(names_in(inner, depth + 1) for inner in value))
    return names(value) if isinstance(value, str) else set()


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
