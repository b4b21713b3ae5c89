"""Trunks, lists of addresses, secrets and calls of trunks: down to the comment as in the Teler SDK 1.0.0."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from sipagent.api.resources.paging import PageOut, PageQuery
from sipagent.api.resources.types import NEWEST, ApiVersion, Channels, Named, Status, Url
from sipagent.api.types import END, Cursor, DialledOrNone, Instant, Label, Request, Response, Short
from sipagent.store.records import MAX_PAGE

TrunkName = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.-]+{END}", min_length=1, max_length=64)]
Host = Annotated[str, Meta(pattern=rf"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{{1,5}})?{END}", max_length=256)]
Address = Annotated[str, Meta(min_length=2, max_length=64)]
Transport = Literal["tls", "tcp", "udp"]
AuthType = Literal["credential", "IP"]


class Credential(Request, kw_only=True, frozen=True):
    username: Annotated[str, Meta(pattern=rf"^[!#-;=?-\[\]-~]+{END}", min_length=1, max_length=128)]
    password: Annotated[str, Meta(pattern=rf"^[^\x00-\x1f\x7f]+{END}", min_length=1, max_length=256)]


class AuthAddress(Request, kw_only=True, frozen=True):
    address: Address  # one address, no network: those are for lists of addresses
    name: Annotated[str, Meta(max_length=64)] = ""


class InboundRoute(Request, kw_only=True, frozen=True):
    """Where calls of the trunk's numbers are passed on to: this user at the trunk, "" for the number itself."""

    name: Annotated[str, Meta(max_length=64)] = ""
    sip_url: DialledOrNone = ""
    sip_user: DialledOrNone = ""


AuthAddresses = Annotated[list[AuthAddress], Meta(max_length=5)]
More = Annotated[dict[str, Any], Meta(max_length=60)]


class CreateTrunk(Request, kw_only=True, frozen=True):
    name: TrunkName
    domain_name: Host  # where its calls go to
    authentication_type: AuthType  # of calls that come in: by the password, or by their address
    channel_limit: Channels | None = None
    recording: bool = False
    transport: Transport | None = None  # null is what DNS says
    webhook_url: Url = ""
    auth_credential: Credential | None = None
    auth_addresses: AuthAddresses | None = None
    ip_acl_id: Cursor | None = None
    inbound_route: InboundRoute | None = None
    secret_id: Cursor | None = None
    webhook_api_version: ApiVersion = NEWEST
    # ours
    cps_limit: Annotated[float, Meta(gt=0, le=10_000)] | None = None  # calls a second, each way
    settings: More = {}  # of [[trunks]] in the configuration by the same names, such as registrar and register


class UpdateTrunk(Request, kw_only=True, frozen=True):
    """What is left out stays as it is. How callers prove themselves is changed with `authentication_type` beside it."""

    name: TrunkName | UnsetType = UNSET
    channel_limit: Channels | None | UnsetType = UNSET
    recording: bool | UnsetType = UNSET
    transport: Transport | None | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    webhook_url: Url | UnsetType = UNSET
    webhook_api_version: ApiVersion | UnsetType = UNSET
    authentication_type: AuthType | UnsetType = UNSET
    auth_credential: Credential | UnsetType = UNSET
    auth_addresses: AuthAddresses | UnsetType = UNSET
    ip_acl_id: Cursor | UnsetType = UNSET
    inbound_route: InboundRoute | None | UnsetType = UNSET
    secret_id: Cursor | None | UnsetType = UNSET
    # ours
    domain_name: Host | UnsetType = UNSET
    cps_limit: Annotated[float, Meta(gt=0, le=10_000)] | None | UnsetType = UNSET
    settings: More | UnsetType = UNSET


class ListTrunks(PageQuery, kw_only=True, frozen=True):
    status: Annotated[tuple[Status, ...], Meta(max_length=2)] = ()


class SipTrunkOut(Response, kw_only=True, frozen=True):
    id: str
    name: str
    domain_name: str
    account_id: str
    channel_limit: int | None
    cps_limit: float | None
    recording_enabled: bool
    transport: str | None
    is_active: bool
    authentication_type: str
    auth_ip_addresses: list[dict[str, str]]
    auth_credential_usernames: list[str]
    ip_acl_id: str | None
    ip_acl_name: str | None
    sip_route: dict[str, str] | None
    webhook_url: str
    webhook_api_version: str
    created_at: Instant | None
    updated_at: Instant | None
    secret_id: str | None
    secret_name: str | None
    code: str | None
    # ours
    settings: dict[str, Any]
    configured: bool


class SipTrunksPage(PageOut, kw_only=True, frozen=True):
    data: list[SipTrunkOut]


# --- lists of addresses ---------------------------------------------------------------------------------------


class AclAddress(Request, kw_only=True, frozen=True):
    address: Address  # or a network, such as 192.0.2.0/24
    description: Annotated[str, Meta(max_length=255)] | None = None


AclAddresses = Annotated[list[AclAddress], Meta(min_length=1, max_length=50)]


class CreateAcl(Request, kw_only=True, frozen=True):
    name: Label
    addresses: AclAddresses


class UpdateAcl(Request, kw_only=True, frozen=True):
    name: Label | UnsetType = UNSET
    addresses: AclAddresses | UnsetType = UNSET  # all of them


class AclOut(Response, kw_only=True, frozen=True):
    id: str
    name: str
    addresses: list[dict[str, str | None]]
    address_count: int
    trunk_count: int
    created_at: Instant | None
    updated_at: Instant | None
    # ours
    configured: bool


class AclsPage(PageOut, kw_only=True, frozen=True):
    data: list[AclOut]


# --- secrets --------------------------------------------------------------------------------------------------


class CreateSecret(Request, kw_only=True, frozen=True):
    name: Label


class UpdateSecret(Request, kw_only=True, frozen=True):
    name: Label | UnsetType = UNSET
    rotate: bool = False  # a new value: the answer has it


class SecretOut(Response, kw_only=True, frozen=True):
    """`secret_value` only where it was made just now; it is never shown again."""

    id: str
    name: str
    secret_value: str | None
    rotated_at: Instant | None
    created_at: Instant | None
    needs_rotation: bool  # it is more than a year old
    sip_trunks: list[Named]
    voice_apps: list[Named]
    # ours
    configured: bool


class SecretsPage(PageOut, kw_only=True, frozen=True):
    data: list[SecretOut]


# --- calls of trunks ------------------------------------------------------------------------------------------


class ListSipCalls(Request, kw_only=True, frozen=True):
    """Newest first. At most one of the cursors."""

    trunk_id: Cursor | None = None
    from_number: Short | None = None
    to_number: Short | None = None
    created_after: datetime | None = None  # inclusive; without a zone it is UTC
    created_before: datetime | None = None  # exclusive
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None
    cursor_before: Cursor | None = None


class SipCallOut(Response, kw_only=True, frozen=True):
    id: str
    account_id: str
    sip_trunk_id: str | None
    state: str
    direction: str
    from_number: str
    to_number: str
    created_at: Instant
    answered_at: Instant | None
    ended_at: Instant | None
    duration_seconds: int | None  # from the answer to the end
    reason: str | None
    ended_by: str | None
    recordings: list[str]


class SipCallsPage(PageOut, kw_only=True, frozen=True):
    data: list[SipCallOut]
