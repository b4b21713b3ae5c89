"""The tools of one call: what the model asks for is checked, carried out once, and bridged by speech.

    model's call ─► known? ─► fits the schema? ─► not just done? ─► at work ─► result for the model
                      └──────── a sentence for the model ────────┘     └─► phrases for the caller meanwhile

A tool works in a task of its own. When the turn it belongs to is broken off (the caller speaks), one that changes
nothing is cancelled; any other goes on, the agent gets its result, and a note that it is there.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from sipagent.conversation.chat_model import ToolCall, ToolSpec
from sipagent.conversation.interfaces import Asked, CallControl, Text, Working
from sipagent.conversation.tools.tool import MAX_RESULT, Circumstances, Schema, Tool, ToolFailed
from sipagent.core import clock
from sipagent.core.errors import where
from sipagent.core.events import ToolCalled, ToolReturned
from sipagent.core.ids import CallId, ToolCallId, new_tool_call_id
from sipagent.core.states import ToolStatus

MISTAKES = 1  # of the model with one tool in one turn that it may make good
REPEATS = 1  # of one call in one turn that are answered with what is known, and no end made of the tools
SPARE_S = 5.0  # after a tool's own time, for its last phrase and the model's first words
HIDDEN_FROM = 3  # digits: a shorter run of them is in every second answer by chance

_CLOSED = "Use no more tools now: tell the caller in one sentence that this is not possible at the moment."


class WrongArguments(Exception):
    """One sentence for the model, and one for the record without anything of the caller in it."""

    def __init__(self, sentence: str, recorded: str) -> None:
        super().__init__(sentence)
        self.recorded = recorded


def check_arguments(text: str, schema: Schema) -> dict[str, Any]:
    """What the model wrote, as the schema has it. Raises WrongArguments."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise WrongArguments("The arguments are no JSON object.", "the arguments are no JSON") from None
    try:
        # With a registry of its own it does not go and fetch what a `$ref` names.
        error = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    except Unresolvable:
        raise WrongArguments("This tool cannot be used.", "its schema refers to what is not in it") from None
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path) or "they"
        sentence = f"The arguments are wrong: {place}: {error.message[:200]}"
        raise WrongArguments(sentence, f"the arguments do not fit the schema ({error.validator})")
    if not isinstance(value, dict):
        raise WrongArguments("The arguments are no JSON object.", "the arguments are no object")
    return value


