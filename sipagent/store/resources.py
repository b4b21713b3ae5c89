"""What is made over the API: voice apps, numbers, trunks, lists of addresses, secrets."""

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import delete, func, select, union_all, update
from sqlalchemy.orm import Session

from sipagent.store.models import Base
from sipagent.store.resource_models import IpAcl, Secret, SipTrunk, VirtualNumber, VoiceApp


class VoiceAppRecord(msgspec.Struct, kw_only=True, frozen=True):
    """`created_at` is null for what stands in the configuration; so it is with the others."""

    id: str
    name: str
    flow_url: str = ""
    fallback_url: str = ""
    webhook_url: str = ""
    dialplan: str = ""
    status: str = "active"
    channel_limit: int | None = None
    secret_id: str | None = None
    settings: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class VirtualNumberRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    number: str
    voice_app_id: str | None = None
    trunk: str = ""
    status: str = "active"
    settings: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class SipTrunkRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    name: str
    status: str = "active"
    settings: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class IpAclRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    name: str
    trunk_id: str | None = None
    entries: list[Any] = []
    status: str = "active"
    settings: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class SecretRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    name: str
    value: str = ""  # sealed
    settings: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


ResourceRecord = VoiceAppRecord | VirtualNumberRecord | SipTrunkRecord | IpAclRecord | SecretRecord
_Record = TypeVar("_Record", bound=msgspec.Struct)

TABLES: dict[type[Any], type[Any]] = {
    VoiceAppRecord: VoiceApp,
    VirtualNumberRecord: VirtualNumber,
    SipTrunkRecord: SipTrunk,
    IpAclRecord: IpAcl,
    SecretRecord: Secret,
}


class MadeResources(msgspec.Struct, kw_only=True, frozen=True):
    """All of them, as they are in the database."""

    apps: list[VoiceAppRecord] = []
    numbers: list[VirtualNumberRecord] = []
    trunks: list[SipTrunkRecord] = []
    acls: list[IpAclRecord] = []
    secrets: list[SecretRecord] = []


def version(session: Session) -> tuple[Any, ...]:
    """Changes when any of them does, also by another node (but for clocks that differ: then at the next change)."""
    counted = [select(func.count(), func.max(table.updated_at)) for table in TABLES.values()]
    return tuple(tuple(row) for row in session.execute(union_all(*counted)))


def everything(session: Session) -> MadeResources:
    def all_of(kind: type[_Record]) -> list[_Record]:
        table = TABLES[kind]
        return [_record(row, kind) for row in session.scalars(select(table).order_by(table.id))]

    return MadeResources(
        apps=all_of(VoiceAppRecord),
        numbers=all_of(VirtualNumberRecord),
        trunks=all_of(SipTrunkRecord),
        acls=all_of(IpAclRecord),
        secrets=all_of(SecretRecord),
    )


def add(session: Session, record: ResourceRecord) -> None:
    session.add(TABLES[type(record)](**msgspec.structs.asdict(record)))


def change(session: Session, kind: type[ResourceRecord], ids: list[str], changes: dict[str, Any]) -> int:
    """How many there were of these ids."""
    table = TABLES[kind]
    done = 0
    for some in (ids[start : start + 500] for start in range(0, len(ids), 500)):
        done += session.execute(update(table).where(table.id.in_(some)).values(**changes)).rowcount  # type: ignore[attr-defined]
    return done


def remove(session: Session, kind: type[ResourceRecord], record_id: str) -> bool:
    table = TABLES[kind]
    found = session.execute(delete(table).where(table.id == record_id)).rowcount  # type: ignore[attr-defined]
    return bool(found)


def _record(row: Base, kind: type[_Record]) -> _Record:
    return msgspec.convert({name: getattr(row, name) for name in kind.__struct_fields__}, kind)
