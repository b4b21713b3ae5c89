"""API keys: shown once when made, kept as SHA-256.

A key is 256 random bits, so a fast hash is enough: there is no dictionary to try, as there is for passwords.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime

from sipagent.core.ids import new_id
from sipagent.store.access import ApiKeyRecord

PREFIX = "sk_sipagent_"


def new_key() -> tuple[str, str]:
    """A new key and its hash for `ApiSettings.key_hashes`."""
    plain = PREFIX + secrets.token_urlsafe(32)
    return plain, hash_key(plain)


def made_key(
    name: str, scopes: list[str], rate_per_s: float | None, now: datetime, expires_at: datetime | None
) -> tuple[str, ApiKeyRecord]:
    """A new key, and what is kept of it."""
    plain, hashed = new_key()
    return plain, ApiKeyRecord(
        id=new_id("key"),
        name=name,
        hash=hashed,
        scopes=scopes,
        rate_per_s=rate_per_s,
        created_at=now,
        expires_at=expires_at,
    )


def hash_key(plain: str) -> str:
    """SHA-256 of the key, 64 hexadecimal digits."""
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()


def matching_hash(plain: str, hashes: Iterable[str]) -> str | None:
    """The hash that the key belongs to. Every hash is compared, each in constant time."""
    given = hash_key(plain)
    found = None
    for known in hashes:
        if hmac.compare_digest(given.encode(), known.strip().lower().encode()):
            found = known
    return found
