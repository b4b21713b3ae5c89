"""Enough of JSON Schema 2020-12 to hold an answer against our own document; an unknown keyword is an error."""

import re
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
NOTES = {"title", "description", "default"}


def check(value: Any, schema: dict[str, Any], document: dict[str, Any], at: str = "$") -> None:
    """Raises AssertionError with the path of the first part that does not fit."""
    for keyword, rule in schema.items():
        match keyword:
            case "$ref":
                check(value, document["components"]["schemas"][rule.rpartition("/")[2]], document, at)
            case "type":
                assert isinstance(value, TYPES[rule]), f"{at}: {value!r} is no {rule}"
                assert rule == "boolean" or not isinstance(value, bool), f"{at}: {value!r} is no {rule}"
            case "enum":
                assert value in rule, f"{at}: {value!r} is none of {rule}"
            case "anyOf":
                assert any(_fits(value, option, document) for option in rule), f"{at}: {value!r} fits no option"
            case "required":
                assert set(rule) <= set(value), f"{at}: lacks {set(rule) - set(value)}"
            case "properties":
                # our own answers hold nothing that is not described
                assert set(value) <= set(rule), f"{at}: has {set(value) - set(rule)}"
                for name, inner in value.items():
                    check(inner, rule[name], document, f"{at}.{name}")
            case "additionalProperties" if isinstance(rule, dict):
                for name, inner in value.items():
                    check(inner, rule, document, f"{at}.{name}")
            case "items":
                for index, inner in enumerate(value):
                    check(inner, rule, document, f"{at}[{index}]")
            case "format":
                assert rule == "date-time", f"{at}: unknown format {rule}"
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value), f"{at}: {value!r} is no UTC"
            case _:
                assert keyword in NOTES, f"{at}: this test does not know the keyword {keyword}"


def _fits(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> bool:
    try:
        check(value, schema, document)
    except AssertionError:
        return False
    return True
