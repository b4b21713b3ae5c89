"""Sends what is in the outbox. No call waits for it: it reads what the record's writer has committed."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from sipagent.core import clock
from sipagent.core.errors import SipagentError, where
from sipagent.store import outbox
from sipagent.store.outbox import GONE, DeliveryFilter, DeliveryPage, DeliveryRecord, DeliveryState, Outcome
from sipagent.store.queries import StoreReads
from sipagent.store.records import RecordUnavailable
from sipagent.store.writing import StoreWrites
from sipagent.web import retries
from sipagent.web.client import WebClient, WebError
from sipagent.web.signing import signed

log = logging.getLogger(__name__)

AT_ONCE = 64
PER_HOST = 16  # a slow receiver keeps nobody else waiting
TIMEOUT_S = 10.0
MAX_ANSWER = 64 << 10  # bytes; nothing of it is used
LOOK_EVERY_S = 2.0
SOON_S = 0.1  # the record is behind by less, as a rule
SETTLE_TRIES = 10
AWAY_S = 1.0  # the database


class Webhooks:
    """`api.webhooks.backend.WebhooksBackend` on a live node. ``key_of`` is the signing key of an app, "" for none's;
    it raises SipagentError or ValueError."""

    def __init__(
        self,
        reads: StoreReads,
        writes: StoreWrites,
        web: WebClient,
        key_of: Callable[[str], bytes],
        schedule_s: Sequence[float] = retries.SCHEDULE_S,
    ) -> None:
        self._reads = reads
        self._writes = writes
        self._web = web
        self._key_of = key_of
        self._schedule_s = schedule_s
        self._soon = asyncio.Event()
        self._sending: dict[asyncio.Task[None], str] = {}  # to which host
        self._refusals: dict[str, int] = {}  # answers of 410 in a row, by URL
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch(), name="webhooks")

    async def close(self) -> None:
        """What is on its way is broken off, and sent by the next main."""
        tasks = [*self._sending, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def due(self) -> None:
        """Something is about to be recorded that is to be sent."""
        self._soon.set()

    # --- what the API asks ---

    async def list_deliveries(self, wanted: DeliveryFilter) -> DeliveryPage:
        return await self._reads.ask(lambda session: outbox.page(session, wanted))

    async def get_delivery(self, delivery_id: str) -> DeliveryRecord | None:
        return await self._reads.ask(lambda session: outbox.get(session, delivery_id))

    async def send_again(self, delivery_id: str) -> datetime | None:
        now = clock.now().wall
        if not await self._writes.run(lambda session: outbox.send_again(session, delivery_id, now)):
            return None
        self.due()
        return now

    # --- the sender ---

    async def _watch(self) -> None:
        while True:
            try:
                await self._send_due()
                pause = LOOK_EVERY_S
            except RecordUnavailable:
                pause = AWAY_S
            except Exception as error:
                log.error("webhooks could not be looked for", extra={"error": where(error)})
                pause = AWAY_S
            try:
                async with asyncio.timeout(pause):
                    await self._soon.wait()
                self._soon.clear()
                await asyncio.sleep(SOON_S)
            except TimeoutError:
                pass

    async def _send_due(self) -> None:
        """As many as may be sent at once."""
        free = AT_ONCE - len(self._sending)
        if free <= 0:
            return
        by_host, now = Counter(self._sending.values()), clock.now().wall
        for delivery in await self._writes.run(lambda session: outbox.claim(session, now, by_host, free, PER_HOST)):
            task = asyncio.create_task(self._send(delivery), name=f"webhook/{delivery.id}")
            self._sending[task] = outbox.origin(delivery.url)
            task.add_done_callback(self._sent)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        del self._sending[task]
        self._soon.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a webhook could not be sent", extra={"error": where(error)})  # its lease runs out

    async def _send(self, delivery: DeliveryRecord) -> None:
        if delivery.state is DeliveryState.PENDING and await self._is_off(delivery.url):
            why = f"the receiver has answered {GONE} {retries.REFUSALS} times: redeliver one that it takes"
            await self._settle(delivery, Outcome(state=DeliveryState.DISABLED, error=why))
            return
        status, asked_s, problem = await self._try(delivery)
        now = clock.now().wall
        if not problem:
            self._refusals[delivery.url] = 0
            await self._settle(delivery, Outcome(state=DeliveryState.DELIVERED, status=status, tried_at=now))
            return
        if status == GONE:
            self._refusals[delivery.url] = self._refusals.get(delivery.url, 0) + 1
            if self._refusals[delivery.url] == retries.REFUSALS:
                log.warning("a receiver of webhooks wants no more: it is sent nothing", extra={"app": delivery.app_id})
        attempts = delivery.attempts + 1
        once = status == GONE or delivery.state is DeliveryState.AGAIN
        after = None
        if not once:
            after = retries.next_try(
                attempts, delivery.created_at, now, asked_s, random.uniform, schedule_s=self._schedule_s
            )
        state = DeliveryState.PENDING if after is not None else DeliveryState.FAILED
        failed = Outcome(state=state, tried_at=now, next_try_at=after, status=status or None, error=problem)
        await self._settle(delivery, failed)

    async def _try(self, delivery: DeliveryRecord) -> tuple[int, float, str]:
        """The status, 0 for no answer; how long the receiver wants to be left alone; why it was not taken."""
        body = msgspec.json.encode(delivery.payload)
        try:
            headers = {
                "Content-Type": "application/json",
                **signed(self._key_of(delivery.app_id or ""), delivery.id, clock.now().wall, body),
            }
            answer = await self._web.post(delivery.url, body, headers, timeout_s=TIMEOUT_S, max_bytes=MAX_ANSWER)
        except (WebError, SipagentError, ValueError) as error:
            return 0, 0.0, str(error)
        problem = "" if answer.ok else f"the receiver answered {answer.status}"
        return answer.status, retries.asked_for(answer.status, answer.headers), problem

    async def _is_off(self, url: str) -> bool:
        if url not in self._refusals:
            self._refusals[url] = await self._reads.ask(lambda session: outbox.refusals(session, url))
        return self._refusals[url] >= retries.REFUSALS

    async def _settle(self, delivery: DeliveryRecord, outcome: Outcome) -> None:
        """Again and again while the database is away: without it the same would be sent once more."""
        for _ in range(SETTLE_TRIES):
            try:
                await self._writes.run(lambda session: outbox.settle(session, delivery.id, outcome))
                return
            except RecordUnavailable:
                await asyncio.sleep(AWAY_S)
        log.error("what became of a webhook could not be recorded: it may be sent again")
