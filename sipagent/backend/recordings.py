"""Recordings on a live node."""

import os
import secrets
from pathlib import Path

from sipagent.calls.registry import CallRegistry
from sipagent.store.queries import StoreReads
from sipagent.store.records import RecordingRecord

KEY_BYTES = 32


def kept_key(state: Path) -> bytes:
    """The key that signs URLs: made once, kept in the state folder."""
    file = state / "recordings.key"
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != KEY_BYTES:
        key = secrets.token_bytes(KEY_BYTES)
        new = file.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(key)
        os.replace(new, file)
    return key


class LiveRecordings:
    """`api.recordings.backend.RecordingsBackend` on a live node."""

    def __init__(self, registry: CallRegistry, reads: StoreReads, folder: Path, key: bytes) -> None:
        self._registry = registry
        self._reads = reads
        self._folder = folder
        self.recording_key = key

    async def start_recording(self, call_id: str) -> str:
        call = self._registry.find(call_id)
        return call.record() if call is not None else ""

    async def stop_recording(self, call_id: str) -> str:
        call = self._registry.find(call_id)
        return call.stop_recording() if call is not None else ""

    async def recordings(self, call_id: str) -> list[RecordingRecord]:
        return await self._reads.recordings(call_id)

    async def recording(self, recording_id: str) -> RecordingRecord | None:
        return await self._reads.recording(recording_id)

    def recording_file(self, recording: RecordingRecord) -> Path:
        return self._folder / recording.file
