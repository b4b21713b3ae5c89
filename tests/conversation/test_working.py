"""An agent that says that it takes a while: what came before is spoken, and nobody else fills the silence."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sipagent.conversation.interfaces import Asked, Piece, Text, Working
from tests.conversation.scenario import Echo, Scene


class Busy(Echo):
    """Speaks, works until told, speaks again."""

    def __init__(self, *, says_so: bool) -> None:
        super().__init__()
        self.says_so = says_so
        self.done = asyncio.Event()

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        asked.details["tools"] = ["one"]
        yield Text("Enter your number now")  # without an end: only `Working` tells that this is all for now
        if self.says_so:
            yield Working(60)
        await self.done.wait()
        if self.says_so:
            yield Working(0)
        yield Text(" Thank you.")


@pytest.mark.parametrize("says_so", [True, False])
async def test_the_silence_of_an_agent_at_work_is_its_own(says_so):
    agent = Busy(says_so=says_so)
    scene = Scene(agent, ["hello"])
    await scene.until_quiet()
    await scene.says()
    await scene.run(8.0)
    spoken = [text for text in scene.voice.made if text != "Hello."]
    if says_so:
        assert spoken == ["Enter your number now"]
    else:
        assert spoken and "Enter your number now" not in spoken  # what keeps the line alive
    agent.done.set()
    await scene.run(4.0)
    await scene.until_quiet()
    assert "Thank you." in scene.voice.made[-1]
    if says_so:
        assert scene.turns()[-1].details["tools"] == ["one"] and scene.turns()[-1].agent_text.endswith("Thank you.")
    await scene.end()


async def test_silence_counts_again_once_the_work_is_done():
    agent = Busy(says_so=True)
    slow = asyncio.Event()

    async def respond(asked: Asked) -> AsyncIterator[Piece]:
        yield Working(60)
        yield Working(0)
        await slow.wait()
        yield Text("Here it is.")

    agent.respond = respond  # type: ignore[method-assign]
    scene = Scene(agent, ["hello"])
    await scene.until_quiet()
    await scene.says()
    await scene.run(4.0)
    assert len(scene.voice.made) > 1  # a filler
    slow.set()
    await scene.run(4.0)
    await scene.until_quiet()
    assert scene.voice.made[-1] == "Here it is."
    await scene.end()
