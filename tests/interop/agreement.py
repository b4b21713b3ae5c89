"""Two records of one call, ours and Asterisk's, laid beside each other."""

from datetime import datetime
from itertools import pairwise

from sipagent.core.termination import Disposition
from sipagent.store.records import FullCall
from tests.peers.pbx import Cdr

APART_S = 0.5  # one end's clock reading and the other's, of the same moment: a message's way and a busy machine
_SAME = {
    "ANSWERED": {Disposition.ANSWERED},
    "BUSY": {Disposition.BUSY},
    "NO ANSWER": {Disposition.NO_ANSWER, Disposition.CANCELLED},
    "FAILED": {Disposition.FAILED, Disposition.REJECTED},
    "CONGESTION": {Disposition.FAILED, Disposition.REJECTED},
}


def agree(record: FullCall, *cdrs: Cdr) -> None:
    """Same call, same outcome, answered and ended at the same time.

    Asterisk begins another record when a channel is moved elsewhere; they follow one another without a gap.
    """
    call = record.call
    for cdr in cdrs:
        assert cdr.sip_call_id == call.legs[0].sip_call_id
        assert call.disposition in _SAME[cdr.disposition], (call, cdr)
    assert _same(call.answered_at, cdrs[0].answer), (call.answered_at, cdrs)
    assert _same(call.ended_at, cdrs[-1].end), (call.ended_at, cdrs)
    for before, after in pairwise(cdrs):
        assert abs(after.start - before.end) < APART_S, cdrs


def _same(ours: datetime | None, theirs: float) -> bool:
    if ours is None or not theirs:
        return ours is None and not theirs
    return abs(ours.timestamp() - theirs) < APART_S
