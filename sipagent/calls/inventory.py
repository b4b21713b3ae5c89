"""Voice apps, numbers, trunks, lists of addresses, secrets: those of the configuration and those made over the API."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from sipagent.calls.settings import AclSettings, AppSettings, NumberSettings
from sipagent.sip.settings import TrunkSettings
from sipagent.store.resources import (
    IpAclRecord,
    MadeResources,
    SecretRecord,
    SipTrunkRecord,
    VirtualNumberRecord,
    VoiceAppRecord,
)
from sipagent.store.sealing import Seal

DIALPLAN_URL = "dialplan:"  # a flow URL that names a dialplan of this node
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


_Record = TypeVar("_Record", bound=_Identified)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """By id. `fixed`: the ids of what stands in the configuration, which the API cannot change."""

    apps: dict[str, VoiceAppRecord] = field(default_factory=dict)
    numbers: dict[str, VirtualNumberRecord] = field(default_factory=dict)
    trunks: dict[str, SipTrunkRecord] = field(default_factory=dict)
    acls: dict[str, IpAclRecord] = field(default_factory=dict)
    secrets: dict[str, SecretRecord] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()


def configured(
    apps: Sequence[AppSettings],
    numbers: Sequence[NumberSettings],
    trunks: Sequence[TrunkSettings],
    acls: Sequence[AclSettings],
    seal: Seal,
) -> MadeResources:
    """What stands in the configuration, as records."""
    signed = [app for app in apps if app.webhook_secret]
    return MadeResources(
        apps=[
            VoiceAppRecord(
                id=fixed_id("app", app.name),
                name=app.name,
                flow_url=app.flow_url,
                fallback_url=app.fallback_url,
                webhook_url=app.webhook_url,
                dialplan=app.dialplan,
                channel_limit=app.channel_limit or None,
                secret_id=fixed_id("secret", app.name) if app.webhook_secret else None,
            )
            for app in apps
        ],
        numbers=[
            VirtualNumberRecord(
                id=fixed_id("vn", number.number),
                number=number.number,
                voice_app_id=fixed_id("app", number.app) if number.app else None,
                trunk=number.trunk,
                settings={"name": number.name} if number.name else {},
            )
            for number in numbers
        ],
        trunks=[
            SipTrunkRecord(
                id=fixed_id("trunk", trunk.name),
                name=trunk.name,
                settings={
                    "domain_name": trunk.outbound_host,
                    "authentication_type": "IP" if trunk.accept == "address" else "credential",
                    "username": trunk.username,
                    "addresses": [{"address": peer} for peer in trunk.peers],
                    "channel_limit": trunk.max_calls or None,
                    "transport": trunk.transport or None,
                },
            )
            for trunk in trunks
        ],
        acls=[
            IpAclRecord(
                id=fixed_id("acl", acl.name), name=acl.name, entries=[{"address": address} for address in acl.addresses]
            )
            for acl in acls
        ],
        secrets=[
            SecretRecord(id=fixed_id("secret", app.name), name=app.name, value=seal.close(app.webhook_secret))
            for app in signed
        ],
    )


def joined(fixed: MadeResources, made: MadeResources) -> Inventory:
    return Inventory(
        apps=_by_id(fixed.apps, made.apps),
        numbers=_by_id(fixed.numbers, made.numbers),
        trunks=_by_id(fixed.trunks, made.trunks),
        acls=_by_id(fixed.acls, made.acls),
        secrets=_by_id(fixed.secrets, made.secrets),
        fixed=frozenset(it.id for kind in msgspec.structs.asdict(fixed).values() for it in kind),
    )


def passed_to(number: VirtualNumberRecord) -> str:
    """The id of the trunk that the number's calls are passed on over, "" for none."""
    return str(number.settings.get("sip_trunk_id", ""))


def fixed_id(prefix: str, name: str) -> str:
    """The same at every start, older than any id that is made."""
    digest = hashlib.sha256(name.encode()).digest()[:16]
    return f"{prefix}_{'0' * 10}{''.join(_ALPHABET[byte & 31] for byte in digest)}"


def _by_id(*several: Sequence[_Record]) -> dict[str, _Record]:
    return {record.id: record for records in several for record in records}
