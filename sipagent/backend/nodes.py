"""This node among those that share its database."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from sipagent.api.node.backend import NodeBackend
from sipagent.core import clock
from sipagent.core.errors import NotNow, SipagentError, where
from sipagent.store import access
from sipagent.store.access import NodeRecord
from sipagent.store.queries import StoreReads
from sipagent.store.writing import StoreWrites

log = logging.getLogger(__name__)

EVERY_S = 10.0
UNNAMED = "default"  # a node that is not named in [node]


class LiveNodes:
    """`api.nodes.backend.NodesBackend`. `url` tells where the API listens; `refuse_new` stops or takes new calls."""

    def __init__(
        self,
        name: str,
        reads: StoreReads,
        writes: StoreWrites,
        node: NodeBackend,
        url: Callable[[], str],
        refuse_new: Callable[[bool], None],
    ) -> None:
        self.own_name = name or UNNAMED
        self._reads = reads
        self._writes = writes
        self._node = node
        self._url = url
        self._refuse_new = refuse_new
        self._started_at = clock.now().wall
        self._closing = False
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch(), name="nodes")

    async def close(self) -> None:
        self._closing = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def nodes(self) -> list[NodeRecord]:
        others = [node for node in await self._reads.ask(access.nodes) if node.name != self.own_name]
        return sorted([self._own(), *others], key=lambda node: node.name)

    async def drain(self, on: bool) -> None:
        if self._closing:
            raise NotNow("the node is stopping")
        self._refuse_new(on)

    def _own(self) -> NodeRecord:
        health = self._node.health()
        return NodeRecord(
            name=self.own_name,
            url=self._url(),
            version=health.version,
            state=health.status,
            started_at=self._started_at,
            seen_at=clock.now().wall,
            calls_active=health.calls_active,
            max_calls=health.max_calls,
        )

    async def _watch(self) -> None:
        while True:
            try:
                await self._writes.run(partial(access.seen, node=self._own()))
            except SipagentError as error:
                log.debug("the node's state could not be written", extra={"error": str(error)})
            except Exception as error:
                log.error("the node's state could not be written", extra={"error": where(error)})
            await asyncio.sleep(EVERY_S)
