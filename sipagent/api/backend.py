"""What the API asks of the node."""

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from sipagent.api.types import RegistrationOut
from sipagent.core.states import Direction, LegState
from sipagent.store.records import CallFilter, CallPage, FullCall, RecorderStatistics, SipMessageRecord


class Originate(msgspec.Struct, kw_only=True, frozen=True):
    """A call to place; empty texts leave the choice to the node."""

    to_number: str
    from_number: str = ""
    dialplan: str = ""
    trunk: str = ""
    timeout_s: float = 0.0  # 0 is the node's own


class LiveCall(msgspec.Struct, kw_only=True, frozen=True):
    call_id: str
    direction: Direction
    from_number: str
    to_number: str
    state: LegState
    started_at: datetime
    answered_at: datetime | None = None
    agent: str = ""


class Health(msgspec.Struct, kw_only=True, frozen=True):
    status: Literal["ok", "degraded", "draining"]
    version: str
    uptime_s: float
    calls_active: int
    max_calls: int
    processes: dict[str, int]  # process id by name, such as "lane-0"
    registrations: list[RegistrationOut]
    recorder: RecorderStatistics | None = None


class Backend(Protocol):
    async def originate(self, request: Originate) -> str:
        """Place the call; returns its id once it is under way, not when it is answered.

        Raises CapacityError (503), ProcessDied or SetupError (503), ConfigError or ValueError (422): the error's text
        is shown to whoever asked.
        """
        ...

    async def hangup(self, call_id: str) -> bool:
        """End the call; False when no such call is up."""
        ...

    def live_calls(self) -> list[LiveCall]: ...

    def health(self) -> Health: ...

    async def list_calls(self, wanted: CallFilter) -> CallPage: ...

    async def get_call(self, call_id: str) -> FullCall | None: ...

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]: ...
