"""What all topics share on one server."""

from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web
from yarl import URL

from sipagent.api.auth import Gate
from sipagent.api.events.stream import EventStreams
from sipagent.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from sipagent.api.idempotency import Answer, IdempotencyTable, KeptAnswers
from sipagent.api.metrics.figures import Figures
from sipagent.core.clock import mono_ns

KEY_ID = web.RequestKey("key_id", str)  # of who asks
ACCOUNT = "default"  # there is one account so far

Work = Callable[[], Coroutine[Any, Any, Answer]]


class Shared:
    """`openapi` is the document as it is served."""

    def __init__(
        self,
        gate: Gate,
        streams: EventStreams,
        figures: Figures,
        openapi: bytes,
        answers: KeptAnswers,
        public_url: str = "",
    ) -> None:
        self.gate = gate
        self.streams = streams
        self.figures = figures
        self.openapi = openapi
        self._public_url = public_url.rstrip("/")
        self._once = IdempotencyTable(answers)

    def public(self, request: web.Request, path: str) -> URL:
        """A path of ours as an absolute URL for whoever asks."""
        return URL(f"{self._public_url or request.url.origin()}{path}")

    async def done_once(self, request: web.Request, raw: bytes, work: Work) -> web.Response:
        """The answer of `work`, done once for each Idempotency-Key; `raw` is the request's body."""
        scope = f"{request[KEY_ID]} {request.path}"
        answer = await self._once.once(scope, request.headers.get(IDEMPOTENCY_HEADER), raw, mono_ns(), work)
        return web.json_response(body=answer.body, status=answer.status)
