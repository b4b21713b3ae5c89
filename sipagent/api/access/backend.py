"""What the API asks of the node about who may use it."""

from datetime import datetime
from typing import Protocol

from sipagent.store.access import ApiKeyRecord, AuditRecord, KeptAnswer


class AccessBackend(Protocol):
    """Those that read or write raise RecordUnavailable (503)."""

    def find_key(self, hashed: str) -> ApiKeyRecord | None:
        """The key of this hash, revoked and expired ones too; from memory."""
        ...

    def note_use(self, key_id: str, at: datetime) -> None:
        """Written down within a minute."""
        ...

    def audit(self, key_id: str, action: str, resource: str, status: int) -> None:
        """Written down within seconds."""
        ...

    async def keys(self) -> list[ApiKeyRecord]: ...

    async def add_key(self, key: ApiKeyRecord) -> None: ...

    async def revoke_key(self, key_id: str) -> None: ...

    async def audit_page(self, limit: int, after: str | None) -> list[AuditRecord]: ...

    async def begin(self, scope: str, key: str, fingerprint: str) -> KeptAnswer | None:
        """None when it was not asked for before."""
        ...

    async def finish(self, scope: str, key: str, status: int, body: bytes) -> None: ...

    async def forget(self, scope: str, key: str) -> None: ...
