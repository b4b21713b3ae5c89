"""Servers of tools as the calls of a node share them: at its start, while dialplans change, and when they are away."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from sipagent.brains import Brains
from sipagent.conversation.agents.chat import ChatAgent
from sipagent.conversation.chat_model import Delta, Message, ToolSpec
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.tools import making, mcp
from sipagent.conversation.tools.making import ToolMaker
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.conversation.tools.tool import Circumstances, Tool
from sipagent.core.errors import ConfigError
from sipagent.dialplan.model import AgentSpec, ChatSpec, Dialplan
from sipagent.dialplan.tools import McpSpec
from tests.conversation.control import Control
from tests.wait import until

MARKED = """
import os, runpy, sys
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
sys.argv[1:] = ["stdio"]
runpy.run_module("tests.peers.mcp_server", run_name="__main__")
"""
AWAY = McpSpec(command=(sys.executable, "-c", ""))


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where each server writes its process id."""
    return tmp_path / "marks"


@asynccontextmanager
async def maker() -> AsyncIterator[ToolMaker]:
    made = ToolMaker(ToolSettings(), {})
    try:
        yield made
    finally:
        await made.close()


def marked(marks: Path, **more: Any) -> McpSpec:
    return McpSpec(command=(sys.executable, "-c", MARKED, str(marks)), env={"PYTHONPATH": "."}, **more)


def pids(marks: Path) -> list[int]:
    return [int(line) for line in marks.read_text().split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def opening(tools: Sequence[Tool]) -> str:
    (hours,) = [tool for tool in tools if tool.name == "opening_hours"]
    return await asyncio.wait_for(hours.work({"day": "Monday"}, Circumstances(Control(), {})), 20)


async def test_calls_that_begin_together_share_one_server(marks, monkeypatch):
    monkeypatch.setattr(making, "AWAY_S", 20.0)  # a busy machine takes its time to start one
    monkeypatch.setattr(mcp, "START_S", 20.0)
    async with maker() as tools:
        made = await asyncio.gather(*(tools.make("one", {}, {"tables": marked(marks)}, set()) for _ in range(5)))
        assert [await opening(each) for each in made] == ["On Monday from six to ten."] * 5
        (pid,) = pids(marks)
    assert not alive(pid)


async def test_a_call_goes_on_without_a_server_that_is_away(monkeypatch, marks):
    monkeypatch.setattr(mcp, "START_S", 0.5)
    monkeypatch.setattr(making, "AWAY_S", 0.2)
    async with brains() as (brain, model):
        spec = agent(AWAY)
        assert await offered(brain, model, spec) == {"end_call"}
        with pytest.raises(ConfigError, match="does not answer"):  # which a start or a reload is told
            await brain.prepare([plan_of(spec)])
        monkeypatch.setattr(mcp, "START_S", 20.0)
        monkeypatch.setattr(making, "AWAY_S", 20.0)
        assert "book" in await offered(brain, model, agent(marked(marks)))  # and the next call may have one again


async def test_a_changed_server_stays_while_a_call_holds_it(marks):
    async with maker() as tools:
        held = await tools.make("one", {}, {"tables": marked(marks)})
        for _ in range(2):
            with pytest.raises(ConfigError):
                await tools.make("one", {}, {"tables": marked(marks, tools=("cook",))})
        for seconds in (5.0, 6.0):
            changed = await tools.make("one", {}, {"tables": marked(marks, timeout_s=seconds)})
        assert await opening(held) == await opening(changed) == "On Monday from six to ten."
        first = pids(marks)[0]
        assert alive(first)
        held = []
        gc.collect()
        await until(lambda: not alive(first), "end of the server")
        assert await opening(changed) == "On Monday from six to ten."


async def test_a_refused_reload_leaves_the_plans_as_they_were(marks):
    async with brains() as (brain, model):
        before = agent(marked(marks))
        await brain.prepare([plan_of(before)])
        changed = agent(marked(marks, tools=("slow",)))
        for _ in range(2):
            with pytest.raises(ConfigError):
                await brain.prepare([plan_of(changed, agent(marked(marks, tools=("cook",))))])
        started = pids(marks)
        assert "book" in await offered(brain, model, before)
        assert pids(marks) == started and alive(started[0])


async def test_the_server_of_an_agent_that_is_in_no_dialplan_any_more_ends(marks: Path) -> None:
    async with brains() as (brain, model):
        spec = agent(marked(marks))
        await brain.prepare([plan_of(spec)])
        held = await brain.make("house/agent0", spec, Control(), Ledger())  # of a call that is up
        await brain.prepare([plan_of()])
        [pid] = pids(marks)
        assert alive(pid)
        del held
        gc.collect()
        await until(lambda: not alive(pid), "end of the server")


# --- agents ---------------------------------------------------------------------------------------------------


class Model:
    def __init__(self) -> None:
        self.offered: set[str] = set()

    async def stream(self, _messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        self.offered = {tool.name for tool in tools}
        yield Delta("Good day.")


class Providers:
    def __init__(self, model: Model) -> None:
        self._model = model

    def llm(self, *_: object) -> Model:
        return self._model

    def check(self, *_: object) -> None:
        pass


@asynccontextmanager
async def brains() -> AsyncIterator[tuple[Brains, Model]]:
    model = Model()
    async with aiohttp.ClientSession() as http:
        brain = Brains(cast(Any, None), http, cast(Any, Providers(model)), ToolSettings(), Path("."))
        try:
            yield brain, model
        finally:
            await brain.close()


def agent(server: McpSpec) -> AgentSpec:
    return AgentSpec(greeting="Hello.", llm=("some",), chat=ChatSpec(prompt="A restaurant.", mcp={"tables": server}))


async def offered(brain: Brains, model: Model, spec: AgentSpec) -> set[str]:
    """What the model of a new call is offered."""
    made = await brain.make("house/agent0", spec, Control(), Ledger())
    assert isinstance(made, ChatAgent)
    async for _ in made.respond(Asked("hello", History())):
        pass
    return model.offered


def plan_of(*agents: AgentSpec) -> Dialplan:
    named = {f"agent{number}": each for number, each in enumerate(agents)}
    return Dialplan(name="house", folder=".", routes=[], steps={}, agents=named)
