"""Keys that a node makes for itself: once, in a file of the state folder that only its owner may read."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def kept(file: Path, make: Callable[[], str]) -> str:
    """The line that the file holds; made when there is no file, or an empty one. Raises OSError.

    It is there as a whole or not at all, whenever the process or the machine ends. Where two make it at once, both have
    the first one's.
    """
    found = _read(file)
    if found:
        return found
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(make() + "\n")
            out.flush()
            os.fsync(out.fileno())
        if found is None:
            _link(new, file)
        else:
            os.replace(new, file)
    finally:
        new.unlink(missing_ok=True)
    _sync(file.parent)
    return file.read_text("utf-8").strip()


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip()
    except FileNotFoundError:
        return None


def _link(new: Path, file: Path) -> None:
    try:
        os.link(new, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(new, file)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
