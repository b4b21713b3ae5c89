"""Resources of the configuration and of the database on a live node."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sipagent.calls.directory import Directory
from sipagent.calls.inventory import Inventory, joined
from sipagent.calls.made_trunks import trunk_settings
from sipagent.core import clock
from sipagent.core.errors import NotAllowed, SipagentError, where
from sipagent.dialplan import matching
from sipagent.dialplan.model import Dialplan
from sipagent.sip.settings import TrunkSettings
from sipagent.store import resources
from sipagent.store.queries import StoreReads
from sipagent.store.resources import MadeResources, SipTrunkRecord, Step
from sipagent.store.sealing import Seal
from sipagent.store.writing import StoreWrites
from sipagent.web.client import parse_url
from sipagent.web.guard import Guard

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0  # for what other nodes have changed
FOLLOW_LIMIT_S = 5.0  # that a change waits until its trunk is in use
WHOLE_EVERY_S = 60.0  # whatever the versions say: clocks of nodes differ


class LiveResources:
    """`api.resources.backend.ResourcesBackend` on a live node. What is changed takes effect before it is answered.

    `check_trunks` raises ConfigError for trunks made over the API that cannot be beside the configuration's;
    `follow_trunks`, once it is set, makes those of `made_trunks` the node's.
    """

    def __init__(
        self,
        fixed: MadeResources,
        reads: StoreReads,
        writes: StoreWrites,
        directory: Directory,
        seal: Seal,
        dialplans: Callable[[], Sequence[Dialplan]],
        guard: Guard,
    ) -> None:
        self._fixed = fixed
        self._reads = reads
        self._writes = writes
        self._directory = directory
        self._dialplans = dialplans
        self._guard = guard
        self._seal = seal
        self.check_trunks: Callable[[Sequence[TrunkSettings]], None] = lambda trunks: None
        self.follow_trunks: Callable[[], Awaitable[object]] | None = None
        self._following: asyncio.Task[None] | None = None
        self._version: tuple[Any, ...] | None = None
        self._whole_at = 0
        self._one_at_a_time = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        directory.take(joined(fixed, MadeResources()))

    async def start(self) -> None:
        """Reads them, and looks again and again, also after it has raised RecordUnavailable."""
        self._watching = asyncio.create_task(self._watch(), name="resources")
        await self.inventory()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})

    async def configure(self, fixed: MadeResources) -> None:
        """The configuration was read again."""
        self._fixed, self._version = fixed, None
        await self.inventory()

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
                    self.follow()
            return self._directory.inventory

    async def write(self, *steps: Step) -> int:
        """In one transaction; how many rows the last step concerned. Raises AlreadyThere, RecordUnavailable."""
        done = await self._writes.run(lambda session: resources.write(session, steps))
        await self.inventory()
        if self._following is not None:  # a trunk that is looked up in DNS may take some seconds
            await asyncio.wait({self._following}, timeout=FOLLOW_LIMIT_S)
        return done

    def seal(self, plain: str) -> str:
        return self._seal.close(plain)

    @property
    def made_trunks(self) -> list[TrunkSettings]:
        """Those in use that were made over the API; what is wrong with one is logged, and it is left out."""
        inventory, good = self._directory.inventory, list[TrunkSettings]()
        for record in inventory.trunks.values():
            if record.id in inventory.fixed or record.status != "active":
                continue
            try:
                trunk = trunk_settings(record, inventory, self._seal)
                self.check_trunks([*good, trunk])
                good.append(trunk)
            except (ValueError, SipagentError) as error:
                log.error("a trunk of the API cannot be used", extra={"trunk": record.name, "error": str(error)})
        return good

    def check_trunk(self, trunk: SipTrunkRecord, inventory: Inventory) -> None:
        """Raises ConfigError or ValueError when it cannot be beside the others of the inventory."""
        made = [it for it in self.made_trunks if it.name not in (trunk.name, self._name_of(trunk.id))]
        wanted = trunk_settings(trunk, inventory, self._seal)
        if trunk.status == "active":
            self.check_trunks([*made, wanted])

    def _name_of(self, trunk_id: str) -> str:
        known = self._directory.inventory.trunks.get(trunk_id)
        return known.name if known is not None else ""

    def follow(self) -> None:
        """The trunks as they are now become the node's."""
        if self.follow_trunks is None:
            return
        follow, before = self.follow_trunks, self._following

        async def following() -> None:
            if before is not None:
                await asyncio.wait({before})
            try:
                await follow()
            except Exception as error:
                log.error("trunks of the API could not be taken into use", extra={"error": where(error)})

        self._following = asyncio.create_task(following(), name="follow-trunks")

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
