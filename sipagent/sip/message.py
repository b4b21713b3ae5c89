"""Reading a SIP message (RFC 3261 section 7) given as text: headers, addresses, the SDP in its body.

PJSIP has already parsed what it needs; this is for what sipagent wants to know besides. Forgiving, because a header
that cannot be read must not cost a call, and bounded, because the sender is anyone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

MAX_TEXT = 64 * 1024
MAX_HEADERS = 256
MAX_VALUE = 1024  # of one header handed on to main
MAX_KEPT = 32

# RFC 3261 section 7.3.3 and the later registrations.
_COMPACT = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
}
# Who calls, for whom, by way of whom.
_IDENTITY_HEADERS = frozenset(
    {
        "p-asserted-identity",
        "p-preferred-identity",
        "p-called-party-id",
        "remote-party-id",
        "diversion",
        "history-info",
        "privacy",
        "call-info",
        "referred-by",
        "user-to-user",
    }
)
# SIP's own business, handled by PJSIP or carried in fields of their own.
_SIP_HEADERS = frozenset(
    "accept accept-encoding allow authorization call-id contact content-disposition content-encoding content-length "
    "content-type cseq from max-forwards mime-version min-se path proxy-authorization proxy-require record-route "
    "replaces require route session-expires supported timestamp to via x-sipagent-source".split()
)
_FINAL_HEADERS = frozenset({"reason", "retry-after", "warning", "p-asserted-identity"})


@dataclass(frozen=True, slots=True)
class Message:
    """``headers`` in order, names as the sender wrote them (compact forms too), folded lines joined."""

    start_line: str
    headers: tuple[tuple[str, str], ...]
    body: str

    def get(self, name: str) -> str:
        """The first value of the header, whatever its case or form; "" when it is absent."""
        wanted = name.lower()
        return next((value for key, value in self.headers if _canonical(key) == wanted), "")

    def all(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.headers if _canonical(key) == wanted]

    @property
    def request_uri(self) -> str:
        """ "" for a response."""
        parts = self.start_line.split(" ")
        return parts[1] if len(parts) == 3 and parts[2].startswith("SIP/") else ""

    @property
    def status(self) -> int:
        """0 for a request."""
        parts = self.start_line.split(" ", 2)
        return int(parts[1]) if parts[0].startswith("SIP/") and len(parts) > 1 and _is_number(parts[1]) else 0


@dataclass(frozen=True, slots=True)
class Address:
    """A SIP or tel URI with what surrounds it: ``"Ann" <sip:ann@example.com:5070;transport=tcp>;tag=1``."""

    display: str = ""
    uri: str = ""
    user: str = ""  # percent-decoded, without user parameters; a tel URI's number
    host: str = ""
    port: int = 0  # 0 when not given
    uri_params: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)  # after the ">": tag, reason, ...


def parse(text: str) -> Message:
    """Never raises: what is beyond the limits or not of the form ``Name: value`` is left out."""
    text = text[:MAX_TEXT]
    parts = re.split(r"\r?\n\r?\n", text, maxsplit=1)
    body = parts[1] if len(parts) == 2 else ""
    lines = re.split(r"\r?\n", parts[0].lstrip("\r\n"))
    headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        if line[:1] in (" ", "\t"):
            if headers:  # a folded line goes on with the header before it (section 7.3.1)
                headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}".strip())
            continue
        name, colon, value = line.partition(":")
        if colon and name.strip() and len(headers) < MAX_HEADERS:
            headers.append((name.strip(), value.strip()))
    return Message(lines[0].strip(), tuple(headers), body)


def parse_address(value: str) -> Address:
    """A name-addr or addr-spec (RFC 3261 section 20.10). What cannot be read comes back empty."""
    value = value[:MAX_TEXT].strip()
    display = params = ""
    uri = value
    left = _outside_quotes(value, "<")
    if left >= 0:
        display = value[:left].strip()
        right = value.find(">", left)
        uri, params = (value[left + 1 : right], value[right + 1 :]) if right >= 0 else (value[left + 1 :], "")
        if display.startswith('"') and display.endswith('"') and len(display) >= 2:
            display = re.sub(r"\\(.)", r"\1", display[1:-1])
    else:
        # Without brackets the parameters belong to the header, not to the URI (RFC 3261 section 20).
        uri, _, params = value.partition(";")
    user, host, port, uri_params = _parse_uri(uri.strip())
    return Address(display, uri.strip(), user, host, port, uri_params, _params(params))


def split_list(value: str) -> list[str]:
    """The parts of a header that is a list (RFC 3261 section 7.3.1): commas inside quotes or brackets part nothing."""
    parts: list[str] = []
    start, quoted, inside = 0, False, False
    index = 0
    while index < len(value):
        char = value[index]
        if char == "\\" and quoted:
            index += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in "<>":
            inside = char == "<"
        elif char == "," and not quoted and not inside:
            parts.append(value[start:index].strip())
            start = index + 1
        index += 1
    parts.append(value[start:].strip())
    return [part for part in parts if part]


def sdp_of(message: Message) -> str:
    """The session description in the body, also from inside a multipart body (RFC 5621); "" when there is none."""
    kind = message.get("content-type").lower()
    if kind.startswith("application/sdp"):
        return message.body
    if kind.startswith("multipart/"):
        found = re.search(r'boundary="?([^";\s]+)', message.get("content-type"), re.IGNORECASE)
        if found is None:
            return ""
        for part in message.body.split(f"--{found[1]}")[1:]:
            # A part has headers and a body but no start line: give it one.
            inner = parse("part\r\n" + part.lstrip("\r\n"))
            if inner.get("content-type").lower().startswith("application/sdp"):
                return inner.body
    return ""


def invite_headers(message: Message) -> dict[str, str]:
    """The headers of an INVITE without SIP's own; several of one name are joined by a comma.

    Those that say who calls come first: a crowd of others shall not push them over the bound.
    """
    who = _kept(message, _IDENTITY_HEADERS)
    others = {_canonical(name) for name, _ in message.headers} - _SIP_HEADERS - _IDENTITY_HEADERS
    return who | _kept(message, frozenset(others), room=MAX_KEPT - len(who))


def credentials(message: Message) -> list[str]:
    """Values of Authorization and Proxy-Authorization, a few of them."""
    values = message.all("authorization") + message.all("proxy-authorization")
    return [value[: 2 * MAX_VALUE] for value in values[:4]]


def final_headers(message: Message) -> dict[str, str]:
    """X- headers and those that explain a final response or a BYE; where a redirection points (3xx)."""
    redirected = {"contact"} if message.status // 100 == 3 else set()
    own = {name.lower() for name, _ in message.headers if name.lower().startswith("x-")}
    return _kept(message, _FINAL_HEADERS | redirected | own)


def replaced_dialog(value: str) -> tuple[str, str, str, bool] | None:
    """Call-ID, to-tag, from-tag and early-only of a Replaces value (RFC 3891); None when one of them is missing."""
    call_id, _, rest = value[:MAX_VALUE].partition(";")
    params = _params(rest)
    to_tag, from_tag = params.get("to-tag", ""), params.get("from-tag", "")
    return (call_id.strip(), to_tag, from_tag, "early-only" in params) if call_id and to_tag and from_tag else None


def refer_to(value: str) -> tuple[str, str]:
    """The URI of a Refer-To value without its headers, and the value of the Replaces among those ("" for none)."""
    uri, _, headers = parse_address(value).uri.partition("?")
    for part in headers[:MAX_VALUE].split("&"):
        name, _, text = part.partition("=")
        if name.lower() == "replaces":
            return uri, unquote(text)
    return uri, ""


def redirections(message: Message) -> tuple[str, ...]:
    """Where a 3xx points: the SIP and tel URIs of its Contact headers, the preferred ones first, at most 8."""
    found: list[tuple[float, str]] = []
    for value in message.all("contact"):
        for part in _split(value):
            address = parse_address(part)
            if address.uri.lower().startswith(("sip:", "sips:", "tel:")):
                found.append((_quality(address.params.get("q", "1")), address.uri))
    return tuple(uri for _, uri in sorted(found, key=lambda each: -each[0])[:8])


def seen_as(via: str) -> str:
    """host:port that the server saw our request come from (RFC 3581), by our Via in its answer; "" where it is mute."""
    sent, _, params = via.partition(",")[0].partition(";")
    named = _params(params)
    host = named.get("received", "") or sent.rpartition(" ")[2].partition(":")[0]
    port = named.get("rport", "")
    return f"{host}:{port}" if host and _is_number(port) else ""


_WELL = {("SIP", "200"), ("Q.850", "16")}  # of a call that was simply hung up: nothing to explain


def explanation(headers: Mapping[str, str]) -> str:
    """What a peer gave as its reason (RFC 3326) and when it may be tried again; the text it wrote is left out."""
    found: list[str] = []
    for name, value in headers.items():
        if name.lower() == "reason":
            causes = re.findall(r"(?:^|,)\s*([A-Za-z0-9.]{1,16})\s*;[^,]*?cause\s*=\s*([0-9]{1,3})", value)
            found += [f"{each} cause {number}" for each, number in causes[:4] if (each.upper(), number) not in _WELL]
        elif name.lower() == "retry-after" and seconds(value):
            found.append(f"try again after {seconds(value)} s")
    return "the peer says: " + ", ".join(found) if found else ""


def q850(headers: Mapping[str, str]) -> int:
    """The cause that a peer gave by Q.850 (RFC 3326), 1 to 127; 0 where it gave none."""
    for name, value in headers.items():
        if name.lower() == "reason":
            found = re.search(r"(?:^|,)\s*Q\.850\s*;[^,]*?cause\s*=\s*([0-9]{1,3})", value, re.IGNORECASE)
            if found is not None and 1 <= int(found[1]) <= 127:
                return int(found[1])
    return 0


def seconds(value: str) -> int:
    """The number at the head of a Retry-After or Expires value, 0 when there is none; at most a day."""
    found = re.match(r"\s*([0-9]{1,9})", value)
    return min(int(found[1]), 86400) if found else 0


def _kept(message: Message, wanted: frozenset[str], *, room: int = MAX_KEPT) -> dict[str, str]:
    kept: dict[str, str] = {}
    names: dict[str, str] = {}  # canonical name to the spelling used first
    for name, value in message.headers:
        canonical = _canonical(name)
        if canonical not in wanted:
            continue
        if canonical in names:
            spelling = names[canonical]
            kept[spelling] = f"{kept[spelling]}, {value}"[:MAX_VALUE]
        elif len(kept) < room:
            spelling = _COMPACT[name.lower()].title() if name.lower() in _COMPACT else name
            names[canonical] = spelling
            kept[spelling] = value[:MAX_VALUE]
    return kept


def _canonical(name: str) -> str:
    name = name.lower()
    return _COMPACT.get(name, name)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _quality(text: str) -> float:
    """A q value, 0 to 1 (RFC 3261 section 25.1); 1 where it cannot be read."""
    return float(text) if re.fullmatch(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", text) else 1.0


def _split(value: str) -> list[str]:
    """The parts of a comma-separated header, commas within quotes and brackets left alone."""
    return re.findall(r'(?:"(?:\\.|[^"\\])*"|<[^>]*>|[^,"<])+', value[:MAX_TEXT])


def _outside_quotes(text: str, wanted: str) -> int:
    quoted = False
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\" and quoted:
            index += 1
        elif char == '"':
            quoted = not quoted
        elif char == wanted and not quoted:
            return index
        index += 1
    return text.find(wanted) if quoted else -1  # a quote that is never closed hides nothing


def _parse_uri(uri: str) -> tuple[str, str, int, dict[str, str]]:
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return "", "", 0, {}
    if scheme.lower() == "tel":
        number, _, params = rest.partition(";")
        return unquote(number), "", 0, _params(params)
    if scheme.lower() not in ("sip", "sips"):
        return "", "", 0, {}
    rest = rest.partition("?")[0] if "@" not in rest.partition("?")[2] else rest
    userinfo, at, hostpart = rest.rpartition("@")
    # The user part may carry a password after ":" and parameters after ";" (RFC 3966 inside a SIP URI).
    user = unquote(re.split("[:;]", userinfo, maxsplit=1)[0]) if at else ""
    hostport, _, params = hostpart.partition("?")[0].partition(";")
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::([0-9]{1,5}))?", hostport.strip())
    if found is None:
        return user, "", 0, _params(params)
    return user, found[1].strip("[]"), int(found[2] or 0), _params(params)


def _params(text: str) -> dict[str, str]:
    result: dict[str, str] = {}
    for part in text.split(";"):
        name, _, value = part.strip().partition("=")
        if name and len(result) < MAX_KEPT:
            result[name.strip().lower()] = value.strip().strip('"')
    return result
