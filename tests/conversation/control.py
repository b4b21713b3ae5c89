"""A call's control as an agent sees it, by script."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from sipagent.conversation.interfaces import CallFacts, DigitsWanted
from sipagent.core.events import Event, EventSink, ToolCalled, ToolReturned


@dataclass
class Control:
    facts: CallFacts = CallFacts("call_test", "+4930123", "200")
    keys: list[str] = field(default_factory=list)  # what the caller presses when asked, one after the other
    pressed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: list[DigitsWanted] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def events(self) -> EventSink:
        return self

    def emit(self, event: Event) -> None:
        self.told.append(event)

    async def press(self, digits: str) -> None:
        self.pressed.append(digits)

    async def collect(self, wanted: DigitsWanted) -> str:
        """Waits for ever where nothing more is scripted."""
        self.wanted.append(wanted)
        if not self.keys:
            await asyncio.Event().wait()
        return self.keys.pop(0)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    @property
    def calls(self) -> list[ToolCalled]:
        return [event for event in self.told if isinstance(event, ToolCalled)]

    @property
    def outcomes(self) -> list[tuple[str, str, str]]:
        """Name, status and detail of each call that is over."""
        return [(e.name, str(e.status), e.detail) for e in self.told if isinstance(e, ToolReturned)]
