"""Placing, finding and ending calls."""

import asyncio
from dataclasses import replace

import pytest

from sipagent.core import clock
from sipagent.core.errors import CapacityError, ConfigError, ProcessDied
from sipagent.core.events import SipMessage, SipMessages
from sipagent.core.ids import CallId, new_call_id
from sipagent.store.queries import StoreReads

from .conftest import OTHER_KEY, Http
from .node import Node

CALLS = "/api/v1/voice/calls"


async def placed(http: Http, to_number: str = "+4930123") -> str:
    answer = await http.post(f"{CALLS}/initiate", {"to_number": to_number})
    assert answer.status == 201, answer
    return str(answer.body["id"])


async def test_what_is_asked_reaches_the_node(http: Http, node: Node) -> None:
    body = {"to_number": "sip:desk@example.com", "from_number": "+49301", "dialplan": "reminder", "trunk": "carrier"}
    answer = await http.post(f"{CALLS}/initiate", {**body, "timeout_s": 20})
    assert answer.status == 201
    [asked] = node.asked
    assert (asked.to_number, asked.from_number, asked.dialplan) == ("sip:desk@example.com", "+49301", "reminder")
    assert (asked.trunk, asked.timeout_s) == ("carrier", 20)
    assert answer.body == {
        "id": next(iter(node.live)),
        "from_number": "+49301",
        "to_number": "sip:desk@example.com",
        "status_callback_url": None,
        "record": False,
    }


async def test_a_call_just_placed_is_found_before_it_is_recorded(http: Http, node: Node) -> None:
    live = new_call_id()
    node.begins(live, "+49301", "+49302", "front-desk")
    answer = await http.get(f"{CALLS}/{live}")
    assert (answer.status, answer.body["state"]) == (200, "answered")
    legs = await http.get(f"{CALLS}/{live}/legs")
    assert (legs.status, len(legs.body["data"])) == (200, 1)


async def test_the_whole_record_of_a_call(http: Http, node: Node) -> None:
    call_id = await placed(http)
    node.says(call_id, "when do you open")
    assert (await http.post(f"{CALLS}/{call_id}/hangup")).status == 200
    await node.recorder.flush()
    record = (await http.get(f"{CALLS}/{call_id}/record")).body
    call = record["call"]
    assert (call["state"], call["reason"], call["disposition"]) == ("ended", "normal", "answered")
    assert (call["ended_by"], call["dialplan"], call["account_id"]) == ("operator", "front-desk", "default")
    [leg] = call["legs"]
    assert (leg["role"], leg["codec"], leg["call_session_id"]) == ("callee", "PCMA", call_id)
    assert leg["figures"]["packets_in"] == 500
    [turn] = record["turns"]
    assert (turn["caller_text"], turn["heard_text"], turn["interrupted"]) == ("when do you open", "We open", True)
    assert turn["latency"]["total_ms"] == 480.0
    types = [event["type"] for event in record["events"]]
    assert types == ["CallCreated", "LegCreated", "RouteChosen", "LegAnswered", "TurnEnded", "LegEnded", "CallEnded"]


async def test_the_sip_messages_of_a_call(http: Http, node: Node) -> None:
    call_id = await placed(http)
    text = "SIP/2.0 486 Busy Here\r\nCSeq: 1 INVITE\r\nRetry-After: 5\r\n\r\n"
    at = clock.now()
    first = SipMessage(
        seq=0,
        at=at,
        sent=False,
        transport="UDP",
        local="192.0.2.9:5060",
        remote="192.0.2.1:5060",
        size=len(text),
        repeats=None,
        text=text,
    )
    again = replace(first, seq=2, at=at.at_mono(at.mono + 500_000_000), repeats=0, text="")
    node.hub.emit(SipMessages(at=at, call_id=CallId(call_id), dialog=-1, leg_id="", count=2, messages=(first, again)))
    await node.recorder.flush()
    page = (await http.get(f"{CALLS}/{call_id}/sip")).body
    assert (page["not_kept"], page["has_more"]) == (1, False)
    busy, repeated = page["data"]
    assert (busy["status"], busy["reason"], busy["method"]) == (486, "Busy Here", "INVITE")
    assert (busy["notes"], busy["leg_id"], busy["text"]) == (["Retry-After 5"], None, text)
    assert (repeated["repeats"], repeated["offset_ms"], repeated["text"]) == (0, 500.0, text)
    assert {event["type"]: event["data"] for event in (await http.get(f"{CALLS}/{call_id}/record")).body["events"]}[
        "SipMessages"
    ] == {"dialog": -1, "count": 2}


async def test_live_calls_come_and_go(http: Http) -> None:
    call_id = await placed(http)
    [live] = (await http.get("/api/v1/live-calls")).body["data"]
    assert (live["id"], live["state"], live["agent"]) == (call_id, "answered", "desk")
    await http.post(f"{CALLS}/{call_id}/hangup")
    assert (await http.get("/api/v1/live-calls")).body["data"] == []


async def test_hanging_up_what_is_not_up(http: Http, node: Node) -> None:
    assert (await http.post(f"{CALLS}/call_none/hangup")).status == 404
    call_id = await placed(http)
    await http.post(f"{CALLS}/{call_id}/hangup")
    await node.recorder.flush()
    again = await http.post(f"{CALLS}/{call_id}/hangup")
    assert (again.status, again.body["message"]) == (409, "this call is not up any more")


@pytest.mark.parametrize("path", ["", "/legs", "/record", "/sip"])
async def test_an_unknown_call_is_404(http: Http, path: str) -> None:
    answer = await http.get(f"{CALLS}/call_none{path}")
    assert (answer.status, answer.body) == (404, {"message": "there is no such call", "errors": []})


