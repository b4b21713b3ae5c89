"""The HTTP server: routes, keys, limits, start and stop."""

import asyncio
import logging
import re
import ssl
from functools import partial

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sipagent.api.auth import Gate
from sipagent.api.backend import Backend
from sipagent.api.errors import Handler, classify, in_one_shape
from sipagent.api.events.stream import EventStreams
from sipagent.api.metrics.figures import Figures
from sipagent.api.openapi import document
from sipagent.api.routes import ROUTES, TOPICS
from sipagent.api.routing import Route
from sipagent.api.settings import ApiSettings
from sipagent.api.shared import KEY_ID, Shared
from sipagent.core.clock import mono_ns
from sipagent.core.errors import SetupError
from sipagent.core.events import EventHub

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
MAX_PATH = 256  # characters of it in an audit row
# At close, requests under way get this long; a client that reads nothing gets no longer.
MAX_LINE = 65_536  # bytes: parameters that are lawful take more than aiohttp's 8 KiB once they are percent-encoded
SHUTDOWN_S = 2.0


class _NoStrangersWords(logging.Filter):
    """What aiohttp logs of requests it cannot parse quotes them, and anyone can send some: the 400 is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            return False
        record.error = type(error).__name__
        record.msg, record.args, record.exc_info = "http connection failed", (), None
        return True


_connection_log = logging.getLogger("sipagent.api.connection")
_connection_log.addFilter(_NoStrangersWords())


class ApiServer:
    """Serves the node `backend` and the events of `hub`. `start()` and `close()` once each, on one event loop."""

    def __init__(self, settings: ApiSettings, backend: Backend, hub: EventHub) -> None:
        self._settings = settings
        self._gate = Gate(settings.key_hashes, backend.access, settings.rate_per_s)
        self._streams = EventStreams(
            hub, self._gate.holds, heartbeat_s=settings.heartbeat_s, max_clients=settings.max_streams
        )
        figures = Figures(backend.node)
        hub.subscribe(figures.count)
        openapi = msgspec.json.encode(document(ROUTES))
        self._shared = Shared(self._gate, self._streams, figures, openapi, backend.access, settings.public_url)
        self._backend = backend
        self._access = backend.access
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where the server listens, without a trailing slash; paths begin with ``/api/v1``."""
        host = self._settings.host
        scheme = "https" if self._settings.tls_certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[in_one_shape, self._no_way_past])
        for topic in TOPICS:
            handlers = topic.handlers(self._backend, self._shared)
            for route in topic.routes:
                serve = self._serving(route, partial(route.handler, handlers))
                path = only_its_own(route.path)
                if route.method == "GET" and not route.streams:
                    app.router.add_get(path, serve)  # and HEAD, which some health checks send
                else:
                    app.router.add_route(route.method, path, serve)
        app.on_response_prepare.append(_set_headers)
        app.on_shutdown.append(self._end_streams)
        return app

    async def start(self) -> None:
        """Listen. Raises SetupError when the address or the certificate cannot be had."""
        if not self._settings.key_hashes:
            log.warning("the API has no key: nobody can use it; make one with `sipagent key create`")
        tls = tls_context(self._settings)
        # no access log: URLs of lists hold numbers
        self._runner = web.AppRunner(
            self.application(),
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            logger=_connection_log,
            max_line_size=MAX_LINE,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            where = f"{self._settings.host}:{self._settings.port}"
            raise SetupError(
                f"the API cannot listen on {where} ({error.strerror}): change [api] host or port"
            ) from error
        self._port = self._runner.addresses[0][1]
        log.info("api listens", extra={"host": self._settings.host, "port": self._port})

    async def close(self) -> None:
        """End event streams and stop listening; requests under way get 2 s."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def _serving(self, route: Route, handler: Handler) -> Handler:
        """The route's handler behind its key and its time limit."""

        async def serve(request: web.Request) -> web.StreamResponse:
            began = mono_ns()
            grant = self._gate.check(request, route.scope, basic=route.basic) if route.needs_key else None
            if grant is not None:
                request[KEY_ID] = grant.key_id
            limit = None if route.streams else self._settings.request_timeout_s
            status = 500
            try:
                async with asyncio.timeout(limit):
                    response = await handler(request)
                status = response.status
            except Exception as error:
                known = classify(error)
                status = known.status if known is not None else 500
                raise
            finally:
                if grant is not None and route.scope != "read":
                    self._access.audit(grant.key_id, route.handler.__name__, request.path[:MAX_PATH], status)
            # the route's pattern, not its path or query: those hold ids and numbers
            took_ms = round((mono_ns() - began) / 1e6, 1)
            log.debug("api request", extra={"route": route.path, "status": response.status, "took_ms": took_ms})
            return response

        return serve

    @web.middleware
    async def _no_way_past(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Paths and methods that do not exist under /api are told only to those with a key."""
        if request.match_info.http_exception is not None and request.path.startswith("/api"):
            self._gate.check(request)
        return await handler(request)

    async def _end_streams(self, _app: web.Application) -> None:
        self._streams.close()


def only_its_own(path: str) -> str:
    """The route's path for aiohttp: a parameter at its end is none of the words that other routes have there."""
    before, parameter, rest = path.rpartition("/{")
    if not parameter:
        return path
    words = [route.path.removeprefix(f"{before}/") for route in ROUTES if route.path.startswith(f"{before}/")]
    taken = "|".join(re.escape(word) for word in words if "/" not in word and "{" not in word)
    return f"{before}/{{{rest[:-1]}:(?!(?:{taken})$)[^{{}}/]+}}" if taken and rest.endswith("}") else path


def tls_context(settings: ApiSettings) -> ssl.SSLContext | None:
    """None for a server without TLS. Raises SetupError."""
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"the API's certificate or key cannot be used ({error.strerror or error}): look at [api] tls_certificate"
            " and tls_key"
        ) from error
    return context


async def _set_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "sipagent"  # not which versions of what to attack
    response.headers["Cache-Control"] = "no-store"  # answers hold numbers and words of calls
    response.headers["X-Content-Type-Options"] = "nosniff"
