"""What the API asks of the node about resources."""

from typing import Protocol

from sipagent.calls.inventory import Inventory
from sipagent.store.resources import SipTrunkRecord, Step


class ResourcesBackend(Protocol):
    async def inventory(self) -> Inventory:
        """As it is now. Raises RecordUnavailable (503)."""
        ...

    async def write(self, *steps: Step) -> int:
        """In one transaction, and in effect afterwards; how many rows the last step concerned.

        Raises AlreadyThere (409), RecordUnavailable (503).
        """
        ...

    def seal(self, plain: str) -> str:
        """What goes into the database instead."""
        ...

    def check_trunk(self, trunk: SipTrunkRecord, inventory: Inventory) -> None:
        """Raises ConfigError or ValueError when it cannot be beside the others of the inventory."""
        ...

    def has_dialplan(self, name: str) -> bool: ...

    def check_url(self, url: str) -> None:
        """Raises ValueError with what is wrong with it."""
        ...
