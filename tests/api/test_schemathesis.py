"""Schemathesis reads the OpenAPI document and asks the running API all it can think of, within half a minute."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import schemathesis  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("schemathesis is missing: pip install 'sipagent[dev]'") from error

from sipagent.api.auth import Failures
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings

from .conftest import KEY, KEY_HASH
from .node import Node

SECONDS = 25


@pytest.mark.timeout(180)
async def test_what_the_document_tells_is_so(node: Node, tmp_path: Path) -> None:
    node._drain = lambda on: None  # type: ignore[method-assign]  # before the backend has it
    server = ApiServer(ApiSettings(port=0, key_hashes=[KEY_HASH], rate_per_s=0.0), node.backend, node.hub)
    server._gate._failures = Failures(limit=1_000_000)  # it leaves the key out again and again
    await server.start()
    config = tmp_path / "schemathesis.toml"
    config.write_text("")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{server.url}/api/openapi.json", "-H", f"x-api-key: {KEY}"),
        *("--max-examples", "6", "--max-time", str(SECONDS), "--seed", "6", "--phases", "examples,coverage,fuzzing"),
        *("--exclude-checks", "positive_data_acceptance", "--exclude-path-regex", "/events/(stream|ws)", "--no-color"),
    ]
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, cwd=tmp_path, timeout=150, env={**os.environ}
        )
    finally:
        await server.close()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
