"""Compiles `native.c` when sipagent is installed or built into a wheel; run by hatchling, see pyproject.toml.

Without a compiler the installation goes on, and the engine with numpy alone.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "sipagent/media/_native.so"
SOURCE = "sipagent/media/native.c"
OPTIONS = ("-O3", "-shared", "-fPIC", "-Wall", "-Wextra")


class NativeBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or not compiled(Path(self.root)):
            return
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compiled(root: Path) -> bool:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("sipagent: no C compiler, so the media engine will run without its compiled path", file=sys.stderr)
        return False
    # Linked under another name first: a running engine may have the old library mapped.
    fresh = root / f"{LIBRARY}.new"
    command = [compiler, *OPTIONS, "-o", str(fresh), str(root / SOURCE), "-lm"]
    if subprocess.run(command, check=False).returncode:
        print("sipagent: native.c could not be compiled, the media engine will run without it", file=sys.stderr)
        return False
    fresh.replace(root / LIBRARY)
    return True
