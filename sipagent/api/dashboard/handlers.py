"""Serves the dashboard's files. They hold no data: the page asks the API, with the key that is entered in it."""

from pathlib import Path

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError
from sipagent.api.routing import Route
from sipagent.api.shared import Shared

_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Callers choose what their From says: whatever of it went wrong in a script, nothing but our own files runs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class DashboardHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        folder = Path(__file__).parent / "assets"
        self._files = {
            file.name: (file.read_bytes(), _MEDIA[file.suffix]) for file in folder.iterdir() if file.suffix in _MEDIA
        }

    async def page(self, request: web.Request) -> web.Response:
        return self._file("index.html")

    async def asset(self, request: web.Request) -> web.Response:
        return self._file(request.match_info["file"])

    def _file(self, name: str) -> web.Response:
        if name not in self._files:
            raise ApiError(404, "there is nothing at this path")
        body, media = self._files[name]
        return web.Response(body=body, content_type=media, charset="utf-8", headers=HEADERS)


ROUTES = (
    Route(
        method="GET",
        path="/",
        handler=DashboardHandlers.page,
        summary="The dashboard",
        answers={200: None},
        needs_key=False,
        described=False,
    ),
    Route(
        method="GET",
        path="/dashboard/{file}",
        handler=DashboardHandlers.asset,
        summary="A file of the dashboard",
        answers={200: None},
        needs_key=False,
        described=False,
    ),
)
