"""What the API asks of the node."""

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from sipagent.api.types import RegistrationOut, TrunkOut
from sipagent.core.states import Direction, LegState
from sipagent.store.records import CallFilter, CallPage, FullCall, RecorderStatistics, SipMessageRecord


class Originate(msgspec.Struct, kw_only=True, frozen=True):
    """A call to place; empty texts leave the choice to the node."""

    to_number: str
    from_number: str = ""
    dialplan: str = ""
    trunk: str = ""
    timeout_s: float = 0.0  # 0 is the node's own
    withhold: bool = False  # the calling number
    headers: dict[str, str] = {}


class Transfer(msgspec.Struct, kw_only=True, frozen=True):
    """Whom to hand the caller to."""

    target: str  # SIP URI or number
    attended: bool = False
    whisper: str = ""
    via: Literal["", "auto", "refer", "bridge"] = ""
    trunk: str = ""
    timeout_s: float = 0.0  # 0 is the node's own
    music: str = ""  # "" hold music, "ringback", "silence", or a WAV file beside the dialplan
    headers: dict[str, str] = {}  # of the INVITE to the target, which is then a leg of ours


class Guest(msgspec.Struct, kw_only=True, frozen=True):
    """Whom to bring into a call."""

    to_number: str
    part: Literal["listen", "whisper", "conference"]
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
    trunks: list[TrunkOut] = []
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

    async def hangup_leg(self, call_id: str, leg_id: str) -> bool:
        """End one leg of a call; of the leg that the call speaks on that is the call's end. False when it is not up."""
        ...

    # The next ones start something and return at once; False or "" when no such call is up. Each raises NotNow (409)
    # when the call is in no state for it.

    async def transfer(self, call_id: str, wanted: Transfer) -> str:
        """The transfer's id."""
        ...

    async def hold(self, call_id: str, music: str) -> bool: ...

    async def resume(self, call_id: str) -> bool: ...

    async def bridge(self, call_id: str, other_call_id: str) -> bool:
        """Join the callers of two calls."""
        ...

    async def bring_in(self, call_id: str, guest: Guest) -> bool: ...

    def call_of_leg(self, leg_id: str) -> str:
        """The id of the call that is up and has this leg, or ""."""
        ...

    def live_calls(self) -> list[LiveCall]: ...

    def health(self) -> Health: ...

    async def list_calls(self, wanted: CallFilter) -> CallPage: ...

    async def get_call(self, call_id: str) -> FullCall | None: ...

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]: ...
