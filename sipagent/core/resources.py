"""Data that comes with sipagent: beside the package in a checkout, inside it when installed."""

from pathlib import Path

import sipagent
from sipagent.core.errors import SetupError


def shipped_folder(name: str) -> Path:
    """The folder of that name ("dialplans", "migrations"). Raises SetupError."""
    package = Path(sipagent.__file__).parent
    for candidate in (package / "_data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SetupError(f"{name} is missing from this installation: reinstall sipagent")
