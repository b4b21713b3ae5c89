"""What must not leave the lane with a SIP message: passwords' digests, SRTP keys, pressed keys, words.

Every masked character becomes an ``x``, so that lengths stay true: Content-Length, and the packets of a capture file.
"""

import re

# Of a digest (RFC 7616), what an engineer needs and nobody can derive a password from.
_SHOWN_OF_A_DIGEST = frozenset({"username", "realm", "uri", "algorithm", "qop", "nc"})
_CREDENTIALS = re.compile(
    r"^((?:proxy-)?authorization[ \t]*:[ \t]*)([^\s]*)([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE
)
_PARAMETER = re.compile(r'([A-Za-z0-9-]+)(\s*=\s*)("(?:[^"\\]|\\.)*"?|[^\s,]*)')
# SRTP keys (RFC 4568, RFC 4567, RFC 4566 section 5.12) and ICE's password.
_KEYS = re.compile(r"(inline:|^a=key-mgmt:|^k=|^a=ice-pwd:)([^\s|]+)", re.IGNORECASE | re.MULTILINE)
_KEY_WORDS = ("inline:", "key-mgmt", "k=", "ice-pwd")
_BEFORE_AT = re.compile(r"(?<![^\s@;<>\"])[^\s@;<>\"]++(?=@)")  # each word is looked at once: the sender is anyone
_USER = re.compile(r":[^:=,]+:(?=.)")
_CONTENT_TYPE = re.compile(r"^(?:content-type|c)[ \t]*:[ \t]*([^\s;,]+)", re.IGNORECASE | re.MULTILINE)
# Bodies that are signalling; all others may hold keys that were pressed (INFO, KPML) or words (MESSAGE).
_SHOWN_BODIES = ("application/sdp", "message/sipfrag", "application/pidf+xml")
_SOLID = re.compile(r"\S")


def masked(text: str) -> str:
    """The message, of which only a beginning need be there, without secrets."""
    head, gap, body = _split(text)
    # Most messages have nothing to mask: a look for a word costs a tenth of a search for a pattern.
    if "authorization" in head.lower():
        head = _CREDENTIALS.sub(_credentials, head)
    head = _BEFORE_AT.sub(_password, head)
    if body:
        kind = _CONTENT_TYPE.search(head)
        of_a_call = kind is not None and kind[1].lower().startswith(_SHOWN_BODIES)
        parts = kind is not None and kind[1].lower().startswith("multipart/") and "application/sdp" in body.lower()
        if not (of_a_call or parts):
            body = _hidden(body)
        elif any(word in body.lower() for word in _KEY_WORDS):
            body = _KEYS.sub(_second, body)
    return head + gap + body


def _split(text: str) -> tuple[str, str, str]:
    for gap in ("\r\n\r\n", "\n\n"):
        head, found, body = text.partition(gap)
        if found:
            return head, gap, body
    return text, "", ""


def _credentials(found: re.Match[str]) -> str:
    name, scheme, rest = found.groups()
    if scheme.lower() != "digest":
        return f"{name}{_xs(scheme)}{_SOLID.sub('x', rest)}"
    return f"{name}{scheme}{_PARAMETER.sub(_parameter, rest)}"


def _parameter(found: re.Match[str]) -> str:
    name, equals, value = found.groups()
    if name.lower() in _SHOWN_OF_A_DIGEST:
        return found[0]
    inner = f'"{_xs(value[1:-1])}"' if value.startswith('"') and value.endswith('"') and len(value) > 1 else _xs(value)
    return f"{name}{equals}{inner}"


def _password(found: re.Match[str]) -> str:
    word = found[0]
    user = _USER.search(word)
    return word if user is None else word[: user.end()] + _xs(word[user.end() :])


def _second(found: re.Match[str]) -> str:
    return found[1] + _xs(found[2])


def _hidden(body: str) -> str:
    """Names of ``Name=value`` lines stay (``Signal=x``, ``Duration=xxx``), everything else is masked."""
    lines = []
    for line in body.split("\n"):
        name, equals, value = line.partition("=")
        named = bool(equals) and name.strip().isalpha()
        lines.append(f"{name}={_SOLID.sub('x', value)}" if named else _SOLID.sub("x", line))
    return "\n".join(lines)


def _xs(text: str) -> str:
    return "x" * len(text)