async def test_pages_both_ways(http: Http, node: Node) -> None:
    for index in range(5):
        await placed(http, f"+49{index}")
    await node.recorder.flush()
    everything = [call["id"] for call in (await http.get(CALLS)).body["data"]]
    assert len(everything) == 5

    first = (await http.get(CALLS, params={"limit": "2"})).body
    assert first["has_more"] and first["previous_cursor"] is None
    second = (await http.get(CALLS, params={"limit": "2", "cursor_after": first["next_cursor"]})).body
    last = (await http.get(CALLS, params={"limit": "2", "cursor_after": second["next_cursor"]})).body
    assert [call["id"] for page in (first, second, last) for call in page["data"]] == everything
    assert not last["has_more"] and last["next_cursor"] is None
    back = (await http.get(CALLS, params={"limit": "2", "cursor_before": last["previous_cursor"]})).body
    assert back["data"] == second["data"]


async def test_filters(http: Http, node: Node) -> None:
    first, second = await placed(http, "+491"), await placed(http, "+492")
    await http.post(f"{CALLS}/{first}/hangup")
    await node.recorder.flush()

    async def found(**params: str) -> list[str]:
        answer = await http.get(CALLS, params=params)
        assert answer.status == 200, answer
        return [call["id"] for call in answer.body["data"]]

    assert await found(state="ended") == [first]
    assert await found(state="answered") == [second]
    assert await found(to_number="+492") == [second]
    assert await found(from_number="nobody") == []
    assert await found(created_after="2020-01-01T00:00:00Z") == [second, first]
    assert await found(created_before="2020-01-01T00:00:00") == []  # without a zone: UTC


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (CapacityError("all 4 calls are in use"), 503),
        (ProcessDied("the lane is gone"), 503),
        (ConfigError("trunk nowhere is not configured"), 422),
        (ValueError("not a SIP URI"), 422),
        (RuntimeError("a bug with +49301234 in it"), 500),
    ],
)
async def test_the_nodes_refusals_have_their_status(http: Http, node: Node, failure: Exception, status: int) -> None:
    node.failure = failure
    answer = await http.post(f"{CALLS}/initiate", {"to_number": "+491"})
    assert answer.status == status
    assert (answer.body["message"] == str(failure)) is (status != 500)
    assert ("Retry-After" in answer.headers) is isinstance(failure, CapacityError)


async def test_a_node_that_hangs_is_not_waited_for(http: Http, node: Node) -> None:
    node.delay_s = 9
    answer = await http.post(f"{CALLS}/initiate", {"to_number": "+491"})
    assert answer.status == 504


async def test_a_record_that_cannot_be_read_is_503(http: Http, node: Node) -> None:
    nowhere = node.reads = StoreReads("sqlite:////nonexistent/sipagent.db")
    answer = await http.get(CALLS)
    assert (answer.status, answer.body["message"][:26]) == (503, "the record cannot be read:")
    await nowhere.close()


class TestIdempotency:
    async def test_same_key_same_answer_done_once(self, http: Http, node: Node) -> None:
        answers = [await self.initiate(http, "k1") for _ in range(3)]
        assert len({str(answer.body) for answer in answers}) == 1
        assert len(node.asked) == 1
        await self.initiate(http, "k2")
        assert len(node.asked) == 2

    async def test_at_the_same_time(self, http: Http, node: Node) -> None:
        node.delay_s = 0.1
        answers = await asyncio.gather(*(self.initiate(http, "k1") for _ in range(5)))
        assert len({answer.body["id"] for answer in answers}) == 1
        assert len(node.asked) == 1

    async def test_another_request_under_the_same_key_is_409(self, http: Http) -> None:
        await self.initiate(http, "k1")
        assert (await self.initiate(http, "k1", to_number="+492")).status == 409

    async def test_another_customer_may_have_the_same_key(self, http: Http, node: Node) -> None:
        await self.initiate(http, "k1")
        await self.initiate(http, "k1", key=OTHER_KEY)
        assert len(node.asked) == 2

    async def test_a_failure_may_be_tried_again(self, http: Http, node: Node) -> None:
        node.failure = CapacityError("full")
        assert (await self.initiate(http, "k1")).status == 503
        node.failure = None
        assert (await self.initiate(http, "k1")).status == 201

    async def test_a_call_placed_after_its_client_gave_up_is_not_placed_twice(self, http: Http, node: Node) -> None:
        node.delay_s = 4.0  # longer than the server waits
        assert (await self.initiate(http, "k1")).status == 504
        async with asyncio.timeout(20):
            while not node.live:
                await asyncio.sleep(0.05)
        answer = await self.initiate(http, "k1")
        assert (answer.status, answer.body["id"]) == (201, next(iter(node.live)))
        assert len(node.asked) == 1

    async def test_hanging_up_twice_under_one_key_is_one_answer(self, http: Http) -> None:
        call_id = await placed(http)
        headers = {"Idempotency-Key": "h1"}
        first = await http.post(f"{CALLS}/{call_id}/hangup", {}, headers=headers)
        second = await http.post(f"{CALLS}/{call_id}/hangup", {}, headers=headers)
        assert first.status == second.status == 200
        assert first.body == second.body

    async def test_a_key_too_long_is_422(self, http: Http) -> None:
        assert (await self.initiate(http, "k" * 256)).status == 422

    async def initiate(self, http: Http, idempotency_key: str, to_number: str = "+491", **options: str):
        headers = {"Idempotency-Key": idempotency_key}
        return await http.post(f"{CALLS}/initiate", {"to_number": to_number}, headers=headers, **options)