@dataclass(eq=False, slots=True)
class _Run:
    """One tool at work."""

    id: ToolCallId
    tool: Tool
    arguments: dict[str, Any]
    key: str
    result: str = ""  # for the model, once it is there
    left: bool = False  # its turn was broken off
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What the model is told of its call."""

    text: str
    read_only: bool = True  # nothing has been changed by it


@dataclass(slots=True)
class TurnTools:
    """What has been done by tools in one turn of the conversation."""

    asked: Asked
    closed: bool = False  # the model had its chances
    mistakes: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    done: dict[str, str] = field(default_factory=dict)


class Toolbox:
    def __init__(
        self, tools: Sequence[Tool], control: CallControl, late: Callable[[Asked, ToolCall, Result], None]
    ) -> None:
        """``late`` is told of what comes when the turn it belongs to has been broken off."""
        self._tools = {tool.name: tool for tool in tools}
        self._control = control
        self._late = late
        self._digits: dict[str, str] = {}
        self._at_work: dict[str, _Run] = {}
        self._broken_off: dict[str, str] = {}  # what was done in turns whose answer was not heard

    @property
    def specs(self) -> list[ToolSpec]:
        return [ToolSpec(tool.name, tool.description, tool.schema) for tool in self._tools.values()]

    def turn(self, asked: Asked) -> TurnTools:
        return TurnTools(asked, done=dict(self._broken_off))

    def answered(self) -> None:
        """The caller has had an answer to what was done: it may be wanted again."""
        self._broken_off.clear()

    async def carry_out(
        self, turn: TurnTools, call: ToolCall, *, spoken: bool
    ) -> AsyncGenerator[Text | Working | Result, None]:
        """What to say meanwhile, and the result at last. ``spoken``: the agent has just said something."""
        tool = self._tools.get(call.name)
        if tool is None:
            yield self.refuse(turn, call, "unknown", f"There is no tool `{call.name[:64]}`.", "there is no such tool")
            return
        try:
            arguments = check_arguments(call.arguments, tool.schema)
        except WrongArguments as error:
            yield self.refuse(turn, call, tool.kind, str(error), error.recorded)
            return
        key = call.name + json.dumps(arguments, sort_keys=True)
        known = turn.done.get(key) or ("It is still at work." if key in self._at_work else "")
        if known:
            yield self._repeated(turn, call, tool, key, known)
            return
        if tool.ask and not spoken:
            yield Text(tool.ask + " ")
        run = _Run(new_tool_call_id(), tool, arguments, key)
        try:
            async for piece in self._bridged(turn, run, call, spoken):
                yield piece
        finally:
            self._leave(run)
        turn.done[key] = run.result
        if not tool.read_only:
            self._broken_off[key] = run.result
        yield Result(run.result, tool.read_only)

    def refuse(self, turn: TurnTools, call: ToolCall, kind: str, sentence: str, recorded: str) -> Result:
        """The model's mistake goes back to it, once."""
        turn.mistakes[call.name] += 1
        if turn.mistakes[call.name] > MISTAKES:
            turn.closed = True
            sentence = f"{sentence} {_CLOSED}"
        tool_call_id = self.called(turn, call, kind)
        self.returned(turn, tool_call_id, call.name, ToolStatus.REFUSED, 0.0, recorded)
        return Result(sentence)

    def _repeated(self, turn: TurnTools, call: ToolCall, tool: Tool, key: str, known: str) -> Result:
        turn.repeats[key] += 1
        turn.closed = turn.closed or turn.repeats[key] > REPEATS
        tool_call_id = self.called(turn, call, tool.kind)
        self.returned(turn, tool_call_id, call.name, ToolStatus.REFUSED, 0.0, "called again with the same arguments")
        return Result(f"You have called this already with the same arguments. {known}" + (_CLOSED * turn.closed))

    async def _bridged(
        self, turn: TurnTools, run: _Run, call: ToolCall, spoken: bool
    ) -> AsyncGenerator[Text | Working, None]:
        tool, company = run.tool, run.tool.company
        self._at_work[run.key] = run
        self.called(turn, call, tool.kind, run.id)
        run.task = self._control.beside(self._work(turn, run, call), f"tool-{tool.name}")
        by_caller = tool.kind == "collect"
        limit_s = tool.timeout_s + SPARE_S
        phrase, pause_s = company.saying, company.saying_after_s
        if spoken:
            phrase, pause_s = company.again, company.again_after_s
        yield Working(limit_s)
        while True:
            await asyncio.wait([run.task], timeout=None if by_caller else pause_s)
            if run.task.done():
                yield Working(0.0)
                return
            if phrase:
                yield Text(phrase + " ")
                yield Working(limit_s)
            phrase, pause_s = company.again, company.again_after_s

    async def _work(self, turn: TurnTools, run: _Run, call: ToolCall) -> None:
        tool, began = run.tool, clock.mono_ns()
        status, detail = ToolStatus.CANCELLED, ""
        run.result = "It was broken off."
        try:
            async with asyncio.timeout(tool.timeout_s):
                answer = await tool.work(run.arguments, Circumstances(self._control, self._digits))
            status, run.result = ToolStatus.OK, self._hidden(answer)
        except TimeoutError:
            status, detail = ToolStatus.TIMEOUT, f"no answer within {tool.timeout_s:g} s"
            unknown = "" if tool.read_only else " Whether it was done is not known: do not say that it was."
            run.result = f"There was no answer in time.{unknown}"
        except ToolFailed as error:
            status, detail = ToolStatus.FAILED, str(error)
            run.result = f"It was not done: {error}. {self._hidden(error.more)}".strip()
        except Exception as error:  # a mistake in somebody's tool
            status, detail = ToolStatus.FAILED, where(error)
            run.result = "It failed by a mistake in the tool."
        finally:
            self._at_work.pop(run.key, None)
            self.returned(turn, run.id, tool.name, status, (clock.mono_ns() - began) / 1e6, detail)
            if run.left and status is not ToolStatus.CANCELLED:
                self._broken_off[run.key] = run.result
                self._late(turn.asked, call, Result(run.result, tool.read_only))
                # Notes are the system's word: what a server wrote does not belong there.
                self._control.note(f"The tool {tool.name}, which you called before, has answered: see its result.")

    def _leave(self, run: _Run) -> None:
        """Its turn is over, whether it is or not."""
        if run.task is None or run.task.done():
            return
        if run.tool.read_only:
            run.task.cancel()
        else:
            run.left = True

    def _hidden(self, text: str) -> str:
        """Without the digits that the model may not see."""
        for name, digits in self._digits.items():
            if len(digits) >= HIDDEN_FROM and not self._tools[name].tells_digits:
                text = text.replace(digits, "(hidden)")
        return text[: MAX_RESULT + 100]

    # --- for the record ---

    def called(self, turn: TurnTools, call: ToolCall, kind: str, tool_call_id: ToolCallId | None = None) -> ToolCallId:
        tool_call_id = tool_call_id or new_tool_call_id()
        self._control.events.emit(
            ToolCalled(
                at=clock.now(),
                call_id=CallId(self._control.facts.call_id),
                tool_call_id=tool_call_id,
                turn_id=turn.asked.turn_id,
                name=_name(call.name),
                kind=kind,
                arguments=call.arguments,
            )
        )
        return tool_call_id

    def returned(
        self, turn: TurnTools, tool_call_id: ToolCallId, name: str, status: ToolStatus, ms: float, detail: str
    ) -> None:
        self._control.events.emit(
            ToolReturned(
                at=clock.now(),
                call_id=CallId(self._control.facts.call_id),
                tool_call_id=tool_call_id,
                name=_name(name),
                status=status,
                ms=ms,
                detail=detail,
            )
        )
        told = {"name": _name(name), "status": str(status), "ms": round(ms, 1)}
        turn.asked.details.setdefault("tools", []).append(told)


def _name(name: str) -> str:
    """A tool's name as the model wrote it: one that was not offered may be any text."""
    return "".join(c for c in name[:64] if c.isascii() and (c.isalnum() or c in "_-")) or "unknown"
