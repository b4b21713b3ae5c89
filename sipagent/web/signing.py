"""Signatures of what we send, by the Standard Webhooks specification 1.0 (symmetric, `v1`).

The signed text is ``ID.TIMESTAMP.BODY``, the key what follows `whsec_` in base64; so a receiver checks with any library
of that scheme.
"""

import base64
import binascii
import hmac
import secrets
from datetime import datetime

PREFIX = "whsec_"
_BYTES = (16, 256)  # of a key; the specification asks for 24 to 64


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """Of ``whsec_BASE64``; another text is a key as it is. Raises ValueError, which does not name the secret."""
    if not secret.startswith(PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("what follows whsec_ is not base64") from None
    if not _BYTES[0] <= len(key) <= _BYTES[1]:
        raise ValueError(f"a signing secret has {_BYTES[0]} to {_BYTES[1]} bytes")
    return key


def signed(key: bytes, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that prove who sent the body, and when."""
    timestamp = str(int(at.timestamp()))
    text = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, text, "sha256")).decode()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
