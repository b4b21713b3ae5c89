"""What the API asks of the node about calls."""

from datetime import datetime
from typing import Protocol

import msgspec

from sipagent.core.states import Direction, LegState
from sipagent.store.records import CallFilter, CallPage, FullCall, SipMessageRecord


class Originate(msgspec.Struct, kw_only=True, frozen=True):
    """A call to place; empty texts leave the choice to the node."""

    to_number: str
    from_number: str = ""
    dialplan: str = ""
    flow_url: str = ""  # what treats the call instead of a dialplan
    status_callback_url: str = ""
    trunk: str = ""
    timeout_s: float = 0.0  # 0 is the node's own
    withhold: bool = False  # the calling number
    record: bool = False
    headers: dict[str, str] = {}


class LiveCall(msgspec.Struct, kw_only=True, frozen=True):
    call_id: str
    direction: Direction
    from_number: str
    to_number: str
    state: LegState
    started_at: datetime
    answered_at: datetime | None = None
    agent: str = ""


class CallsBackend(Protocol):
    async def originate(self, request: Originate) -> str:
        """Place the call; returns its id once it is under way, not when it is answered.

        Raises CapacityError (503), ProcessDied or SetupError (503), ConfigError or ValueError (422): the error's text
        is shown to whoever asked.
        """
        ...

    def live_calls(self) -> list[LiveCall]: ...

    async def list_calls(self, wanted: CallFilter) -> CallPage: ...

    async def get_call(self, call_id: str) -> FullCall | None: ...

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]: ...
