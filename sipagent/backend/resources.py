"""Resources of the configuration and of the database on a live node."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from sipagent.calls.directory import Directory
from sipagent.calls.inventory import Inventory, joined
from sipagent.core import clock
from sipagent.core.errors import NotAllowed, SipagentError, where
from sipagent.dialplan import matching
from sipagent.dialplan.model import Dialplan
from sipagent.store import resources
from sipagent.store.queries import StoreReads
from sipagent.store.resources import MadeResources, Step
from sipagent.store.writing import StoreWrites
from sipagent.web.client import parse_url
from sipagent.web.guard import Guard

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0  # for what other nodes have changed
WHOLE_EVERY_S = 60.0  # whatever the versions say: clocks of nodes differ


class LiveResources:
    """`api.resources.backend.ResourcesBackend` on a live node. What is changed takes effect before it is answered.

    `on_change`: told after the directory has the new inventory.
    """

    def __init__(
        self,
        fixed: MadeResources,
        reads: StoreReads,
        writes: StoreWrites,
        directory: Directory,
        dialplans: Callable[[], Sequence[Dialplan]],
        guard: Guard,
        on_change: Callable[[Inventory], None],
    ) -> None:
        self._fixed = fixed
        self._reads = reads
        self._writes = writes
        self._directory = directory
        self._dialplans = dialplans
        self._guard = guard
        self._on_change = on_change
        self._version: tuple[Any, ...] | None = None
        self._whole_at = 0
        self._one_at_a_time = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        directory.take(joined(fixed, MadeResources()))

    async def start(self) -> None:
        """Reads them; raises RecordUnavailable. Then looks again and again."""
        await self.inventory()
        self._watching = asyncio.create_task(self._watch(), name="resources")

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def inventory(self) -> Inventory:
        """As it is now. Raises RecordUnavailable."""
        async with self._one_at_a_time:
            now = clock.mono_ns()
            whole = now - self._whole_at > WHOLE_EVERY_S * 1e9
            version = await self._reads.ask(resources.version)
            if whole or version != self._version:
                made = await self._reads.ask(resources.everything)
                changed = joined(self._fixed, made)
                self._version, self._whole_at = version, now
                if changed != self._directory.inventory:
                    self._directory.take(changed)
                    self._on_change(changed)
            return self._directory.inventory

    async def write(self, *steps: Step) -> int:
        """In one transaction; how many rows the last step concerned. Raises AlreadyThere, RecordUnavailable."""
        done = await self._writes.run(lambda session: resources.write(session, steps))
        await self.inventory()
        return done

    def has_dialplan(self, name: str) -> bool:
        return matching.by_name(self._dialplans(), name) is not None

    def check_url(self, url: str) -> None:
        """Raises ValueError with what is wrong with it."""
        host = parse_url(url).host
        assert host is not None
        try:
            self._guard.check_literal(host)
        except NotAllowed as error:
            raise ValueError(str(error)) from error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.inventory()
            except SipagentError as error:
                log.debug("resources could not be read; those known serve", extra={"error": str(error)})
            except Exception as error:
                log.error("resources could not be read; those known serve", extra={"error": where(error)})
