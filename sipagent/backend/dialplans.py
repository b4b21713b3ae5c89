"""The dialplans of a live node."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sipagent.core.errors import ConfigError
from sipagent.dialplan.loader import Manners, load_text
from sipagent.dialplan.model import Dialplan


class LiveDialplans:
    """`api.dialplans.backend.DialplansBackend`: of the folder; `current` are those that calls take."""

    def __init__(
        self,
        folder: Path,
        manners: Manners,
        current: Callable[[], Sequence[Dialplan]],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._folder = folder
        self._manners = manners
        self._current = current
        self._reload = reload

    def dialplans(self) -> Sequence[Dialplan]:
        return self._current()

    async def parse_dialplan(self, name: str, text: str) -> Dialplan:
        """Files that it names are looked for in the node's folder. Raises ConfigError, without the folder's path."""
        path = self._folder / f"{name}.yaml"
        try:
            return await asyncio.to_thread(load_text, path, text.encode(), self._manners)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{self._folder}/", "")) from None

    async def reload(self) -> None:
        await self._reload()
