"""Causes by ITU-T Q.850, and which failures are the network's."""

from sipagent.core.termination import Cause
from sipagent.store.records import LegRecord

NORMAL_CLEARING, NO_ANSWER, NORMAL_UNSPECIFIED, INTERWORKING = 16, 19, 31, 127

# RFC 3398 section 7.2.4.1. The table leaves 488 and 606 to the Warning header; Asterisk and others take 58.
_BY_STATUS = {
    400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127, 414: 127,
    415: 79, 416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17,
    488: 58, 500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127, 513: 127, 600: 17, 603: 21, 604: 1, 606: 58,
}  # fmt: skip
# Ends that no SIP status tells of.
_BY_CAUSE = {
    Cause.NO_ACK: 102,
    Cause.SESSION_EXPIRED: 102,
    Cause.UNREACHABLE: 102,
    Cause.MEDIA_TIMEOUT: 41,
    Cause.LANE_DIED: 41,
    Cause.MEDIA_DIED: 41,
    Cause.NODE_CRASHED: 41,
    Cause.ERROR: 41,
}

NAMES = {
    1: "unallocated number",
    16: "normal clearing",
    17: "user busy",
    18: "no user responding",
    19: "no answer from user",
    21: "call rejected",
    22: "number changed",
    25: "exchange routing error",
    27: "destination out of order",
    28: "invalid number format",
    31: "normal, unspecified",
    34: "no circuit available",
    38: "network out of order",
    41: "temporary failure",
    42: "switching equipment congestion",
    58: "bearer capability not available",
    63: "service not available",
    79: "service not implemented",
    102: "recovery on timer expiry",
    127: "interworking",
}

# The called user, or their telephone, has decided: what the network had to do was done (ITU-T E.425, RFC 6076 SEER).
_USERS_CAUSES = frozenset({16, 17, 18, 19, 20, 21})
_USERS_STATUSES = frozenset({480, 486, 487, 600, 603})


def q850_of(leg: LegRecord) -> int | None:
    """The peer's own cause where it gave one, else what the end of the leg means; None while the leg is up."""
    if leg.ended_at is None:
        return None
    if leg.q850 is not None:
        return leg.q850
    if leg.cause in _BY_CAUSE:
        return _BY_CAUSE[leg.cause]
    if leg.answered_at is not None:
        return NORMAL_CLEARING
    if leg.cause is Cause.NO_ANSWER and leg.sip_status in (None, 0, 487):
        return NO_ANSWER  # we let it ring as long as we wanted
    if leg.sip_status == 487:
        return NORMAL_CLEARING  # cancelled: RFC 3398 section 8.1.2
    return _BY_STATUS.get(leg.sip_status or 0, NORMAL_UNSPECIFIED)


def is_effective(leg: LegRecord) -> bool:
    """The network brought the call to the user, whatever became of it there."""
    if leg.answered_at is not None:
        return True
    if leg.q850 is not None:
        return leg.q850 in _USERS_CAUSES
    return leg.sip_status in _USERS_STATUSES
