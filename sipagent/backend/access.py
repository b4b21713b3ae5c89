"""Keys, audit rows and kept answers of a live node."""

import asyncio
import logging
from datetime import datetime
from typing import Any

from sipagent.core import clock
from sipagent.core.errors import SipagentError, where
from sipagent.core.ids import new_id
from sipagent.store import access
from sipagent.store.access import ApiKeyRecord, AuditRecord, KeptAnswer
from sipagent.store.queries import StoreReads
from sipagent.store.writing import StoreWrites

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0  # for keys that other nodes or the command line have made or revoked
MAX_AUDIT = 10_000  # rows that wait for the database; more are dropped and counted
CLOSE_LIMIT_S = 2.0


class LiveAccess:
    """`api.access.backend.AccessBackend` on a live node of this name."""

    def __init__(self, reads: StoreReads, writes: StoreWrites, node: str) -> None:
        self._reads = reads
        self._writes = writes
        self._node = node
        self._version: tuple[Any, ...] | None = None
        self._by_hash: dict[str, ApiKeyRecord] = {}
        self._used: dict[str, datetime] = {}
        self._audit: list[AuditRecord] = []
        self._audit_dropped = 0
        self._failing = False
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads the keys, and looks again and again, also after it has raised RecordUnavailable."""
        self._watching = asyncio.create_task(self._watch(), name="access")
        await self._look()

    async def close(self) -> None:
        """What waits to be written is, if that takes no longer than 2 s."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._write_down()
        except (TimeoutError, SipagentError):
            log.error("audit rows could not be written", extra={"lost": len(self._audit)})

    def find_key(self, hashed: str) -> ApiKeyRecord | None:
        return self._by_hash.get(hashed)

    def note_use(self, key_id: str, at: datetime) -> None:
        self._used[key_id] = at

    def audit(self, key_id: str, action: str, resource: str, status: int) -> None:
        if len(self._audit) >= MAX_AUDIT:
            if not self._audit_dropped:
                log.error("audit rows are dropped: too many wait for the database", extra={"waiting": MAX_AUDIT})
            self._audit_dropped += 1
            return
        self._audit.append(
            AuditRecord(
                id=new_id("audit"),
                at=clock.now().wall,
                key_id=key_id,
                node=self._node,
                action=action,
                resource=resource,
                status=status,
            )
        )

    async def keys(self) -> list[ApiKeyRecord]:
        return await self._reads.ask(access.keys)

    async def add_key(self, key: ApiKeyRecord) -> None:
        await self._writes.run(lambda session: access.add_key(session, key))
        await self._look()

    async def revoke_key(self, key_id: str) -> None:
        at = clock.now().wall
        await self._writes.run(lambda session: access.revoke_key(session, key_id, at))
        await self._look()

    async def audit_page(self, limit: int, after: str | None) -> list[AuditRecord]:
        await self._write_down()
        return await self._reads.ask(lambda session: access.audit_page(session, limit, after))

    async def begin(self, scope: str, key: str, fingerprint: str) -> KeptAnswer | None:
        at = clock.now().wall
        return await self._writes.run(lambda session: access.begin(session, scope, key, fingerprint, at))

    async def finish(self, scope: str, key: str, status: int, body: bytes) -> None:
        await self._writes.run(lambda session: access.finish(session, scope, key, status, body.decode()))

    async def forget(self, scope: str, key: str) -> None:
        await self._writes.run(lambda session: access.forget(session, scope, key))

    async def _look(self) -> None:
        version = await self._reads.ask(access.keys_version)
        if version != self._version:
            self._by_hash = {key.hash: key for key in await self._reads.ask(access.keys)}
            self._version = version

    async def _write_down(self) -> None:
        audit, used = self._audit, self._used
        if not audit and not used:
            return
        self._audit, self._used = [], {}

        try:
            refused = await self._writes.run(lambda session: access.write_down(session, audit, used))
        except BaseException:
            self._audit = audit + self._audit
            self._used = used | self._used
            raise
        for row in refused:
            log.error("an audit row is refused by the database", extra={"action": row.action, "key": row.key_id})
        if self._audit_dropped:
            log.error("audit rows were dropped", extra={"dropped": self._audit_dropped})
            self._audit_dropped = 0

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
                await self._write_down()
                self._failing = False
            except Exception as error:
                self._complain(str(error) if isinstance(error, SipagentError) else where(error))

    def _complain(self, error: str) -> None:
        """An error once, while it goes on."""
        level = logging.DEBUG if self._failing else logging.ERROR
        self._failing = True
        what = {"error": error, "waiting": len(self._audit)}
        log.log(level, "keys could not be read or audit rows not written", extra=what)
