"""The tools of agents as the dialplan declares them, made once for all calls of a node."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import aiohttp

from sipagent.conversation.tools import digits, python
from sipagent.conversation.tools.guard import Guard
from sipagent.conversation.tools.http import HttpTool, Request, guarded_session
from sipagent.conversation.tools.mcp import McpServer, Server
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.conversation.tools.tool import Company, Tool, object_schema
from sipagent.core.errors import ConfigError

_COLLECT_S = 65.0  # a little more than collecting keys may take at most


class Press(Protocol):
    @property
    def digits(self) -> str: ...


class Definition(Company, Protocol):
    """As in the dialplan."""

    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, dict[str, Any]]: ...
    @property
    def optional(self) -> tuple[str, ...]: ...
    @property
    def http(self) -> Request | None: ...
    @property
    def python(self) -> str: ...
    @property
    def collect(self) -> "digits.Collect | None": ...
    @property
    def press(self) -> Press | None: ...
    @property
    def read_only(self) -> bool | None: ...
    @property
    def timeout_s(self) -> float: ...


class ToolMaker:
    """``environment`` is where `{env:NAME}` is looked up."""

    def __init__(self, settings: ToolSettings, environment: Mapping[str, str]) -> None:
        self._guard = Guard(settings.allow)
        self._environment = environment
        self._session: aiohttp.ClientSession | None = None
        self._servers: dict[str, tuple[Server, McpServer]] = {}
        self._before: dict[str, McpServer] = {}  # as they were before the last reload that changed them

    async def make(
        self, name: str, definitions: Mapping[str, Definition], servers: Mapping[str, Server]
    ) -> Sequence[Tool]:
        """The tools of the agent ``name``. Raises ConfigError or SetupError."""
        tools = [self._tool(tool, definition) for tool, definition in definitions.items()]
        for server_name, spec in servers.items():
            tools += (await self._server(f"{name}/{server_name}", spec)).tools
        known: set[str] = set()
        for tool in tools:
            if tool.name in known:
                raise ConfigError(f"agent {name} has two tools named `{tool.name}`")
            known.add(tool.name)
        return tools

    async def close(self) -> None:
        for server in [*(server for _, server in self._servers.values()), *self._before.values()]:
            await server.close()
        self._servers.clear()
        self._before.clear()
        if self._session is not None:
            await self._session.close()

    async def _server(self, name: str, spec: Server) -> McpServer:
        """A reloaded dialplan may say something else of it; calls that are up keep the one they have."""
        known = self._servers.get(name)
        if known is not None and known[0] == spec:
            return known[1]
        server = McpServer(name, spec, self._guard, self._environment)
        await server.start()
        self._servers[name] = (spec, server)
        if known is not None:
            if (older := self._before.pop(name, None)) is not None:
                await older.close()
            self._before[name] = known[1]
        return server

    def _tool(self, name: str, spec: Definition) -> Tool:
        if spec.http is not None:
            if self._session is None:
                self._session = guarded_session(self._guard)
            request = HttpTool(spec.http, self._session, self._guard, self._environment)
            schema = object_schema(spec.parameters, spec.optional)
            return _made(name, spec, "http", schema, request.work, read_only=spec.http.method == "GET")
        if spec.python:
            function = python.load(spec.python)
            description = spec.description or function.description
            return _made(name, spec, "python", function.schema, function.work, description=description)
        if spec.collect is not None:
            work = digits.collect(name, spec.collect)
            return _made(
                name,
                spec,
                "collect",
                digits.NOTHING,
                work,
                read_only=True,
                ask=spec.collect.ask,
                tells_digits=spec.collect.tell_model,
                timeout_s=_COLLECT_S,
            )
        assert spec.press is not None
        keys = digits.NOTHING if spec.press.digits else digits.KEYS
        return _made(name, spec, "press", keys, digits.press(spec.press.digits))


def _made(
    name: str, spec: Definition, kind: str, schema: dict[str, Any], work: Any, *, read_only: bool = False, **more: Any
) -> Tool:
    given: dict[str, Any] = {"description": spec.description, "timeout_s": spec.timeout_s, **more}
    read_only = spec.read_only if spec.read_only is not None else read_only
    return Tool(name=name, kind=kind, schema=schema, work=work, company=spec, read_only=read_only, **given)
