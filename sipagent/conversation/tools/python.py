"""Tools that are Python functions of an installed package: entry points of the group `sipagent.tools`.

    async def order_status(order: str, call: CallFacts) -> dict[str, str]:
        "Looks up where an order is."

Type hints make the schema of the arguments, the docstring the description. The parameters `call` (CallFacts) and
`digits` (what the caller has pressed, by the tool that collected it) are not the model's to fill in.
"""

import inspect
import typing
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import msgspec

from sipagent.conversation.tools.tool import Circumstances, Schema, as_result
from sipagent.core.errors import ConfigError

GROUP = "sipagent.tools"
_GIVEN = ("call", "digits")


class PythonTool:
    """Raises ConfigError for a function that cannot be a tool."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"the tool `{name}` is no async function: a slow one would hold up every call")
        self._function = function
        self._given = [parameter for parameter in _GIVEN if parameter in inspect.signature(function).parameters]
        self._arguments = _arguments(name, function)
        self.description = inspect.getdoc(function) or ""
        self.schema = _schema(name, self._arguments)

    async def work(self, arguments: dict[str, Any], here: Circumstances) -> str:
        taken = msgspec.convert(arguments, self._arguments)
        given: dict[str, Any] = {"call": here.control.facts, "digits": dict(here.digits)}
        kept = {parameter: given[parameter] for parameter in self._given}
        return as_result(msgspec.to_builtins(await self._function(**msgspec.structs.asdict(taken), **kept)))


def load(name: str) -> PythonTool:
    """The entry point of this name. Raises ConfigError."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
        raise ConfigError(f"no installed package has a tool `{name}` (entry point group {GROUP}); there is: {known}")
    try:
        function = next(iter(found)).load()
    except Exception as error:  # whatever the package's import may raise
        raise ConfigError(f"the tool `{name}` cannot be loaded: {type(error).__name__}: {error}") from error
    return PythonTool(name, function)


def _arguments(name: str, function: Callable[..., Any]) -> type[msgspec.Struct]:
    """The function's own parameters as a struct."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(f"the tool `{name}` has type hints that cannot be resolved: {error}") from error
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in _GIVEN:
            continue
        if parameter.name not in hints or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            raise ConfigError(f"the tool `{name}` needs a type hint for `{parameter.name}`, and no * or **")
        wanted = (parameter.name, hints[parameter.name])
        fields.append(wanted if parameter.default is parameter.empty else (*wanted, parameter.default))
    return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)


def _schema(name: str, arguments: type[msgspec.Struct]) -> Schema:
    try:
        (top,), parts = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    except (TypeError, NotImplementedError) as error:
        raise ConfigError(f"the tool `{name}` has a parameter that JSON cannot carry: {error}") from error
    schema: Schema = parts.pop(arguments.__name__)
    schema.pop("title", None)
    return schema | ({"$defs": parts} if parts else {}) if top else schema
