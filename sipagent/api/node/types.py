"""How the node is."""

from msgspec import UNSET, UnsetType

from sipagent.api.types import Instant, Response
from sipagent.core.states import RegistrationState, TrunkState


class RegistrationOut(Response, kw_only=True, frozen=True):
    trunk: str
    state: RegistrationState
    sip_status: int = 0
    reason: str = ""
    expires_s: int = 0
    next_try_s: float = 0.0
    changed_at: Instant | None = None


class TrunkServerOut(Response, kw_only=True, frozen=True):
    address: str
    up: bool
    reason: str = ""


class TrunkOut(Response, kw_only=True, frozen=True):
    """A trunk of this node. `reason` says what is wrong and what to look at."""

    name: str
    state: TrunkState
    reason: str = ""
    since_s: float = 0.0
    servers: list[TrunkServerOut] = []
    calls_in: int = 0
    calls_out: int = 0
    total_in: int = 0
    total_out: int = 0
    refused_channels: int = 0
    refused_rate: int = 0
    refused_password: int = 0
    refused_redirects: int = 0


class TrunksPage(Response, kw_only=True, frozen=True):
    """The trunks of this node; there is never a second page."""

    data: list[TrunkOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class RegistrationsPage(Response, kw_only=True, frozen=True):
    """The registrations of this node; there is never a second page."""

    data: list[RegistrationOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class RecorderOut(Response, kw_only=True, frozen=True):
    written: int
    dropped: int
    refused: int
    backlog: int
    last_error: str


class HealthOut(Response, kw_only=True, frozen=True):
    """`status` is "ok", "degraded" or "draining". The rest only with a key."""

    status: str
    version: str | UnsetType = UNSET
    uptime_s: float | UnsetType = UNSET
    calls_active: int | UnsetType = UNSET
    max_calls: int | UnsetType = UNSET
    processes: dict[str, int] | UnsetType = UNSET  # process id by name
    registrations: list[RegistrationOut] | UnsetType = UNSET
    trunks: list[TrunkOut] | UnsetType = UNSET
    recorder: RecorderOut | None | UnsetType = UNSET
