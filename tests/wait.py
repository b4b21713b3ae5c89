"""Waiting for something that other processes bring about."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], T | None], what: str, within_s: float = 30.0) -> T:
    """The condition's first true result; AssertionError that names what did not come."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not (result := condition()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"no {what} within {within_s:g} s")
        await asyncio.sleep(0.05)
    return result
