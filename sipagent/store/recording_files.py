"""The files of recordings, as far as the record is their owner."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sqlalchemy import ColumnElement, Table, select

from sipagent.store.changes import CALLS
from sipagent.store.resource_models import Recording

RECORDINGS = cast(Table, Recording.__table__)
OVER = ("done", "failed")  # states of a recording that nobody writes any more
ERASED = "erased"


@dataclass(frozen=True)
class RecordingFiles:
    """Those of one node: another node of the same database has its own."""

    folder: Path
    node: str

    @property
    def are_here(self) -> ColumnElement[bool]:
        """Of a row of `recordings`: its file is one of ours."""
        return RECORDINGS.c.call_id.in_(select(CALLS.c.id).where(CALLS.c.node == self.node))

    def erase(self, file: str) -> bool:
        """Whether there was one. Raises OSError. A name that leads out of the folder is none of ours."""
        path = (self.folder / file).resolve()
        if self.folder.resolve() not in path.parents or not path.is_file():
            return False
        path.unlink()
        return True
