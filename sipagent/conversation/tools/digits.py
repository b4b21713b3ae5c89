"""Tools of the keypad: what the caller presses, and what is pressed for the other side."""

from typing import Any, Protocol

from sipagent.conversation.interfaces import DigitsWanted
from sipagent.conversation.tools.tool import Circumstances, Schema, ToolFailed, Work, object_schema
from sipagent.core.errors import SipagentError

NOTHING: Schema = object_schema({})
KEYS: Schema = object_schema(
    {"digits": {"type": "string", "pattern": "^[0-9*#A-Da-d,]{1,64}$", "description": "a comma is a pause"}}
)


class Collect(Protocol):
    """As in the dialplan."""

    @property
    def ask(self) -> str: ...
    @property
    def least(self) -> int: ...
    @property
    def most(self) -> int: ...
    @property
    def end(self) -> str: ...
    @property
    def first_s(self) -> float: ...
    @property
    def between_s(self) -> float: ...
    @property
    def tell_model(self) -> bool: ...


def collect(name: str, spec: Collect) -> Work:
    """Keeps what the caller presses under the tool's name; the model learns how many keys, or which if it may."""
    wanted = DigitsWanted(
        least=spec.least, most=spec.most, end=spec.end, first_s=spec.first_s, between_s=spec.between_s
    )

    async def work(_arguments: dict[str, Any], here: Circumstances) -> str:
        here.digits.pop(name, None)
        digits = await here.control.collect(wanted)
        if len(digits) < spec.least:
            raise ToolFailed(
                "the caller pressed nothing" if not digits else f"the caller pressed only {len(digits)} of {spec.least}"
            )
        here.digits[name] = digits
        return (
            f"The caller pressed {digits}." if spec.tell_model else f"Collected: {len(digits)} digits, kept from you."
        )

    return work


def press(fixed: str) -> Work:
    async def work(arguments: dict[str, Any], here: Circumstances) -> str:
        try:
            await here.control.press(fixed or str(arguments["digits"]))
        except (SipagentError, ValueError) as error:
            raise ToolFailed("the other side does not take keys") from error
        return "Pressed."

    return work
