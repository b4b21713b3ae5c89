"""Which program this is: processes of another one are not taken over, whatever the number of its version."""

import functools
import hashlib
from pathlib import Path

_OURS = (".py", ".so", ".c")


@functools.cache
def fingerprint() -> str:
    """Of all our code, as it is on disk when this is asked first."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.suffix in _OURS):
        digest.update(f"{file.relative_to(folder)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
