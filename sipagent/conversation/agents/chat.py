"""An agent led by a chat model; the model may end the call or transfer it by calling a tool."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from sipagent.conversation.chat_model import ChatModel, Delta, Message, ToolCall, ToolSpec
from sipagent.conversation.interfaces import Asked, EndCall, Expecting, Piece, Text, TransferPlan, plan_of

_ROLES = {"caller": "user", "agent": "assistant", "note": "system"}

_STYLE = (
    "You are speaking on the telephone. Answer in one or two short spoken sentences, without lists, symbols or markup."
)


LONGEST_SUMMARY = 400  # characters; some 25 s of speech


class ChatAgent:
    """The agent of one call. Its only memory is the history of what was heard, so it has nothing to roll back."""

    intent = ""
    expecting = Expecting.ANYTHING

    def __init__(
        self, model: ChatModel, prompt: str, greeting: str, transfer_targets: Mapping[str, str | TransferPlan]
    ) -> None:
        self._model = model
        self._system = f"{prompt}\n\n{_STYLE}\n\nThe call was opened with: {greeting}"
        self._targets = transfer_targets
        self._tools = [
            ToolSpec(
                name="end_call",
                description="Hang up, after you have said goodbye.",
                parameters={"type": "object", "properties": {}},
            )
        ]
        if transfer_targets:
            self._tools.append(
                ToolSpec(
                    name="transfer_call",
                    description="Send the caller to somebody else, after you have said so.",
                    parameters={
                        "type": "object",
                        "properties": {
                            "target": {"type": "string", "enum": sorted(transfer_targets)},
                            "summary": {"type": "string"},
                        },
                        "required": ["target"],
                    },
                )
            )

    def checkpoint(self) -> object:
        return None

    def rollback(self, state: object) -> None:
        pass

    async def respond(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        messages = [Message("system", self._system)]
        for entry in asked.history.entries:
            messages.append(Message(_ROLES[entry.speaker], entry.text))
        messages.append(Message("user", asked.text))
        action: Piece | None = None
        spoken = False
        async for part in self._model.stream(messages, self._tools):
            match part:
                case Delta(text=text) if text:
                    spoken = spoken or bool(text.strip())
                    yield Text(text)
                case ToolCall(name="end_call"):
                    action = EndCall()
                case ToolCall(name="transfer_call", arguments=text):
                    arguments = _arguments(text)
                    target = self._targets.get(str(arguments.get("target", "")))
                    if target is not None:
                        action = plan_of(target, str(arguments.get("summary", ""))[:LONGEST_SUMMARY])
                case _:
                    pass  # a tool we did not offer: models do that; the words, if any, stand for themselves
        if action is not None:
            if not spoken:
                yield Text("Goodbye." if isinstance(action, EndCall) else "One moment, I will put you through.")
            yield action


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
