"""What the vendors' protocols have in common: refusals, broken connections, audio as bytes."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import numpy as np

from sipagent.conversation.interfaces import Pcm
from sipagent.core.errors import ProviderError

CONNECT_S = 3.0
BETWEEN_READS_S = 10.0  # behind the limits of the race, which are shorter
LONGEST_AUDIO_S = 60  # of one clause; a voice that does not stop is stopped
MAX_BODY = 1 << 18
_RETRYABLE = {408, 409, 425, 429}

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=BETWEEN_READS_S)


def refusal(status: int) -> ProviderError:
    """A response that is no answer."""
    return ProviderError(
        f"answered {status}" + ("" if status >= 500 or status in _RETRYABLE else ": check base_url, model and key"),
        retryable=status >= 500 or status in _RETRYABLE,
    )


@contextmanager
def failing() -> Iterator[None]:
    """Whatever goes wrong between us and a vendor, as ProviderError; the words of neither are in it."""
    try:
        yield
    except aiohttp.WSServerHandshakeError as error:
        raise refusal(error.status) from error
    except (
        aiohttp.ClientError,
        TimeoutError,
        ConnectionError,
        asyncio.IncompleteReadError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
    ) as error:  # the last five: an answer of another shape than the protocol's
        raise ProviderError(f"failed ({type(error).__name__})", retryable=True) from error


async def read_json(response: aiohttp.ClientResponse) -> Any:
    """The body, which must be JSON and no longer than any answer is. Raises ValueError and ProviderError."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > MAX_BODY:
            raise ProviderError("sent far more than an answer", retryable=True)
    return json.loads(body)


class Samples:
    """16-bit little-endian audio that comes in pieces which may end in the middle of a sample."""

    def __init__(self, rate: int) -> None:
        self._odd = b""
        self._left = LONGEST_AUDIO_S * rate

    @property
    def too_long(self) -> bool:
        return self._left <= 0

    def push(self, data: bytes) -> Pcm:
        data = self._odd + data
        whole = len(data) & ~1
        self._odd = data[whole:]
        self._left -= whole // 2
        return np.frombuffer(data[:whole], "<i2").astype(np.int16)
