"""What the API asks of the node about erasing a caller's data."""

from typing import Protocol

from sipagent.store.erasure import ErasureRecord


class ErasuresBackend(Protocol):
    """Both raise RecordUnavailable (503)."""

    async def erase(self, number: str, by: str) -> ErasureRecord:
        """Raises ValueError for a number that is none, SipagentError when a recording cannot be deleted."""
        ...

    async def erasures(self, limit: int, after: str | None) -> list[ErasureRecord]:
        """Newest first, from the one before `after` on."""
        ...
