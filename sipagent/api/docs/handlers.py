"""The page on which the API can be looked through and tried: one file of ours that loads nothing from elsewhere."""

import base64
import hashlib
import re
from pathlib import Path

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.http import read_parameters
from sipagent.api.routing import Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters

PAGE = (Path(__file__).parent / "page.html").read_text("utf-8")


def policy(page: str) -> str:
    """The Content-Security-Policy that lets this page's own script and style run, and nothing else."""
    script, style = (
        base64.b64encode(hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1].encode()).digest())  # type: ignore[index]
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script.decode()}'; style-src 'sha256-{style.decode()}';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


POLICY = policy(PAGE)


class DocsHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        pass

    async def docs_page(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})


ROUTES = (
    Route(
        method="GET",
        path="/api/docs",
        handler=DocsHandlers.docs_page,
        summary="A page to look through this API and try it",
        answers={200: None},
        media="text/html",
        needs_key=False,
        refusals=(422,),
    ),
)
