"""The tables besides the calls' own: what is made over the API, what keeps the API honest, and what leaves the node.

Ids are text with a prefix, as in `core.ids`; names and numbers are unique among all nodes of a database.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from sipagent.store.models import NUMBER, Base, Count


class Node(Base):
    """A running sipagent and when it was last seen."""

    __tablename__ = "nodes"

    name: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]  # of its API, "" when it has none
    version: Mapped[str]
    state: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    calls_active: Mapped[int]
    max_calls: Mapped[int]


class VoiceApp(Base):
    """How calls of some numbers are treated: a dialplan here, or a flow URL elsewhere."""

    __tablename__ = "voice_apps"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NUMBER, unique=True)
    flow_url: Mapped[str]  # "" when a dialplan treats the call
    fallback_url: Mapped[str]
    webhook_url: Mapped[str]
    dialplan: Mapped[str]  # "" when the flow URL does
    status: Mapped[str]
    channel_limit: Mapped[int | None]
    secret_id: Mapped[str | None]
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class VirtualNumber(Base):
    """A number that rings here, and the app that answers it."""

    __tablename__ = "virtual_numbers"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(NUMBER, unique=True)
    voice_app_id: Mapped[str | None]
    trunk: Mapped[str]  # "" for a call from any trunk
    status: Mapped[str]
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        # the numbers of one app
        Index(None, "voice_app_id", "id"),
    )


class SipTrunk(Base):
    """A trunk made over the API; those of the configuration file stand in no table."""

    __tablename__ = "sip_trunks"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NUMBER, unique=True)
    status: Mapped[str]
    settings: Mapped[dict[str, Any]]  # as in the configuration file, passwords as names of secrets
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class IpAcl(Base):
    """Addresses that may ring, at one trunk or at all."""

    __tablename__ = "ip_acls"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NUMBER)
    trunk_id: Mapped[str | None]
    entries: Mapped[list[Any]]
    status: Mapped[str]
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        # the lists of one trunk
        Index(None, "trunk_id", "id"),
    )


class Secret(Base):
    """A key or a password by name. The value is sealed; whoever reads the database cannot use it."""

    __tablename__ = "secrets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NUMBER, unique=True)
    value: Mapped[str]  # sealed
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ApiKey(Base):
    """A key of the API. Only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(NUMBER, unique=True)
    scopes: Mapped[list[Any]]
    rate_per_s: Mapped[float | None]  # null: as the settings say
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditRow(Base):
    """Who changed what over the API."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    key_id: Mapped[str]
    node: Mapped[str]
    action: Mapped[str]
    resource: Mapped[str]
    status: Mapped[int]  # of HTTP
    detail: Mapped[str]

    __table_args__ = (
        # retention
        Index(None, "at"),
    )


class IdempotencyKey(Base):
    """The answer to a request that may be sent again."""

    __tablename__ = "idempotency_keys"

    scope: Mapped[str] = mapped_column(NUMBER, primary_key=True)
    key: Mapped[str] = mapped_column(NUMBER, primary_key=True)
    fingerprint: Mapped[str]  # of the request: the same key with another request is a mistake
    status: Mapped[int]
    body: Mapped[str]
    at: Mapped[datetime]

    __table_args__ = (
        # retention
        Index(None, "at"),
    )


class WebhookDelivery(Base):
    """A webhook to be sent, or sent. Those of one call go in order of id."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    event_type: Mapped[str]
    call_id: Mapped[str | None]
    app_id: Mapped[str | None]
    url: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempts: Mapped[int]
    next_try_at: Mapped[datetime | None]  # null when it will not be tried again
    last_status: Mapped[int | None]
    last_error: Mapped[str]
    created_at: Mapped[datetime]
    last_try_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        # the next to be sent
        Index(None, "state", "next_try_at"),
        # those of one call in order; erasure
        Index(None, "call_id", "id"),
        # retention
        Index(None, "created_at"),
    )


class Recording(Base):
    """The audio of a call in a file; of the file what is needed to trust it."""

    __tablename__ = "recordings"

    id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    leg_id: Mapped[str | None]
    state: Mapped[str]  # "recording", "done", "failed", "erased"
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ms: Mapped[Count | None]
    channels: Mapped[int]
    rate: Mapped[int]  # samples per second
    bytes: Mapped[Count | None]
    sha256: Mapped[str | None]
    file: Mapped[str]  # relative to the folder of recordings
    detail: Mapped[str]

    __table_args__ = (
        # the recordings of one call in order; the cascade
        Index(None, "call_id", "id"),
        # retention
        Index(None, "started_at"),
    )


class CallCost(Base):
    """What a part of a call has cost."""

    __tablename__ = "call_costs"

    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    leg_id: Mapped[str] = mapped_column(primary_key=True)  # "" for what belongs to no leg
    units: Mapped[float]
    unit: Mapped[str]
    price: Mapped[float]  # of one unit
    currency: Mapped[str]
    amount: Mapped[float]


class ReportHour(Base):
    """The calls of one hour as reports read them: `sipagent.reports.columns`, without numbers of callers."""

    __tablename__ = "report_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)  # its first instant
    last_end: Mapped[datetime | None]  # of its calls; null when it had none
    data: Mapped[bytes]

    __table_args__ = (
        # hours with calls that reach into a report's first day
        Index(None, "last_end"),
    )


class Erasure(Base):
    """Proof that a caller's data was erased, without the number."""

    __tablename__ = "erasures"

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    what: Mapped[str]
    number_hash: Mapped[str]
    counts: Mapped[dict[str, Any]]  # rows and files, by table
    by: Mapped[str]
