"""What the API asks of the node about recordings."""

from pathlib import Path
from typing import Protocol

from sipagent.store.records import RecordingRecord


class RecordingsBackend(Protocol):
    async def start_recording(self, call_id: str) -> str:
        """The recording's id, "" when no such call is up. Raises NotNow (409), CapacityError (503)."""
        ...

    async def stop_recording(self, call_id: str) -> str:
        """The recording's id, "" when no such call is up. Raises NotNow (409)."""
        ...

    async def recordings(self, call_id: str) -> list[RecordingRecord]: ...

    async def recording(self, recording_id: str) -> RecordingRecord | None: ...

    def recording_file(self, recording: RecordingRecord) -> Path:
        """Where its file is, or would be."""
        ...

    @property
    def recording_key(self) -> bytes:
        """Signs URLs; it stays the same over restarts."""
        ...
