"""The attribute by which SRTP keys travel in SDP (RFC 4568): ``a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:...``.

Values only. Whoever can read the signalling can read the keys, so they are shown by no repr and stand in no message.
"""

import base64
import binascii
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal, get_args

Suite = Literal["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"]

SUITES: tuple[Suite, ...] = get_args(Suite)  # in the order they are offered: the longer tag first
KEY_BYTES = 30  # master key of 16, master salt of 14 (RFC 4568 section 6.2)
MAX_LINES = 16  # of one media line; the rest is passed over
_MAX_LIFETIME = 48  # 2**48 packets is all a key may seal (RFC 3711 section 9.2)
_TAG = re.compile(r"[0-9]{1,9}")
_LIFETIME = re.compile(r"2\^([0-9]{1,2})|([0-9]{1,15})")
_SHOWN = re.compile(r"inline:[A-Za-z0-9+/=]*", re.IGNORECASE)
_WINDOW = re.compile(r"WSH=[0-9]{1,5}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CryptoLine:
    """One ``a=crypto`` that can be met."""

    tag: int  # what the answer repeats
    suite: Suite
    key: bytes = field(repr=False)  # of the side that wrote it, for the packets it sends


def parse(argument: str) -> CryptoLine | None:
    """The text after ``a=crypto:``; None for a line that cannot be met, which is then as if it were not there.

    Refused: unknown suites, more than one key and so the MKI that tells them apart, and every session parameter that
    changes the packets. What a peer calls optional (``-`` in front, section 6.3.7) and its replay window do not.
    """
    parts = argument.split()
    if len(parts) < 3:
        return None
    tag, suite, key, *session = parts
    name = next((known for known in SUITES if known == suite.upper()), None)
    secret = _inline(key)
    if name is None or secret is None or not _TAG.fullmatch(tag):
        return None
    if not all(parameter.startswith("-") or _WINDOW.fullmatch(parameter) for parameter in session):
        return None
    return CryptoLine(int(tag), name, secret)


def build(line: CryptoLine) -> str:
    return f"a=crypto:{line.tag} {line.suite} inline:{base64.b64encode(line.key).decode()}\r\n"


def redacted(text: str) -> str:
    """SDP, or a text with SDP in it, fit to be shown: without keys."""
    return _SHOWN.sub("inline:…", text)


def new_keys() -> tuple[bytes, ...]:
    """Fresh keys of ours, one for each of `SUITES`: two lines of an offer may not share one (section 6.1)."""
    return tuple(secrets.token_bytes(KEY_BYTES) for _ in SUITES)


def _inline(text: str) -> bytes | None:
    """Master key and salt of ``inline:key|lifetime``."""
    method, _, rest = text.partition(":")
    encoded, *more = rest.split("|")
    if method.lower() != "inline" or len(more) > 1 or ";" in text or not all(map(_is_lifetime, more)):
        return None  # a second part is an MKI, a semicolon another key
    try:
        key = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == KEY_BYTES else None


def _is_lifetime(text: str) -> bool:
    found = _LIFETIME.fullmatch(text)
    if found is None:
        return False
    power, number = found.groups()
    return 0 < int(power) <= _MAX_LIFETIME if power else 0 < int(number) <= 1 << _MAX_LIFETIME
