"""A tool as the agent sees it, whatever it does and wherever it runs."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sipagent.conversation.interfaces import CallControl
from sipagent.core.errors import SipagentError
from sipagent.core.text import storable

MAX_RESULT = 4_000  # characters of an answer that the model is given; the rest of a longer one is cut off
Schema = dict[str, Any]


class ToolFailed(SipagentError):
    """Part of a sentence for model and record, without the call's words and digits; ``more`` is for the model alone."""

    def __init__(self, sentence: str, more: str = "") -> None:
        super().__init__(sentence)
        self.more = more


class Company(Protocol):
    """How the caller is kept company while a tool works."""

    @property
    def saying(self) -> str: ...  # where nothing has been said by `saying_after_s`; "" for nothing
    @property
    def saying_after_s(self) -> float: ...
    @property
    def again(self) -> str: ...  # every `again_after_s` after that
    @property
    def again_after_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a tool finds in the call it is used in."""

    control: CallControl
    digits: dict[str, str]  # what the caller has pressed, by the tool that collected it

    @property
    def facts(self) -> dict[str, str]:
        """What a template may name."""
        facts = self.control.facts
        known = {"call.id": facts.call_id, "call.from": facts.caller, "call.to": facts.called}
        return known | {f"digits.{name}": digits for name, digits in self.digits.items()}


Work = Callable[[dict[str, Any], Circumstances], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    description: str
    schema: Schema  # of the arguments: an object
    kind: str  # "http", "python", "mcp", "collect" or "press"
    work: Work  # raises ToolFailed; anything else it raises is a mistake in the tool
    company: Company
    timeout_s: float
    read_only: bool  # it changes nothing: may be broken off, and repeated
    tells_digits: bool = False  # of `collect`: the model may know which
    ask: str = ""  # of one that waits for the caller: what to say before, where nothing was said


def as_result(value: Any) -> str:
    """What a tool returned, for the model."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolFailed("its answer cannot be told: it is no JSON value") from error
    text = storable(text)
    return text if len(text) <= MAX_RESULT else text[:MAX_RESULT] + " (cut off here)"


def object_schema(properties: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}
