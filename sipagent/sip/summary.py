"""What is worth seeing of a SIP message in a ladder: one line, its SDP in a few words, and what explains it."""

import re
from dataclasses import dataclass

from sipagent.sip import message, sdp

MAX_NOTE = 200
MAX_NOTES = 8

# Headers that tell why, in the words of the sender, and how they are called here.
_TELLING = (
    ("reason", "Reason"),
    ("warning", "Warning"),
    ("retry-after", "Retry-After"),
    ("min-se", "Min-SE"),
    ("min-expires", "Min-Expires"),
    ("x-sipagent-reason", "X-Sipagent-Reason"),
    ("x-sipagent-source", "X-Sipagent-Source"),
    ("refer-to", "Refer-To"),
    ("replaces", "Replaces"),
    ("diversion", "Diversion"),
    ("require", "Require"),
    ("rack", "RAck"),
    ("rseq", "RSeq"),
    ("event", "Event"),
    ("subscription-state", "Subscription-State"),
    ("session-expires", "Session-Expires"),
)
_CHALLENGES = ("www-authenticate", "proxy-authenticate")
_PARAMETER = re.compile(r'(realm|algorithm|stale)\s*=\s*("[^"]*"|[^\s,]+)', re.IGNORECASE)
_CREDENTIALS = ("authorization", "proxy-authorization")


# Static payload types (RFC 3551 section 6), and names that are long.
_SHORT = {
    "0": "PCMU",
    "3": "GSM",
    "8": "PCMA",
    "9": "G722",
    "13": "CN",
    "18": "G729",
    "telephone-event": "tel-event",
}


@dataclass(frozen=True, slots=True)
class Summary:
    method: str  # of the request, or of the request that a response answers
    status: int  # 0 for a request
    reason: str  # a response's phrase
    target: str  # a request's URI
    cseq: int
    sdp: str  # "" without; else such as "PCMU PCMA tel-event 192.0.2.1:4000 sendrecv"
    notes: list[str]


def summarise(text: str) -> Summary:
    """Never raises: of what cannot be read the fields are empty."""
    parsed = message.parse(text)
    words = parsed.start_line.split(" ", 2)
    number, _, method = parsed.get("cseq").partition(" ")
    status = parsed.status
    return Summary(
        method=(method.strip() if status else words[0])[:MAX_NOTE],
        status=status,
        reason=words[2][:MAX_NOTE] if status and len(words) > 2 else "",
        target=parsed.request_uri[:MAX_NOTE],
        cseq=int(number) if number.isascii() and number.isdigit() and len(number) < 11 else 0,
        sdp=_describe(message.sdp_of(parsed)),
        notes=[note[:MAX_NOTE] for note in _notes(parsed)][:MAX_NOTES],
    )


def _notes(parsed: message.Message) -> list[str]:
    notes: list[str] = []
    if parsed.get("content-type").lower().startswith("message/sipfrag"):
        notes.append(parsed.body.strip().partition("\n")[0].strip())
    if parsed.status // 100 == 3 and (contact := parsed.get("contact")):
        notes.append(f"Contact {contact}")
    if any(parsed.get(header) for header in _CREDENTIALS):
        notes.append("with credentials")
    for header in _CHALLENGES:
        if value := parsed.get(header):
            challenge = {name.lower(): given.strip('"') for name, given in _PARAMETER.findall(value)}
            stale = ", stale nonce" if challenge.get("stale", "").lower() == "true" else ""
            notes.append(f'challenge: realm "{challenge.get("realm", "")}", {challenge.get("algorithm", "MD5")}{stale}')
    return notes + [f"{name} {value}" for header, name in _TELLING if (value := parsed.get(header))]


def _describe(text: str) -> str:
    if not text:
        return ""
    try:
        session = sdp.parse(text)
    except ValueError as error:
        return f"SDP cannot be read: {error}"
    return "; ".join(_line(line) for line in session.media)[:MAX_NOTE]


def _line(line: sdp.MediaLine) -> str:
    if line.port == 0:
        return f"{line.kind} refused"
    mapped = [line.rtpmap.get(int(f), _SHORT.get(f, f)) if f.isdigit() else f for f in line.formats]
    names = [name.partition("/")[0] for name in mapped]
    words = dict.fromkeys(_SHORT.get(name.lower(), name) for name in names)  # once each, whatever their rates
    kind = "" if line.kind == "audio" else f"{line.kind} "
    crypto = " SRTP" if "SAVP" in line.protocol else ""
    return f"{kind}{' '.join(words)} {line.host}:{line.port} {line.direction}{crypto}"
