"""Who calls: the headers that say it, both ways (RFC 3261 From, RFC 3323 Privacy, RFC 3325 P-Asserted-Identity and
P-Preferred-Identity, draft-ietf-sip-privacy-04 Remote-Party-ID), and whom a call was for before it came to us
(RFC 5806 Diversion, RFC 7044 History-Info).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from sipagent.sip import message
from sipagent.sip.numbers import for_trunk, to_e164
from sipagent.sip.settings import USER_SAFE, TrunkSettings

MAX_DIVERSIONS = 10
MAX_NAME = 128
ANONYMOUS = '"Anonymous" <sip:anonymous@anonymous.invalid>'  # RFC 3323 section 4.1.1.3

# SIP's own headers: neither an operator's list nor an API client may set them.
_OURS = frozenset(
    "accept accept-encoding allow allow-events authorization call-id contact content-disposition content-encoding "
    "content-length content-type cseq date event expires from max-forwards mime-version min-se p-asserted-identity "
    "p-preferred-identity path privacy proxy-authenticate proxy-authorization proxy-require rack record-route refer-to "
    "remote-party-id replaces require route rseq server session-expires supported to user-agent via "
    "www-authenticate".split()
)
_NAME = re.compile(r"[A-Za-z0-9!%*_+`'~.-]{1,64}")

# RFC 4458 section 2 and RFC 3326: what the cause of a History-Info entry means, in Diversion's words.
_CAUSES = {
    "302": "unconditional",
    "404": "unknown",
    "408": "no-answer",
    "480": "unavailable",
    "486": "user-busy",
    "487": "deflection",
    "503": "unavailable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversion:
    """A number that the call was for before: it was sent on from there, newest first."""

    number: str
    reason: str  # Diversion's words: "unconditional", "user-busy", "no-answer", ...; "" when not said
    withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who rings us, as the trunk says."""

    number: str
    name: str
    asserted: bool  # by the trunk (P-Asserted-Identity, Remote-Party-ID); else it is the caller's own word
    withheld: bool  # the caller wants the number kept private
    diversions: tuple[Diversion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What our INVITE says of the caller."""

    from_value: str  # of From; "" leaves it to the account
    headers: dict[str, str]


def outgoing(trunk: TrunkSettings, number: str, *, withhold: bool = False, name: str = "") -> Shown:
    """The caller of a call placed over this trunk; ``number``: "" calls as the trunk's own account.

    >>> outgoing(TrunkSettings(name="t", domain="carrier.example"), "+4930123").from_value
    '<sip:+4930123@carrier.example>'
    """
    host = message.parse_address(trunk.identity).host
    user = for_trunk(number, trunk) if number else message.parse_address(trunk.identity).user
    uri = f"<sip:{quote(user, safe=USER_SAFE)}@{host}>"
    who = _display(name or trunk.caller_name) + uri
    withheld = withhold or trunk.withhold
    headers: dict[str, str] = {}
    for header in trunk.identity_headers:
        if header == "Remote-Party-ID":
            headers[header] = f"{who};party=calling;screen=yes;privacy={'full' if withheld else 'off'}"
        else:
            headers[header] = who
    if withheld:
        return Shown(from_value=ANONYMOUS, headers=headers | {"Privacy": "id"})
    own = not number or trunk.from_shows == "account"
    shown = _display(name or trunk.caller_name) + f"<{trunk.identity}>" if own else who
    return Shown(from_value="" if shown == f"<{trunk.identity}>" else shown, headers=headers)


def incoming(trunk: TrunkSettings | None, headers: Mapping[str, str], from_user: str, from_name: str = "") -> Caller:
    """Who calls, by the headers of an INVITE (`message.invite_headers`) and its From."""
    values = {name.lower(): value for name, value in headers.items()}
    believed = trunk is None or trunk.trust_identity
    origin = message.Address(display=from_name, user=from_user)
    private = {word.strip().lower() for word in re.split(r"[;,]", values.get("privacy", ""))}
    withheld = bool(private & {"id", "user", "header"}) or origin.user.lower() == "anonymous"
    found, asserted = origin, False
    for header in ("p-asserted-identity", "remote-party-id"):
        for value in message.split_list(values.get(header, "")):
            address = message.parse_address(value)
            if not address.user:
                continue
            withheld = withheld or address.params.get("privacy", "off").lower() in ("full", "uri")
            if believed and not asserted:
                found, asserted = address, True
    number = to_e164(found.user, trunk) if trunk is not None else found.user
    name = found.display or (origin.display if asserted and not withheld else "")
    return Caller(
        number=number,
        name="".join(char for char in name if char.isprintable())[:MAX_NAME],
        asserted=asserted,
        withheld=withheld,
        diversions=_diversions(trunk, values),
    )


def _diversions(trunk: TrunkSettings | None, values: Mapping[str, str]) -> tuple[Diversion, ...]:
    found = _by_diversion(values.get("diversion", "")) or _by_history(values.get("history-info", ""))
    if trunk is None:
        return found
    return tuple(
        Diversion(number=to_e164(entry.number, trunk), reason=entry.reason, withheld=entry.withheld) for entry in found
    )


def _by_diversion(value: str) -> tuple[Diversion, ...]:
    found: list[Diversion] = []
    for entry in message.split_list(value)[:MAX_DIVERSIONS]:
        address = message.parse_address(entry)
        if address.user:
            private = address.params.get("privacy", "off").lower() != "off"
            reason = _word(address.params.get("reason", ""))
            found.append(Diversion(number=address.user, reason=reason, withheld=private))
    return tuple(found)


def _by_history(value: str) -> tuple[Diversion, ...]:
    """All entries but the last, which is where the call went in the end: to us. The newest first, as in Diversion."""
    entries = [message.parse_address(entry) for entry in message.split_list(value)[: MAX_DIVERSIONS + 1]]
    found: list[Diversion] = []
    for entry, following in zip(entries, entries[1:], strict=False):
        if not entry.user:
            continue
        headers = unquote(entry.uri.partition("?")[2]).lower()
        said = re.search(r"cause=\"?([0-9]{1,3})", headers)
        cause = following.uri_params.get("cause", "") or (said[1] if said else "")
        private = "privacy=history" in headers
        found.append(Diversion(number=entry.user, reason=_CAUSES.get(cause, ""), withheld=private))
    return tuple(reversed(found))


def permitted(headers: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """Of these headers those that the list admits: names, with any case, and names that end in ``*``."""
    exact = {pattern.lower() for pattern in patterns if not pattern.endswith("*")}
    starts = tuple(pattern[:-1].lower() for pattern in patterns if pattern.endswith("*"))
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in exact or (starts and name.lower().startswith(starts))
    }


def settable(name: str, value: str) -> bool:
    """Whether somebody else than we may send this header: it is none of SIP's own, and of a header's form."""
    return (
        bool(_NAME.fullmatch(name))
        and name.lower() not in _OURS
        and not name.lower().startswith("x-sipagent-")  # between us and the edge
        and len(name) > 1  # the compact forms (RFC 3261 section 7.3.3) are SIP's own
        and len(value) <= message.MAX_VALUE
        and value.isprintable()
    )


def _display(name: str) -> str:
    """The name as a quoted-string with a space after it; "" for none."""
    clean = "".join(char for char in name if char.isprintable())[:MAX_NAME].strip()
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '" ' if clean else ""


def _word(text: str) -> str:
    return text.lower()[:32] if re.fullmatch(r"[A-Za-z-]+", text) else ""
