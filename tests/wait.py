"""Waiting for something that other processes bring about."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    condition: Callable[[], T] | Callable[[], Awaitable[T]], what: str, within_s: float = 10.0, every_s: float = 0.05
) -> T:
    """The first true result of a plain or async condition; AssertionError that names what did not come."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result  # type: ignore[return-value]
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"no {what} within {within_s} s")
        await asyncio.sleep(every_s)
