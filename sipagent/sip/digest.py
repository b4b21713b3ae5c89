"""Digest authentication of callers (RFC 3261 section 22, RFC 7616, RFC 8760): challenges, and what answers them.

Pure: time is an argument, nothing is sent. A nonce carries its time and our signature, so that a stranger who is
challenged costs no memory; only nonces that were used well are remembered, against replays, and not more of them than
``remember``.
"""

import hashlib
import hmac
import re
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

NONCE_S = 60.0
REMEMBER = 4096
MAX_CREDENTIALS = 2048  # characters of a header that we read

_HASHES: dict[str, Callable[[bytes], "hashlib._Hash"]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
_PART = re.compile(r'\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SIGNED = struct.Struct(">d8s")
_TAG_BYTES = 16


class Verdict(Enum):
    GRANTED = "granted"
    MISSING = "missing"  # no credentials for our realm, or none that can be read
    STALE = "stale"  # the password is right, the nonce too old or used before: challenge again with stale=true
    WRONG = "wrong"  # user or password


@dataclass(frozen=True, slots=True)
class Account:
    username: str
    password: str


class Authenticator:
    """Challenges callers and checks their answers; one for the node, any number of realms.

    >>> guard = Authenticator(b"k" * 32)
    >>> guard.check([], "INVITE", "sip:1@node", "sipagent", [], now=0.0)[0].value
    'missing'
    """

    def __init__(self, key: bytes | None = None, *, lifetime_s: float = NONCE_S, remember: int = REMEMBER) -> None:
        self._key = key or secrets.token_bytes(32)
        self._lifetime_s = lifetime_s
        self._remember = remember
        self._used: OrderedDict[str, tuple[float, int]] = OrderedDict()  # nonce to its time and highest count
        self._floor = float("-inf")  # nonces up to this time may have been forgotten: they count as used

    def challenges(self, realm: str, algorithms: tuple[str, ...], now: float, *, stale: bool = False) -> list[str]:
        """Values of WWW-Authenticate, one for each algorithm, the preferred first (RFC 8760 section 2.3)."""
        nonce = self._nonce(now, secrets.token_bytes(8), realm)
        extra = ", stale=true" if stale else ""
        return [
            f'Digest realm="{realm}", nonce="{nonce}", algorithm={algorithm}, qop="auth"{extra}'
            for algorithm in algorithms
        ]

    def check(
        self, credentials: list[str], method: str, uri: str, realm: str, accounts: list[Account], now: float
    ) -> tuple[Verdict, str]:
        """What the Authorization headers of a request are worth, and the username they prove ("" unless GRANTED)."""
        for value in credentials:
            fields = parse_credentials(value)
            if fields is not None and fields.get("realm") == realm:
                return self._judge(fields, method, uri, realm, accounts, now)
        return Verdict.MISSING, ""

    def _judge(
        self, fields: dict[str, str], method: str, uri: str, realm: str, accounts: list[Account], now: float
    ) -> tuple[Verdict, str]:
        algorithm = fields.get("algorithm", "MD5").upper()
        make = _HASHES.get(algorithm)
        if make is None or not _same_user(fields.get("uri", ""), uri):
            return Verdict.MISSING, ""
        qop, count_text = fields.get("qop", "").lower(), fields.get("nc", "")
        if qop not in ("", "auth") or (qop and not re.fullmatch(r"[0-9A-Fa-f]{8}", count_text)):
            return Verdict.MISSING, ""
        granted = ""
        # Also for an unknown user the work of one is done: the time taken shall not tell who exists.
        for account in accounts or [Account("", "")]:
            expected = response(make, fields, account, method, realm)
            right = hmac.compare_digest(expected.encode(), fields.get("response", "").lower().encode())
            named = hmac.compare_digest(account.username.encode(), fields.get("username", "").encode())
            if right and named and accounts:
                granted = account.username
        issued = self._issued(fields.get("nonce", ""), realm)
        if issued is None:
            return Verdict.MISSING, ""  # not a nonce of ours
        if not granted:
            return Verdict.WRONG, ""
        count = int(count_text, 16) if qop else 1
        if not self._use(fields["nonce"], issued, count, now):
            return Verdict.STALE, ""
        return Verdict.GRANTED, granted

    def _use(self, nonce: str, issued: float, count: int, now: float) -> bool:
        """Whether this nonce may be used with this count: young enough, and the count is higher than any before."""
        if not issued <= now <= issued + self._lifetime_s:
            return False
        known = self._used.get(nonce)
        if known is None and issued <= self._floor:
            return False
        if known is not None and count <= known[1]:
            return False
        self._used[nonce] = (issued, count)
        while self._used and next(iter(self._used.values()))[0] + self._lifetime_s < now:
            self._used.popitem(last=False)
        if len(self._used) > self._remember:
            _, (forgotten, _) = self._used.popitem(last=False)
            self._floor = max(self._floor, forgotten)
        return True

    def _nonce(self, now: float, salt: bytes, realm: str) -> str:
        signed = _SIGNED.pack(now, salt)
        return urlsafe_b64encode(signed + self._tag(signed, realm)).decode().rstrip("=")

    def _tag(self, signed: bytes, realm: str) -> bytes:
        return hmac.digest(self._key, signed + realm.encode(), "sha256")[:_TAG_BYTES]

    def _issued(self, nonce: str, realm: str) -> float | None:
        """When we made it; None when we did not."""
        try:
            raw = urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4)) if len(nonce) < 100 else b""
        except ValueError:
            return None
        signed, tag = raw[: _SIGNED.size], raw[_SIGNED.size :]
        if len(signed) != _SIGNED.size or not hmac.compare_digest(tag, self._tag(signed, realm)):
            return None
        return float(_SIGNED.unpack(signed)[0])


def parse_credentials(value: str) -> dict[str, str] | None:
    """The parameters of ``Digest username="a", ...`` by lower-case name; None when it is not of that form."""
    scheme, _, rest = value[:MAX_CREDENTIALS].strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    fields: dict[str, str] = {}
    at = 0
    while at < len(rest):
        found = _PART.match(rest, at)
        if found is None or found.end() == at or len(fields) > 20:
            return None
        quoted = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3]
        fields.setdefault(found[1].lower(), quoted)
        at = found.end()
    return fields


def response(
    make: Callable[[bytes], "hashlib._Hash"], fields: dict[str, str], account: Account, method: str, realm: str
) -> str:
    """RFC 7616 section 3.4.1; without qop as in RFC 2069."""

    def digest(text: str) -> str:
        return make(text.encode()).hexdigest()

    secret = digest(f"{account.username}:{realm}:{account.password}")
    request = digest(f"{method}:{fields.get('uri', '')}")
    nonce, qop = fields.get("nonce", ""), fields.get("qop", "")
    if not qop:
        return digest(f"{secret}:{nonce}:{request}")
    return digest(f"{secret}:{nonce}:{fields.get('nc', '')}:{fields.get('cnonce', '')}:{qop}:{request}")


def _same_user(credentials_uri: str, request_uri: str) -> bool:
    """Proxies change the host of a request URI on the way; whom it is for they do not. Some callers leave that out."""
    return _user(credentials_uri) in ("", _user(request_uri))


def _user(uri: str) -> str:
    userinfo, at, _ = uri.partition("@")
    return userinfo.partition(":")[2].partition(";")[0] if at else ""
