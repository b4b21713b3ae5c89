"""What the API asks of calls that are up."""

from typing import Literal, Protocol

import msgspec

from sipagent.dialplan.model import Instead


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
    confirm: str = ""  # the URL of what the target hears before the caller comes
    on_failure: Instead | None = None


class Guest(msgspec.Struct, kw_only=True, frozen=True):
    """Whom to bring into a call."""

    to_number: str
    part: Literal["listen", "whisper", "conference"]
    trunk: str = ""
    timeout_s: float = 0.0  # 0 is the node's own


class SteeringBackend(Protocol):
    """Each starts something and returns at once; False or "" when no such call is up.

    Each raises NotNow (409) when the call is in no state for it.
    """

    async def hangup(self, call_id: str) -> bool:
        """End the call; False when no such call is up."""
        ...

    async def hangup_leg(self, call_id: str, leg_id: str) -> bool:
        """End one leg of a call; of the leg that the call speaks on that is the call's end. False when it is not up."""
        ...

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
