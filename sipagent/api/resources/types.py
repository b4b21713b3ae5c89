"""Resources as they go over the wire: down to the comment as in the Teler SDK 1.0.0."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from sipagent.api.resources.paging import PageOut, PageQuery, Words
from sipagent.api.types import Cursor, Dialled, Instant, Label, Name, Request, Response

Url = Annotated[str, Meta(max_length=2048)]
Status = Literal["active", "inactive"]
ApiVersion = Literal["2025-08-01", "2026-06-01"]
NEWEST: ApiVersion = "2026-06-01"
Ids = Annotated[tuple[Cursor, ...], Meta(max_length=1000)]
Channels = Annotated[int, Meta(ge=1, le=100_000)]


# --- voice apps -----------------------------------------------------------------------------------------------


class CreateApp(Request, kw_only=True, frozen=True):
    """Either `flow_url` or `dialplan`; the flow URL "dialplan:NAME" is the same as `dialplan`."""

    name: Label
    flow_url: Url = ""
    webhook_url: Url = ""
    fallback_url: Url = ""
    vn_ids: Ids = ()  # of numbers whose calls it shall take
    secret_id: Cursor | None = None  # signs the webhooks
    webhook_api_version: ApiVersion = NEWEST
    channel_limit: Channels | None = None
    # ours
    dialplan: Name = ""


class UpdateApp(Request, kw_only=True, frozen=True):
    """What is left out stays as it is."""

    name: Label | UnsetType = UNSET
    flow_url: Url | UnsetType = UNSET
    webhook_url: Url | UnsetType = UNSET
    fallback_url: Url | UnsetType = UNSET
    status: Status | UnsetType = UNSET  # an inactive app's callers get 480
    channel_limit: Channels | None | UnsetType = UNSET
    secret_id: Cursor | None | UnsetType = UNSET
    webhook_api_version: ApiVersion | UnsetType = UNSET
    # ours
    dialplan: Name | UnsetType = UNSET


class ListApps(PageQuery, kw_only=True, frozen=True):
    status: Annotated[tuple[Status, ...], Meta(max_length=2)] = ()


class AppOut(Response, kw_only=True, frozen=True):
    id: str
    name: str
    flow_url: str
    webhook_url: str
    fallback_url: str
    status: Status
    channel_limit: int | None
    vn_count: int
    secret_id: str | None
    secret_name: str | None
    webhook_api_version: str
    account_id: str
    code: str | None
    # ours
    dialplan: str
    configured: bool  # it stands in the configuration of the node and cannot be changed here
    created_at: Instant | None
    updated_at: Instant | None


class AppsPage(PageOut, kw_only=True, frozen=True):
    data: list[AppOut]


# --- numbers --------------------------------------------------------------------------------------------------


class Location(Request, kw_only=True, frozen=True):
    country: Annotated[str, Meta(max_length=64)] = ""
    region: Annotated[str, Meta(max_length=64)] = ""
    city: Annotated[str, Meta(max_length=64)] = ""


class CreateNumber(Request, kw_only=True, frozen=True):
    """A number that rings here, as it is called once the trunk's numbers are brought into E.164."""

    number: Dialled
    name: Label | None = None
    location: Location | None = None
    voice_app_id: Cursor | None = None
    sip_trunk_id: Cursor | None = None  # its calls are passed on over this trunk
    trunk: Name = ""  # only calls that come by this trunk; "" takes those of any


class UpdateNumber(Request, kw_only=True, frozen=True):
    name: Label | UnsetType = UNSET
    # ours
    location: Location | None | UnsetType = UNSET
    trunk: Name | UnsetType = UNSET


class NumberFilter(Request, kw_only=True, frozen=True):
    search: Annotated[str, Meta(min_length=1, max_length=128)] | None = None  # part of the number or the name
    location: Words = ()  # a country, region or city
    voice_app: Words = ()  # ids
    sip_trunk: Words = ()  # ids


class ListNumbers(PageQuery, kw_only=True, frozen=True):
    location: Words = ()
    voice_app: Words = ()
    sip_trunk: Words = ()


class ListNumbersOf(PageQuery, kw_only=True, frozen=True):
    location: Words = ()


class AssignNumbers(Request, kw_only=True, frozen=True):
    """Of `vn_ids`, or with `apply_to_all` all that the query's filters find."""

    vn_ids: Ids = ()
    apply_to_all: bool = False
    voice_app_id: Cursor | None = None
    sip_trunk_id: Cursor | None = None


class UnassignNumbers(Request, kw_only=True, frozen=True):
    vn_ids: Ids = ()
    apply_to_all: bool = False


class Named(Response, kw_only=True, frozen=True):
    id: str
    name: str


class NumberOut(Response, kw_only=True, frozen=True):
    id: str
    account_id: str
    name: str | None
    number: str
    location: dict[str, str] | None
    voice_app: Named | None
    sip_trunk: Named | None
    # ours
    trunk: str
    configured: bool
    created_at: Instant | None


class NumbersPage(PageOut, kw_only=True, frozen=True):
    data: list[NumberOut]


class ActionOut(Response, kw_only=True, frozen=True):
    success: bool
    message: str
