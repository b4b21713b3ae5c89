"""URLs that let whoever has them download one recording for a short while. Pure; times are seconds since 1970."""

import hashlib
import hmac


def sign(key: bytes, recording_id: str, expires: int) -> str:
    text = f"recording {recording_id} until {expires}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_signed(key: bytes, recording_id: str, expires: int, signature: str, now: float) -> bool:
    right = hmac.compare_digest(sign(key, recording_id, expires).encode(), signature.encode())
    return right and now < expires
