"""Writes of what the API makes: sessions in a thread of their own, one after another. No call waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.orm import Session

from sipagent.store.engine import OpenConnections, describe, make_engine
from sipagent.store.records import AlreadyThere, RecordUnavailable

_Answer = TypeVar("_Answer")


class Writes:
    """Blocking; each piece of work is one transaction."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._connections = OpenConnections(self._engine)

    def close(self) -> None:
        """Work under way in another thread fails."""
        self._connections.break_off()
        self._engine.dispose()

    def run(self, work: Callable[[Session], _Answer]) -> _Answer:
        """What `work` returns, once it is committed.

        Raises AlreadyThere when a row of the same name is there, RecordUnavailable when the database is away or locked.
        """
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                return work(session)
        except IntegrityError as error:
            raise AlreadyThere("there is one of this name already") from error
        except NoneFree as error:
            raise RecordUnavailable("the database cannot be written: every connection is in use") from error
        except DBAPIError as error:
            raise RecordUnavailable(f"the database cannot be written: {describe(error)}") from error


class StoreWrites:
    """`Writes` for an event loop, one after another in a thread of their own."""

    def __init__(self, url: str) -> None:
        self._writes = Writes(url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record-writes")

    async def run(self, work: Callable[[Session], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._writes.run, work)

    async def close(self) -> None:
        """What is under way is broken off, what waits is not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._writes.close)
