"""The tools of agents as the dialplan declares them, made once for all calls of a node."""

import asyncio
import logging
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from sipagent.conversation.tools import digits, python
from sipagent.conversation.tools.http import HttpTool, Request, guarded_session
from sipagent.conversation.tools.mcp import McpServer, Server
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.conversation.tools.tool import Company, Tool, object_schema
from sipagent.core.errors import ConfigError
from sipagent.web.guard import Guard

AWAY_S = 5.0  # that a call waits for a server before it goes on without its tools
_COLLECT_S = 65.0  # a little more than collecting keys may take at most

log = logging.getLogger(__name__)


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


@dataclass(slots=True, eq=False)
class _Running:
    """A server, as long as a plan or a call holds one of its tools."""

    name: str
    spec: Server
    server: McpServer
    started: asyncio.Task[None]
    lent: int = 0  # tools that are held


class ToolMaker:
    """``environment`` is where `{env:NAME}` is looked up."""

    def __init__(self, settings: ToolSettings, environment: Mapping[str, str]) -> None:
        self._guard = Guard(settings.allow)
        self._environment = environment
        self._session: aiohttp.ClientSession | None = None
        self._running: list[_Running] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def make(
        self,
        name: str,
        definitions: Mapping[str, Definition],
        servers: Mapping[str, Server],
        away: set[str] | None = None,
    ) -> Sequence[Tool]:
        """The tools of the agent ``name``. With ``away``, a server that does not answer soon is left out, and its name
        added there. Raises ConfigError or SetupError."""
        tools = [self._tool(tool, definition) for tool, definition in definitions.items()]
        for server_name, spec in servers.items():
            tools += await self._of_server(f"{name}/{server_name}", spec, away)
        known: set[str] = set()
        for tool in tools:
            if tool.name in known:
                raise ConfigError(f"agent {name} has two tools named `{tool.name}`")
            known.add(tool.name)
        return tools

    async def close(self) -> None:
        for running in list(self._running):
            self._end(running)
        if self._closing:
            await asyncio.wait(self._closing)
        if self._session is not None:
            await self._session.close()

    async def _of_server(self, name: str, spec: Server, away: set[str] | None) -> Sequence[Tool]:
        running = next((known for known in self._running if known.name == name and known.spec == spec), None)
        if running is None:
            running = self._start(name, spec)
        started = asyncio.shield(running.started)  # others may wait for it too
        if away is None:
            await started
            return self._lend(running)
        try:
            async with asyncio.timeout(AWAY_S):
                await started
        except (ConfigError, TimeoutError) as error:
            log.warning("a call goes on without a tool server", extra={"server": name, "error": str(error)})
            away.add(name)
            return ()
        return self._lend(running)

    def _start(self, name: str, spec: Server) -> _Running:
        server = McpServer(name, spec, self._guard, self._environment)
        running = _Running(name, spec, server, asyncio.create_task(server.start(), name=f"mcp start/{name}"))
        self._running.append(running)

        def done(task: asyncio.Task[None]) -> None:
            if (task.cancelled() or task.exception() is not None) and running in self._running:
                self._running.remove(running)

        running.started.add_done_callback(done)
        return running

    def _lend(self, running: _Running) -> Sequence[Tool]:
        tools, loop = running.server.tools, asyncio.get_running_loop()

        def dropped() -> None:  # in whatever thread collects it
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._given_back, running)

        running.lent += len(tools)
        for tool in tools:
            weakref.finalize(tool.work, dropped).atexit = False
        return tools

    def _given_back(self, running: _Running) -> None:
        running.lent -= 1
        if not running.lent:
            self._end(running)

    def _end(self, running: _Running) -> None:
        if running not in self._running:
            return
        self._running.remove(running)
        running.started.cancel()
        task = asyncio.create_task(running.server.close(), name=f"mcp end/{running.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

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
