"""Erasing a caller's data on a live node."""

import asyncio

from sipagent.core import clock
from sipagent.store import erasure
from sipagent.store.erasure import ErasureRecord
from sipagent.store.queries import StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.recording_files import RecordingFiles
from sipagent.store.records import RecordUnavailable
from sipagent.store.writing import StoreWrites

FLUSH_LIMIT_S = 5.0


class LiveErasures:
    """`api.erasures.backend.ErasuresBackend`."""

    def __init__(self, reads: StoreReads, writes: StoreWrites, recorder: Recorder, files: RecordingFiles) -> None:
        self._reads = reads
        self._writes = writes
        self._recorder = recorder
        self._files = files

    async def erase(self, number: str, by: str) -> ErasureRecord:
        try:
            async with asyncio.timeout(FLUSH_LIMIT_S):
                await self._recorder.flush()  # what waits to be written would come back
        except TimeoutError:
            raise RecordUnavailable("the record is behind: erase when it has caught up") from None
        at = clock.now().wall
        try:
            return await self._writes.run(
                lambda session: erasure.erase_caller(session, number, self._files, by, at),
            )
        except OSError as error:
            raise RecordUnavailable(f"a recording cannot be deleted: {error.strerror}") from error

    async def erasures(self, limit: int, after: str | None) -> list[ErasureRecord]:
        return await self._reads.ask(lambda session: erasure.erasures(session, limit, after))
