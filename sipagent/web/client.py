"""One client for every URL that somebody gave: guarded, and bounded in time, size and redirects."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from sipagent.core.errors import NotAllowed, SipagentError
from sipagent.web.guard import Guard, GuardedConnector

MAX_URL = 2048  # characters
MAX_REDIRECTS = 3
MAX_CONNECTIONS = 64  # at once; further requests wait, which counts to their time
PER_HOST = 16
_KEEPS_METHOD = (307, 308)
_REDIRECTS = (301, 302, 303, *_KEEPS_METHOD)


class WebError(SipagentError):
    """Part of a sentence: why there is no answer. It names neither address nor content, which may be secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


def parse_url(text: str, schemes: tuple[str, ...] = ("http", "https")) -> URL:
    """Raises ValueError with what is wrong with it."""
    if len(text) > MAX_URL:
        raise ValueError(f"is longer than {MAX_URL} characters")
    try:
        url = URL(text)
        host, _ = url.host, url.port
    except ValueError:
        raise ValueError("is no URL") from None
    if url.scheme not in schemes or not host:
        raise ValueError(f"is no URL of the form {schemes[-1]}://…")
    return url


class WebClient:
    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """It leads where the guard lets it, keeps no cookies and asks no proxy."""
        if self._session is None:
            connector = GuardedConnector(self.guard, MAX_CONNECTIONS, PER_HOST)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, max_bytes: int
    ) -> Answer:
        """The answer, whatever its status. A redirect is followed only where it keeps the method. Raises WebError."""
        return await self._ask("POST", url, body, headers, timeout_s, max_bytes)

    async def get(self, url: str, *, timeout_s: float, max_bytes: int) -> Answer:
        """Raises WebError."""
        return await self._ask("GET", url, None, {}, timeout_s, max_bytes)

    async def _ask(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float, max_bytes: int
    ) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(method, parse_url(url), body, headers, max_bytes)
        except TimeoutError:
            raise WebError(f"there was no answer within {timeout_s:g} s") from None
        except NotAllowed as error:
            raise WebError(str(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise WebError(f"the request failed ({_why(error)})") from error

    async def _follow(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str], max_bytes: int
    ) -> Answer:
        """Redirects are followed here, so that each place is looked at before it is asked."""
        for _ in range(MAX_REDIRECTS + 1):
            async with self.session.request(
                method, url, data=body, headers=headers, allow_redirects=False, skip_auto_headers=("User-Agent",)
            ) as response:
                location = response.headers.get("Location", "")
                if response.status not in _REDIRECTS or not location:
                    return Answer(response.status, await _read(response, max_bytes), response.headers.copy())
                if method != "GET" and response.status not in _KEEPS_METHOD:
                    raise WebError(f"the server answered {response.status}: a POST is sent on by 307 or 308 only")
            url = self._next(url, location)
        raise WebError(f"the server sent us elsewhere more than {MAX_REDIRECTS} times")

    def _next(self, url: URL, location: str) -> URL:
        after = url.join(URL(location))
        if after.scheme not in ("http", "https") or (url.scheme, after.scheme) == ("https", "http"):
            raise WebError("the server sent us elsewhere, to where it is not safe")
        return after


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    raw = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        raw += piece
        if len(raw) > max_bytes:
            raise WebError(f"the answer is longer than {max_bytes} bytes")
    return bytes(raw)


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name leads to no address that may be connected to"
    return type(error).__name__
