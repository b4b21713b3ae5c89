"""Trunks that were made over the API, as the SIP side takes them."""

from typing import Any

import msgspec

from sipagent.calls.inventory import Inventory
from sipagent.sip.settings import TrunkSettings
from sipagent.store.resources import SipTrunkRecord
from sipagent.store.sealing import Seal

PASSWORD = "password"  # the name under which a record's settings have it, sealed


def trunk_settings(record: SipTrunkRecord, inventory: Inventory, seal: Seal) -> TrunkSettings:
    """Raises ValueError with what is wrong with it, NotSealedByUs."""
    given = record.settings
    by_password = given.get("authentication_type") == "credential"
    wanted: dict[str, Any] = {
        "name": record.name,
        "domain": given.get("domain_name", ""),
        "transport": given.get("transport") or "",
        "max_calls": given.get("channel_limit") or 0,
        "calls_per_second_in": float(given.get("cps_limit") or 0),
        "calls_per_second_out": float(given.get("cps_limit") or 0),
        "accept": "digest" if by_password else "address",
        "peers": [] if by_password else addresses(record, inventory),
        "register": False,
        **given.get("more", {}),
    }
    if by_password:
        wanted |= {"username": given.get("username", ""), "password": seal.open(given[PASSWORD])}
    return msgspec.convert(wanted, TrunkSettings)


def addresses(record: SipTrunkRecord, inventory: Inventory) -> list[str]:
    """Who may call in over it."""
    own = [str(entry["address"]) for entry in record.settings.get("addresses", [])]
    acl = inventory.acls.get(record.settings.get("ip_acl_id") or "")
    return own + ([str(entry["address"]) for entry in acl.entries] if acl is not None else [])
