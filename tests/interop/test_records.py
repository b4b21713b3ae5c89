"""Our detail records and reports, against what Asterisk and SIPp say of the same calls."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import pytest
import pytest_asyncio

from sipagent.core import clock
from sipagent.core.states import Direction
from sipagent.reports.cdr import CallDetail, LegDetail
from sipagent.reports.reading import Reports
from sipagent.reports.report import Question
from sipagent.store.report_queries import ReportQueries
from tests.interop.agreement import APART_S
from tests.interop.node import Node
from tests.peers.pbx import Cdr, Pbx
from tests.peers.sipp import Sipp

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]

TRUNK = """
[[trunks]]
name = "sipp"
domain = "127.0.0.1"
peers = ["127.0.0.1/32"]
"""
PLAN = """
routes:
  - {name: busy, called: ["busy"], steps: busy}
  - {name: tone, steps: tone}
steps:
  tone: [answer, play: tone.wav]
  busy: [reject: 486]
agents: {}
"""


class Records:
    """Of one node, from a moment on."""

    def __init__(self, node: Node) -> None:
        self.since = clock.now().wall
        self._queries = ReportQueries(f"sqlite:///{node.folder / 'sipagent.db'}")
        self.reports = Reports(self._queries, [], "EUR")

    def close(self) -> None:
        self._queries.close()

    def all(self) -> list[CallDetail]:
        now = clock.now().wall
        return list(self.reports.details_between(self.since, now, now))

    def report(self, **more):
        now = clock.now().wall
        return self.reports.report(Question(begin=self.since, end=now, **more), now)


@pytest.fixture
def records(node: Node) -> Iterator[Records]:
    records = Records(node)
    yield records
    records.close()


async def test_asterisk_writes_down_the_same(pbx: Pbx, node: Node, records: Records) -> None:
    """Seven calls of seven ends: instants and seconds of talk, outcome, and the cause that Asterisk gave."""
    ids = [await node.call(f"sip:{extension}@{pbx.address}", "plain") for extension in ("toner", "shortr")]
    for call_id in ids:
        await node.answered(call_id)
    await asyncio.sleep(1.2)
    node.live(ids[0]).hangup()
    for call_id in ids:
        await node.ended(call_id)
    causes = [17, 19, 21, 34]
    for cause in causes:
        ids.append(await node.call(f"sip:cause{cause}@{pbx.address}", "plain"))
        await node.ended(ids[-1])
    ids.append(await node.call(f"sip:ring@{pbx.address}", "plain", ring_timeout_s=1.0))
    await node.ended(ids[-1])

    found = {call.id: call for call in records.all()}
    calls = [found[call_id] for call_id in ids]
    cdrs = [await pbx.cdr(call.legs[0].sip_call_id) for call in calls]
    for call, cdr in zip(calls, cdrs, strict=True):
        _agree(call.legs[0], cdr)
    assert [call.q850 for call in calls] == [16, 16, *causes, 19]
    assert [call.legs[0].q850_by_peer for call in calls[1:6]] == [True] * 5
    assert [call.legs[0].q850_by_peer for call in (calls[0], calls[6])] == [False] * 2  # we hung up
    report = records.report(by="q850", trunk="plain", direction=Direction.OUTBOUND)
    answered = [cdr for cdr in cdrs if cdr.disposition == "ANSWERED"]
    total = report.total
    assert (total.calls, total.seizures, total.answered) == (len(cdrs), len(cdrs), len(answered))
    assert total.billable_min * 60 == pytest.approx(sum(cdr.end - cdr.answer for cdr in answered), abs=2 * APART_S)
    assert total.asr_percent == round(100 * len(answered) / len(cdrs), 2)
    assert total.ner_percent == round(100 * 6 / 7, 2)  # all but "no circuit available"
    assert {row.key.split()[0]: row.calls for row in report.rows} == {"16": 2, "17": 1, "19": 2, "21": 1, "34": 1}


async def test_a_transfer_is_a_leg_in_both_records(pbx: Pbx, node: Node, records: Records) -> None:
    """A caller of Asterisk's is joined with somebody there: two legs of ours, two channels of its."""
    await node.route("7001", "answer", {"dial": {"to": f"sip:shortd@{pbx.address}"}}, "hangup")
    since = len(node.events)
    channel = await pbx.call("plain", "tonej", caller="7001")
    call = await node.incoming(since)
    await node.ended(call.id, 30)
    detail = next(each for each in records.all() if each.id == call.id)
    caller, callee = detail.legs
    assert (caller.role, callee.role, detail.human) == ("caller", "dial", True)
    _agree(caller, await pbx.cdr_of(channel))
    _agree(callee, await pbx.cdr(callee.sip_call_id))


def _agree(leg: LegDetail, cdr: Cdr) -> None:
    """To the second: the two ends of one leg read their clocks half a second apart at most."""

    def same(ours: datetime | None, theirs: float) -> bool:
        return (ours is None and not theirs) or (ours is not None and abs(ours.timestamp() - theirs) < APART_S)

    assert same(leg.answered_at, cdr.answer), (leg, cdr)
    assert same(leg.ended_at, cdr.end), (leg, cdr)
    talked = cdr.end - cdr.answer if cdr.answer else 0.0
    assert abs(leg.billable_s - talked) < APART_S, (leg, cdr)
    assert (leg.disposition == "answered") is (cdr.disposition == "ANSWERED")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def answering() -> AsyncIterator[Node]:
    async with Node(TRUNK, PLAN) as node:
        yield node


async def test_sipp_counts_the_same(answering: Node) -> None:
    """Six calls, two at a time, of 1.5 s each, and two that are refused."""
    records = Records(answering)
    try:
        to = answering.address
        async with Sipp("uac-inbound-answered.xml", target=to, calls=6, rate=20.0, limit=2, duration_ms=1500) as sipp:
            result = await sipp.wait()
        result.check()
        stats = result.stats
        assert stats["TotalCallCreated"] == "6"
        async with Sipp("uac-inbound-over-limit-expect-486.xml", target=to, service="busy", calls=2) as sipp:
            (await sipp.wait()).check()
        for call in list(answering.app.registry.live):
            await answering.ended(call.id)
        await answering.app.recorder.flush()
        calls = records.all()
        talked = [call for call in calls if call.answered_at is not None]
        assert (len(calls), len(talked)) == (8, int(stats["SuccessfulCall(C)"]))
        lasted = sum((call.ended_at - call.setup_at).total_seconds() for call in talked if call.ended_at) / len(talked)
        assert lasted == pytest.approx(_seconds(stats["CallLength(C)"]), abs=APART_S)
        report = records.report(by="sip")
        assert report.total.peak == 2 and report.total.asr_percent == 75.0
        assert {row.key: row.seizures for row in report.rows} == {"200": 6, "486": 2}
        assert report.total.acd_s == pytest.approx(lasted, abs=APART_S)
    finally:
        records.close()


def _seconds(text: str) -> float:
    """SIPp writes 00:00:01:514000."""
    hours, minutes, seconds, micros = (int(part) for part in text.split(":"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=micros).total_seconds()
