"""Tools that are functions of installed packages."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import Annotated, Any, Literal

import msgspec
import pytest

from sipagent.conversation.interfaces import CallFacts
from sipagent.conversation.tools import python
from sipagent.conversation.tools.box import WrongArguments, check_arguments
from sipagent.conversation.tools.python import PythonTool
from sipagent.conversation.tools.tool import Circumstances
from sipagent.core.errors import ConfigError
from tests.conversation.control import Control


@dataclass
class Guest:
    name: str
    age: int = 0


async def book(
    day: Literal["Monday", "Friday"],
    guests: Annotated[int, msgspec.Meta(ge=1, le=8)],
    whom: Guest,
    call: CallFacts,
    digits: Mapping[str, str],
    note: str = "",
) -> dict[str, Any]:
    """Books a table."""
    return {"day": day, "guests": guests, "for": whom.name, "by": call.caller, "pin": digits["pin"], "note": note}


async def use(tool: PythonTool, arguments: str) -> str:
    here = Circumstances(Control(), {"pin": "4711"})
    return await tool.work(check_arguments(arguments, tool.schema), here)


async def test_hints_make_the_schema_and_the_call_is_handed_in():
    tool = PythonTool("book", book)
    assert tool.description == "Books a table."
    assert tool.schema["required"] == ["day", "guests", "whom"] and "call" not in tool.schema["properties"]
    answer = await use(tool, '{"day": "Friday", "guests": 2, "whom": {"name": "Ann"}}')
    assert answer == '{"day":"Friday","guests":2,"for":"Ann","by":"+4930123","pin":"4711","note":""}'


@pytest.mark.parametrize(
    "arguments",
    [
        '{"day": "Sunday", "guests": 2, "whom": {"name": "Ann"}}',
        '{"day": "Friday", "guests": 20, "whom": {"name": "Ann"}}',
        '{"day": "Friday", "guests": 2, "whom": {}}',
        '{"day": "Friday", "guests": 2, "whom": {"name": "Ann"}, "call": {}}',
        '{"guests": 2}',
    ],
)
async def test_arguments_that_do_not_fit(arguments):
    with pytest.raises(WrongArguments):
        await use(PythonTool("book", book), arguments)


def test_functions_that_cannot_be_tools():
    def slow(day: str) -> str:
        return day

    async def bare(day) -> str:
        return str(day)

    async def many(*days: str) -> str:
        return days[0]

    async def odd(what: object) -> str:
        return str(what)

    for function, complaint in ((slow, "no async function"), (bare, "type hint"), (many, "type hint")):
        with pytest.raises(ConfigError, match=complaint):
            PythonTool("x", function)
    with pytest.raises(ConfigError, match="JSON cannot carry"):
        PythonTool("x", odd)


def test_entry_points(monkeypatch):
    known = EntryPoints(
        [
            EntryPoint("book", "tests.conversation.test_python_tools:book", python.GROUP),
            EntryPoint("gone", "tests.conversation.nowhere:book", python.GROUP),
        ]
    )
    monkeypatch.setattr(python, "entry_points", lambda **wanted: known.select(**wanted))
    assert python.load("book").description == "Books a table."
    with pytest.raises(ConfigError, match="there is: book, gone"):
        python.load("cook")
    with pytest.raises(ConfigError, match="cannot be loaded: ModuleNotFoundError"):
        python.load("gone")
