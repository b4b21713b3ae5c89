"""What a dialplan says about the tools of a chat agent, and what may be wrong with it."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from sipagent.core import templates
from sipagent.dialplan.part import Part

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what the chat protocol takes
_FACTS = ("call.id", "call.from", "call.to")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # a token of RFC 9110
_KEYS = re.compile("[0-9*#A-Da-d,]{1,64}")
MAX_TIMEOUT_S = 120.0
MOST_DIGITS = 64
RESERVED = ("end_call", "transfer_call")


class HttpSpec(Part, frozen=True):
    """A request. In `url`, `headers` and `body`, `{name}` is a parameter, `{digits.TOOL}` what a tool collected,
    `{env:NAME}` an environment variable, `{call.id}`, `{call.from}` and `{call.to}` are of the call."""

    url: str  # places to fill in only after the host
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = {}
    body: dict[str, Any] | list[Any] | str | None = None  # a mapping or a list goes as JSON, a text as its Content-Type
    max_bytes: int = 65_536  # a longer answer is refused
    fields: tuple[str, ...] = ()  # of a JSON answer, what the model sees: `order.status`, `items.*.name`; () is all


class CollectSpec(Part, frozen=True):
    """Keys that the caller presses. The model is told that they are there, and not which, unless `tell_model`."""

    ask: str = ""  # said before, where the model said nothing
    least: int = 1
    most: int = 32
    end: str = "#"  # this key ends it and is none of them; "" for none
    first_s: float = 8.0  # until the first key, from the agent's last word on
    between_s: float = 4.0
    tell_model: bool = False


class PressSpec(Part, frozen=True):
    """Keys pressed for the other side."""

    digits: str = ""  # "" leaves it to the model


class ToolSpec(Part, frozen=True):
    """One tool of a chat agent: exactly one of `http`, `python`, `collect` and `press`."""

    description: str = ""  # for the model: what it is for, and when; of `python` the function's own by default
    parameters: dict[str, dict[str, Any]] = {}  # JSON schema of each
    optional: tuple[str, ...] = ()  # parameters that may be left out
    http: HttpSpec | None = None
    python: str = ""  # name of an entry point of the group `sipagent.tools`
    collect: CollectSpec | None = None
    press: PressSpec | None = None
    read_only: bool | None = None  # it changes nothing: may be broken off and repeated; left out: of GET and `collect`
    saying: str = "One moment, please."  # where the agent has said nothing by `saying_after_s`; "" for nothing
    saying_after_s: float = 0.8
    again: str = "I am still waiting for the answer."  # every `again_after_s` after that; "" for nothing
    again_after_s: float = 3.5  # with the phrase's own length, less than 2.5 s of silence
    timeout_s: float = 10.0


class McpSpec(Part, frozen=True):
    """A server of tools by the Model Context Protocol: a program (`command`) or an address (`url`)."""

    command: tuple[str, ...] = ()
    env: dict[str, str] = {}  # for the program, `{env:NAME}` for one of ours; it gets no other but PATH, HOME and such
    url: str = ""  # streamable HTTP
    headers: dict[str, str] = {}
    tools: tuple[str, ...] = ()  # those that the agent may use; () is all
    saying: str = "One moment, please."
    saying_after_s: float = 0.8
    again: str = "I am still waiting for the answer."
    again_after_s: float = 3.5
    timeout_s: float = 10.0


def mistakes(tools: dict[str, ToolSpec], mcp: dict[str, McpSpec]) -> Iterator[tuple[str, str]]:
    """Where, from `tools` or `mcp` on, and one sentence each."""
    collected = {f"digits.{name}" for name, tool in tools.items() if tool.collect is not None}
    for name, tool in tools.items():
        for where, what in _tool(name, tool, collected):
            yield f"tools.{name}{where}", what
    for name, server in mcp.items():
        for where, what in _server(server):
            yield f"mcp.{name}{where}", what


def environment(tools: dict[str, ToolSpec], mcp: dict[str, McpSpec]) -> set[str]:
    """Names of the environment variables that they need."""
    texts: list[str] = []
    for tool in tools.values():
        if tool.http is not None:
            texts += [tool.http.url, *tool.http.headers.values()]
            texts += [tool.http.body] if isinstance(tool.http.body, str) else []
    for server in mcp.values():
        texts += [*server.env.values(), *server.headers.values()]
    used = set[str]().union(*(templates.names(text) for text in texts))
    used |= set[str]().union(*(templates.names_in(t.http.body) for t in tools.values() if t.http is not None))
    return {name.removeprefix("env:") for name in used if name.startswith("env:")}


def _tool(name: str, tool: ToolSpec, collected: set[str]) -> Iterator[tuple[str, str]]:
    if not NAME.fullmatch(name) or name in RESERVED:
        yield "", f"`{name}` cannot be a tool's name: up to 64 letters, digits, _ and -, and none of the agent's own"
    kinds = [tool.http is not None, bool(tool.python), tool.collect is not None, tool.press is not None]
    if sum(kinds) != 1:
        yield "", f"tool `{name}` needs exactly one of `http`, `python`, `collect` and `press`"
    if not tool.description and not tool.python:
        yield "", f"tool `{name}` needs a `description`: it is all that the model knows of it"
    if (tool.python or tool.collect or tool.press) and tool.parameters:
        yield ".parameters", "`parameters` are for `http`: the others have their own"
    for parameter, schema in tool.parameters.items():
        if not re.fullmatch(r"[A-Za-z_]\w{0,63}", parameter):
            yield f".parameters.{parameter}", f"`{parameter}` cannot be a parameter's name"
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            yield f".parameters.{parameter}", f"this is no JSON schema: {error.message[:200]}"
    for parameter in tool.optional:
        if parameter not in tool.parameters:
            yield ".optional", f"no parameter named `{parameter}`"
    yield from _times(tool)
    if tool.http is not None:
        known = {*tool.parameters, *collected, *_FACTS}
        for where, what in _http(tool.http, known):
            yield f".http{where}", what
    if tool.collect is not None:
        yield from _collect(tool.collect)
    if tool.press is not None and tool.press.digits and not _KEYS.fullmatch(tool.press.digits):
        yield ".press.digits", 'the keys to press are 1 to 64 of 0-9, *, #, A-D and a comma, in "…"'


def _times(tool: ToolSpec | McpSpec) -> Iterator[tuple[str, str]]:
    if not 0 < tool.timeout_s <= MAX_TIMEOUT_S:
        yield ".timeout_s", f"`timeout_s` is more than 0 and at most {MAX_TIMEOUT_S:g}"
    if tool.saying_after_s < 0 or tool.again_after_s < 1:
        yield "", "`saying_after_s` is 0 or more, `again_after_s` 1 or more"


def _http(spec: HttpSpec, known: set[str]) -> Iterator[tuple[str, str]]:
    parts = re.fullmatch(r"(https?://)([^/?#{}@\s]+)(/[^\s#]*)?(\?[^\s#]*)?", spec.url)
    if parts is None:
        yield ".url", "`url` is http:// or https://, a host without places to fill in, and a path"
    if not 1 <= spec.max_bytes <= 1 << 20:
        yield ".max_bytes", f"`max_bytes` is 1 to {1 << 20}"
    for header, value in spec.headers.items():
        if not _HEADER.fullmatch(header) or "\n" in value or "\r" in value:
            yield ".headers", f"`{header[:64]}` is no header"
    if spec.method in ("GET", "DELETE") and spec.body is not None:
        yield ".body", f"{spec.method} has no body"
    filled: dict[str, Any] = {"url": spec.url, "headers": spec.headers, "body": spec.body}
    for key, template in filled.items():
        try:
            used = templates.names_in(template)
        except ValueError as error:
            yield f".{key}", str(error)
            continue
        for name in sorted(used - known):
            if not name.startswith("env:") or key == "url":
                yield f".{key}", f"nothing is known by the name `{name}`; there are " + ", ".join(sorted(known))
        if key == "body" and isinstance(template, str) and used and not _can_be_quoted(spec):
            yield (
                ".body",
                "a text with places to fill in is plain text, a form or XML (Content-Type); a mapping is JSON",
            )


def _can_be_quoted(spec: HttpSpec) -> bool:
    kinds = [value for header, value in spec.headers.items() if header.lower() == "content-type"]
    return all(templates.quoting(kind) for kind in kinds)


def _collect(spec: CollectSpec) -> Iterator[tuple[str, str]]:
    if not 1 <= spec.least <= spec.most <= MOST_DIGITS:
        yield ".collect", f"`least` is 1 or more, `most` not below it and at most {MOST_DIGITS}"
    if spec.end and not re.fullmatch("[0-9*#A-D]", spec.end):
        yield ".collect.end", "`end` is one key"
    if not (0 < spec.first_s <= 60 and 0 < spec.between_s <= 60):
        yield ".collect", "`first_s` and `between_s` are more than 0 and at most 60"


def _server(spec: McpSpec) -> Iterator[tuple[str, str]]:
    if bool(spec.command) == bool(spec.url):
        yield "", "a server of tools has either a `command` or a `url`"
    if spec.url and not re.fullmatch(r"https?://[^/?#{}@\s]+(/[^\s{}]*)?", spec.url):
        yield ".url", "`url` is http:// or https://, a host and a path"
    yield from _times(spec)
    for key, texts in (("env", spec.env), ("headers", spec.headers)):
        for text in texts.values():
            try:
                used = templates.names(text)
            except ValueError as error:
                yield f".{key}", str(error)
                continue
            for name in sorted(used):
                if not name.startswith("env:"):
                    yield f".{key}", f"only `{{env:NAME}}` can be filled in here, not `{name}`"
