"""What became of REGISTER and OPTIONS: pjsua2's callbacks, read while they last."""

from typing import Any

import pjsua2 as pj

from sipagent.sip import message
from sipagent.sip.edge_script import EDGE
from sipagent.sip.lane_stack import clean, header_vector
from sipagent.sip.protocol import OptionsResult, RegistrationResult

# pj_status_t of an answer that PJSIP could not give to a challenge (sip_errno.h, errno.h).
_FAILED_CREDENTIAL, _NO_CREDENTIAL, _STALE_COUNT, _NO_CHALLENGE = 171100, 171101, 171111, 171114
_NO_ALGORITHM = (171102, 171103, 70012)


def options(token: int, target: str, headers: dict[str, str]) -> Any:
    """The parameters of an OPTIONS request. The token comes back in Timestamp (RFC 3261 section 20.38)."""
    param = pj.SendRequestParam()
    param.method = "OPTIONS"
    param.txOption.targetUri = target
    param.txOption.headers = header_vector([*headers.items(), ("Timestamp", str(token))])
    return param


def options_result(prm: Any) -> OptionsResult | None:
    """Of onSendRequest; None when it is not of our making, or only provisional."""
    if prm.e.type != pj.PJSIP_EVENT_TSX_STATE:
        return None
    change = prm.e.body.tsxState
    status = int(change.tsx.statusCode)
    sent = message.parse(clean(change.tsx.lastTx.wholeMsg))
    token = sent.get("timestamp")
    if status < 200 or not token.isdigit():
        return None
    answered = change.type == pj.PJSIP_EVENT_RX_MSG
    if answered and message.parse(clean(change.src.rdata.wholeMsg)).get(EDGE):
        answered = False  # the edge's own word: nobody answered it
    return OptionsResult(token=int(token), status=status, answered=answered)


def registration_result(account: str, prm: Any) -> RegistrationResult:
    """Of onRegState."""
    response = message.parse(clean(prm.rdata.wholeMsg))
    status, expires_s = int(prm.code), int(prm.expiration)
    server, via = clean(prm.rdata.srcAddress) if response.status else "", response.get("via")
    if server.startswith("127.") and response.get("x-sipagent-server"):  # the edge speaks, of what lies behind it
        server, via = response.get("x-sipagent-server"), response.get("x-sipagent-seen")
    return RegistrationResult(
        account=account,
        status=status,
        reason=clean(prm.reason),
        expires_s=expires_s if status // 100 == 2 else 0,
        contact=response.get("contact"),
        answered=response.status > 0 and not response.get(EDGE),
        server=server,
        seen=message.seen_as(via),
        retry_after_s=message.seconds(response.get("retry-after")),
        trouble=_trouble(int(prm.status), response),
        min_expires_s=message.seconds(response.get("min-expires")),
    )


def _trouble(library_status: int, response: message.Message) -> str:
    if library_status == _STALE_COUNT:  # a new nonce every time: only the registrar knows whether the password is right
        challenges = " ".join(response.all("www-authenticate") + response.all("proxy-authenticate"))
        return "stale" if "stale=true" in challenges.lower().replace('"', "") else "password"
    if library_status in _NO_ALGORITHM:
        return "algorithm"
    return {_FAILED_CREDENTIAL: "password", _NO_CREDENTIAL: "realm", _NO_CHALLENGE: "challenge"}.get(library_status, "")
