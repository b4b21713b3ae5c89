"""Tools of servers that speak the Model Context Protocol, by a program's standard input and output or by HTTP.

One connection a server, kept by a task of its own and shared by all calls; a broken one is made anew.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from sipagent.conversation.tools.tool import Circumstances, Company, Tool, ToolFailed, Work, as_result
from sipagent.core import templates
from sipagent.core.errors import ConfigError, SetupError, where
from sipagent.web.guard import Guard

if TYPE_CHECKING:
    import mcp

START_S = 20.0  # to connect and to say which tools there are; a program may have to load much
RETRY_S = 1.0  # after a connection broke; doubled up to RETRY_MOST_S
RETRY_MOST_S = 30.0
MAX_TOOLS = 64  # of one server
MAX_DESCRIPTION = 1_000  # characters of it that the model is given

log = logging.getLogger(__name__)


class Server(Company, Protocol):
    """As in the dialplan."""

    @property
    def command(self) -> Sequence[str]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def tools(self) -> Sequence[str]: ...
    @property
    def timeout_s(self) -> float: ...


class McpServer:
    def __init__(self, name: str, spec: Server, guard: Guard, environment: Mapping[str, str]) -> None:
        self._name = name
        self._spec = spec
        self._guard = guard
        self._secrets = {f"env:{key}": value for key, value in environment.items()}
        self._client: mcp.Client | None = None
        self._up = asyncio.Event()
        self._broken = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._error = ""  # why the last try to connect failed
        self._tools: list[mcp.types.Tool] = []

    @property
    def tools(self) -> list[Tool]:
        """Made anew each time, so that each asker holds its own."""
        return [self._tool(offered) for offered in self._tools]

    async def start(self) -> None:
        """Connects and asks for the tools. Raises SetupError without the package, ConfigError for all else."""
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise SetupError(f"the tool server {self._name} needs a package: pip install 'sipagent[mcp]'") from None
        self._keeper = asyncio.create_task(self._keep(), name=f"mcp/{self._name}")
        try:
            async with asyncio.timeout(START_S):
                await self._up.wait()
                assert self._client is not None
                self._tools = await self._offered(self._client)
        except TimeoutError:
            await self.close()
            raise ConfigError(
                f"the tool server {self._name} does not answer: {self._error or 'no word from it'}"
            ) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _keep(self) -> None:
        """Connects, and again whenever the connection breaks."""
        import mcp

        pause = RETRY_S
        while True:
            try:
                async with self._transport() as transport, mcp.Client(transport, cache=None) as client:
                    self._client, pause = client, RETRY_S
                    self._up.set()
                    await self._broken.wait()
            except Exception as error:  # whatever a transport may raise, often in groups
                self._error = where(error)
                log.warning("a tool server is away", extra={"server": self._name, "error": self._error})
            finally:
                self._client = None
                self._up.clear()
                self._broken.clear()
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MOST_S)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        from mcp import StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client

        from sipagent.conversation.tools.mcp_http import guarded_client

        async with AsyncExitStack() as stack:
            if self._spec.command:
                program, *arguments = self._spec.command
                env = {name: templates.fill(text, self._secrets) for name, text in self._spec.env.items()}
                quiet = stack.enter_context(_nowhere())  # what it complains of may be of a caller
                yield stdio_client(StdioServerParameters(command=program, args=arguments, env=env), errlog=quiet)
                return
            await self._guard.addresses(urlsplit(self._spec.url).hostname or "")  # said plainly before it is asked
            headers = {name: templates.fill(text, self._secrets) for name, text in self._spec.headers.items()}
            client = await stack.enter_async_context(guarded_client(self._guard, headers))
            yield streamable_http_client(self._spec.url, http_client=client)

    async def _offered(self, client: "mcp.Client") -> "list[mcp.types.Tool]":
        found: list[mcp.types.Tool] = []
        cursor: str | None = None
        while True:
            page = await client.list_tools(cursor=cursor)
            for offered in page.tools:
                if not self._spec.tools or offered.name in self._spec.tools:
                    self._check_schema(offered)
                    found.append(offered)
            cursor = page.next_cursor
            if not cursor or len(found) > MAX_TOOLS:
                break
        if len(found) > MAX_TOOLS:
            raise ConfigError(f"the tool server {self._name} has more than {MAX_TOOLS} tools: name some in `tools`")
        for wanted in self._spec.tools:
            if all(tool.name != wanted for tool in found):
                raise ConfigError(f"the tool server {self._name} has no tool `{wanted}`")
        return found

    def _check_schema(self, offered: "mcp.types.Tool") -> None:
        try:
            Draft202012Validator.check_schema(offered.input_schema)
        except SchemaError as error:
            raise ConfigError(f"the tool server {self._name}: `{offered.name}` has no valid schema") from error

    def _tool(self, offered: "mcp.types.Tool") -> Tool:
        hints = offered.annotations
        return Tool(
            name=offered.name,
            description=(offered.description or offered.name)[:MAX_DESCRIPTION],
            schema=offered.input_schema,
            kind="mcp",
            work=self._work(offered.name),
            company=self._spec,
            timeout_s=self._spec.timeout_s,
            read_only=hints is not None and bool(hints.read_only_hint),
        )

    def _work(self, tool: str) -> Work:
        async def work(arguments: dict[str, Any], _here: Circumstances) -> str:
            return await self._call(tool, arguments)

        return work

    async def _call(self, tool: str, arguments: dict[str, Any]) -> str:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        await self._up.wait()  # at most for the tool's time
        client = self._client
        assert client is not None
        try:
            result = await client.call_tool(tool, arguments)
        except Exception as error:  # whatever a broken transport raises
            if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
                raise ToolFailed(f"the server refused it ({error.code})") from error
            self._up.clear()
            self._broken.set()
            raise ToolFailed("the connection to the server broke") from error
        texts = [part.text for part in result.content if part.type == "text"]
        if result.is_error:
            raise ToolFailed("the server answered with an error", as_result(" ".join(texts))[:400])
        if texts or result.structured_content is None:
            return as_result("\n".join(texts))
        return as_result(result.structured_content)


def _nowhere() -> TextIO:
    return open(os.devnull, "w")
