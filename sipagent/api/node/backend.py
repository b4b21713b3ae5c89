"""What the API asks of the node about itself."""

from typing import Literal, Protocol

import msgspec

from sipagent.api.node.types import RegistrationOut, TrunkOut
from sipagent.store.records import RecorderStatistics


class Health(msgspec.Struct, kw_only=True, frozen=True):
    status: Literal["ok", "degraded", "draining"]
    version: str
    uptime_s: float
    calls_active: int
    max_calls: int
    processes: dict[str, int]  # process id by name, such as "lane-0"
    registrations: list[RegistrationOut]
    trunks: list[TrunkOut] = []
    recorder: RecorderStatistics | None = None


class NodeBackend(Protocol):
    def health(self) -> Health: ...
