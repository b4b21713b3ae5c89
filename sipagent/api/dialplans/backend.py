"""What the API asks of the node about dialplans."""

from collections.abc import Sequence
from typing import Protocol

from sipagent.dialplan.model import Dialplan


class DialplansBackend(Protocol):
    def dialplans(self) -> Sequence[Dialplan]: ...

    async def parse_dialplan(self, name: str, text: str) -> Dialplan:
        """Raises ConfigError with file, line and what is wrong."""
        ...

    async def reload(self) -> None:
        """Reads all of them again. Raises ConfigError (422) and changes nothing."""
        ...
