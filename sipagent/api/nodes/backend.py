"""What the API asks of the node about itself among others."""

from typing import Protocol

from sipagent.store.access import NodeRecord


class NodesBackend(Protocol):
    @property
    def own_name(self) -> str: ...

    async def nodes(self) -> list[NodeRecord]:
        """All that share the database, this one as it is now. Raises RecordUnavailable (503)."""
        ...

    async def drain(self, on: bool) -> None:
        """This node takes no new calls; or does again. Raises NotNow (409) when it stops anyway."""
        ...
