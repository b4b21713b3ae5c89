"""Streams of pieces that are made as they are asked for: the answer of an agent, the audio of a voice."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

Item = TypeVar("Item")


@asynccontextmanager
async def closing(stream: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """Whoever makes the stream stops at the end of the block, not when it is next collected as garbage."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)  # generators have it, other iterators need not
        if close is not None:
            await close()


async def all_of(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item
