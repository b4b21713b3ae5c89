"""What is made over the API: voice apps, numbers, trunks, lists of addresses, secrets."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import CursorResult, Executable, delete, func, select, union_all, update
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


@dataclass(frozen=True)
class Add:
    record: ResourceRecord


@dataclass(frozen=True)
class Alter:
    kind: type[ResourceRecord]
    ids: Sequence[str]
    changes: dict[str, Any]


@dataclass(frozen=True)
class Remove:
    kind: type[ResourceRecord]
    ids: Sequence[str]


Step = Add | Alter | Remove


def write(session: Session, steps: Iterable[Step]) -> int:
    """All of them; how many rows the last one concerned."""
    done = 0
    for step in steps:
        match step:
            case Add(record):
                session.add(TABLES[type(record)](**msgspec.structs.asdict(record)))
                session.flush()
                done = 1
            case Alter(kind, ids, changes):
                table = TABLES[kind]
                done = sum(
                    _rows(session, update(table).where(table.id.in_(some)).values(**changes)) for some in _few(ids)
                )
            case Remove(kind, ids):
                table = TABLES[kind]
                done = sum(_rows(session, delete(table).where(table.id.in_(some))) for some in _few(ids))
    return done


def _few(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """At a time: SQLite takes 999 values."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def _rows(session: Session, statement: Executable) -> int:
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


def _record(row: Base, kind: type[_Record]) -> _Record:
    return msgspec.convert({name: getattr(row, name) for name in kind.__struct_fields__}, kind)
