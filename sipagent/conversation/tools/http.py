"""Tools that are a request to a web server, as the dialplan declares it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from yarl import URL

from sipagent.conversation.tools.tool import Circumstances, ToolFailed, as_result
from sipagent.core import templates
from sipagent.core.errors import NotAllowed
from sipagent.web.guard import Guard, GuardedConnector

MAX_REDIRECTS = 3
MAX_LIST = 50  # elements of a list that the model sees
_REDIRECTS = {301, 302, 303, 307, 308}
_KEEP_BODY = {307, 308}


class Request(Protocol):
    """As in the dialplan."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> dict[str, Any] | list[Any] | str | None: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def fields(self) -> Sequence[str]: ...


def guarded_session(guard: Guard) -> aiohttp.ClientSession:
    """For all tools of a node. It keeps no cookies: they would lead from one caller's data to another's."""
    return aiohttp.ClientSession(connector=GuardedConnector(guard, 64), cookie_jar=aiohttp.DummyCookieJar())


class HttpTool:
    def __init__(
        self, request: Request, session: aiohttp.ClientSession, guard: Guard, environment: Mapping[str, str]
    ) -> None:
        self._request = request
        self._session = session
        self._guard = guard
        self._secrets = {f"env:{name}": value for name, value in environment.items()}

    async def work(self, arguments: dict[str, Any], here: Circumstances) -> str:
        """The answer, or the fields of it that the model may see. Raises ToolFailed."""
        values = arguments | here.facts
        for name in templates.names_in([self._request.url, self._request.body, dict(self._request.headers)]):
            if name.startswith("digits.") and name not in values:
                raise ToolFailed(f"`{name.removeprefix('digits.')}` has to be collected from the caller first")
        optional = dict.fromkeys(templates.names_in([self._request.url, dict(self._request.headers)]), "")
        known = optional | values | self._secrets
        url = _filled_url(self._request.url, known)
        headers = {name: templates.fill(text, known) for name, text in self._request.headers.items()}
        if any("\r" in text or "\n" in text or "\0" in text for text in headers.values()):
            raise ToolFailed("a value for a header has a line break in it")
        try:
            return await self._follow(url, headers, self._body(values | self._secrets, headers))
        except NotAllowed as error:
            raise ToolFailed(str(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ToolFailed(f"the request failed ({type(error).__name__})") from error

    def _body(self, values: Mapping[str, Any], headers: dict[str, str]) -> bytes | None:
        body = self._request.body
        if body is None:
            return None
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        known = dict.fromkeys(templates.names_in(body)) | dict(values)
        if not isinstance(body, str):
            return json.dumps(templates.fill_in(body, known)).encode()
        quoted = templates.quoting(next(text for name, text in headers.items() if name.lower() == "content-type"))
        if quoted is None and templates.names(body):
            raise ToolFailed("the dialplan has places to fill in where it is not known how")
        return templates.fill(body, known, quoted or str).encode()

    async def _follow(self, url: URL, headers: dict[str, str], body: bytes | None) -> str:
        """Redirects are followed here, so that each place is looked at before it is asked."""
        method, origin = self._request.method, url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            self._guard.check_literal(url.host or "")
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, skip_auto_headers=("User-Agent",)
            ) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response)
                place = URL(response.headers.get("Location", ""), encoded=True)
                status = response.status
            after = url.join(place)
            if after.scheme not in ("http", "https") or (url.scheme, after.scheme) == ("https", "http"):
                raise ToolFailed("the server sent us elsewhere, to where it is not safe")
            if after.origin() != origin:  # secrets and the caller's data are for whom the dialplan names
                if body is not None and status in _KEEP_BODY:
                    raise ToolFailed("the server sent the request elsewhere, to another host")
                headers = {name: value for name, value in headers.items() if name.lower() == "accept"}
            if status not in _KEEP_BODY and method != "GET":
                method, body = "GET", None
                headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
            url = after
        raise ToolFailed("the server sent us elsewhere too many times")

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        if response.status >= 400:
            raise ToolFailed(f"the server answered {response.status}")
        raw = bytearray()
        async for piece in response.content.iter_chunked(16_384):
            raw += piece
            if len(raw) > self._request.max_bytes:
                raise ToolFailed("the server's answer is too large")
        text = raw.decode("utf-8", "replace")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            if self._request.fields:
                raise ToolFailed("the server's answer is no JSON") from None
            return as_result(text)
        if not self._request.fields:
            return as_result(value)
        return as_result({field: select(value, field.split(".")) for field in self._request.fields})


def _filled_url(template: str, known: Mapping[str, Any]) -> URL:
    """Raises ToolFailed where a value would lead to another path than the dialplan's."""
    path = re.split(r"[?#]", template, maxsplit=1)[0]
    for segment in path.split("/"):
        if not templates.names(segment):
            continue
        filled = templates.fill(segment, known)
        # Servers there are that decode first and look for slashes then.
        if not filled or not {".", ".."}.isdisjoint(re.split(r"[/\\]", filled)):
            raise ToolFailed("a value for the address is empty, or leads out of its place there")
    return URL(templates.fill(template, known, lambda text: quote(text, safe="")), encoded=True)


def select(value: Any, path: Sequence[str]) -> Any:
    """What a path leads to: keys, indexes, `*` for each of a list; None where it leads nowhere.

    >>> select({"items": [{"name": "tea", "secret": 1}, {"name": "jam"}]}, ["items", "*", "name"])
    ['tea', 'jam']
    """
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(value, dict):
        return select(value.get(head), rest) if head in value else None
    if isinstance(value, list):
        if head == "*":
            return [select(item, rest) for item in value[:MAX_LIST]]
        if head.isdecimal() and int(head) < len(value):
            return select(value[int(head)], rest)
    return None
