"""API keys that were made: what each may do and how often, until when; who changed what; what was asked once."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from sipagent.api.auth import Rates
from sipagent.api.calls.backend import Originate
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.backend import access as live_access
from sipagent.backend.access import LiveAccess
from sipagent.core.ids import new_call_id
from sipagent.store.records import RecordUnavailable

from .conftest import KEY, KEY_HASH, Http
from .node import Node

KEYS, CALLS, APPS = "/api/v1/keys", "/api/v1/voice/calls", "/api/v1/voice/apps"
SECOND = 1_000_000_000


async def made(http: Http, scope: str, **more: Any) -> dict[str, Any]:
    answer = await http.post(KEYS, {"name": f"for {scope}", "scopes": [scope], **more})
    assert answer.status == 201, answer.body
    return dict(answer.body)


async def test_a_key_may_do_what_its_scope_says_and_nothing_else(http: Http) -> None:
    read, control, admin = [(await made(http, scope))["key"] for scope in ("read", "control", "admin")]
    call = {"to_number": "+49301"}
    for key, may in ((read, (200, 403, 403)), (control, (200, 201, 403)), (admin, (200, 201, 200))):
        answers = [
            (await http.get(CALLS, key=key)).status,
            (await http.post(f"{CALLS}/initiate", call, key=key)).status,
            (await http.get(KEYS, key=key)).status,
        ]
        assert tuple(answers) == may
    assert "scope" in (await http.get(KEYS, key=read)).body["message"]


async def test_a_key_is_shown_once_and_only_its_hash_kept(http: Http, node: Node) -> None:
    key = await made(http, "read")
    listed = (await http.get(KEYS)).body["data"]
    assert [it["id"] for it in listed] == [key["id"]] and "key" not in listed[0] and "hash" not in listed[0]
    assert node.access is not None
    [kept] = await node.access.keys()
    assert key["key"] not in str(kept)


async def test_a_revoked_or_expired_key_is_no_key(http: Http) -> None:
    revoked = await made(http, "read")
    assert (await http.get(CALLS, key=revoked["key"])).status == 200
    answer = await http.post(f"{KEYS}/{revoked['id']}/revoke")
    assert answer.status == 200 and answer.body["revoked_at"]
    assert (await http.get(CALLS, key=revoked["key"])).status == 401
    assert (await http.post(f"{KEYS}/key_none/revoke")).status == 404
    soon = datetime.now(UTC) + timedelta(seconds=2)
    expiring = await made(http, "read", expires_at=soon.isoformat())
    async with asyncio.timeout(20):
        while (await http.get(CALLS, key=expiring["key"])).status != 401:
            await asyncio.sleep(0.2)
    assert datetime.now(UTC) >= soon
    past = await http.post(KEYS, {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00"})
    assert (past.status, past.body["errors"][0]["field"]) == (422, "expires_at")


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(http: Http) -> None:
    key = (await made(http, "read", rate_per_s=0.1))["key"]
    assert (await http.get(CALLS, key=key)).status == 200
    refused = await http.get(CALLS, key=key)
    assert refused.status == 429 and 1 <= int(refused.headers["Retry-After"]) <= 10
    assert (await http.get(CALLS)).status == 200  # others are not held up


def test_rates_refill_with_time() -> None:
    rates = Rates()
    assert [rates.wait_s("a", 2.0, 0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rates.wait_s("b", 2.0, 0) == 0.0
    assert rates.wait_s("a", 2.0, SECOND // 2) == 0.0
    assert rates.wait_s("a", 2.0, SECOND // 2) == 0.5
    assert [rates.wait_s("a", 2.0, 100 * SECOND) for _ in range(3)] == [0.0, 0.0, 0.5]


async def test_what_is_changed_is_on_record_with_whose_key_it_was(http: Http) -> None:
    key = await made(http, "control")
    await http.get(CALLS, key=key["key"])
    await http.post(f"{CALLS}/call_none/hangup", {}, key=key["key"])
    await http.post(APPS, {"name": "x"}, key=key["key"])
    rows = (await http.get("/api/v1/audit", params={"limit": "2"})).body
    assert [(row["action"], row["status"]) for row in rows["data"]] == [("hangup", 404), ("create_key", 201)]
    assert rows["data"][0]["key_id"] == key["id"] and rows["data"][0]["resource"].endswith("/call_none/hangup")
    assert rows["data"][0]["node"] == "test" and not rows["has_more"]


async def test_a_commit_that_was_not_heard_of_keeps_no_audit_from_being_written(
    http: Http, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.writes is not None
    really = node.writes.run

    async def unheard(work: Any) -> Any:
        await really(work)
        raise RecordUnavailable("the connection broke")

    monkeypatch.setattr(node.writes, "run", unheard)
    await http.post(f"{CALLS}/call_none/hangup", {})
    assert (await http.get("/api/v1/audit")).status == 503
    monkeypatch.undo()
    await http.post(f"{CALLS}/%00/hangup", {})
    rows = (await http.get("/api/v1/audit")).body["data"]
    hung_up = [row["resource"] for row in rows if row["action"] == "hangup"]
    assert hung_up == [f"{CALLS}/\ufffd/hangup", f"{CALLS}/call_none/hangup"]


async def test_audit_that_cannot_be_written_is_an_error_once(
    http: Http, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert node.access is not None

    async def away(_work: Any) -> Any:
        raise RecordUnavailable("the database is away")

    monkeypatch.setattr(live_access, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(node.access._writes, "run", away)
    await http.post(f"{CALLS}/call_none/hangup", {})
    caplog.set_level(logging.DEBUG)
    async with asyncio.timeout(20):
        while len(told := [it for it in caplog.records if "audit rows not written" in it.message]) < 3:
            await asyncio.sleep(0.02)
    assert [it.levelno for it in told[:3]] == [logging.ERROR, logging.DEBUG, logging.DEBUG]


async def test_an_event_stream_ends_with_its_key(http: Http, node: Node) -> None:
    key = await made(http, "read")
    headers = {"x-api-key": key["key"]}
    async with (
        http.session.get(http.url + "/api/v1/events/stream", headers=headers) as lines,
        http.session.ws_connect(http.url + "/api/v1/events/ws", headers=headers) as socket,
        http.session.get(http.url + "/api/v1/events/stream", headers={"x-api-key": KEY}) as other,
    ):
        await http.post(f"{KEYS}/{key['id']}/revoke")
        async with asyncio.timeout(20):
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            assert await lines.content.read()
        node.begins(new_call_id(), "1", "2", "front-desk")
        async with asyncio.timeout(20):
            while b"CallCreated" not in await other.content.readline():
                pass


class TestIdempotencyAcrossRestarts:
    async def again(self, node: Node, body: dict[str, Any], status: int, path: str = f"{CALLS}/initiate") -> Any:
        """The same request to a node that was started anew."""
        assert node.access is not None
        fresh = LiveAccess(node.access._reads, node.access._writes, "test")
        await fresh.start()
        node.access, before = fresh, node.access
        server = ApiServer(ApiSettings(port=0, key_hashes=[KEY_HASH]), node.backend, node.hub)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                answer = await Http(server.url, session).post(path, body, headers={"Idempotency-Key": "k1"})
        finally:
            await server.close()
            await fresh.close()
            node.access = before
        assert answer.status == status, answer.body
        return answer.body

    async def test_the_answer_is_the_same_and_nothing_is_done_again(self, http: Http, node: Node) -> None:
        body = {"to_number": "+49301"}
        first = await http.post(f"{CALLS}/initiate", body, headers={"Idempotency-Key": "k1"})
        assert await self.again(node, body, 201) == first.body
        assert len(node.asked) == 1
        assert "before" in (await self.again(node, {"to_number": "+49302"}, 409))["message"]

    async def test_what_failed_may_be_tried_again(self, http: Http, node: Node) -> None:
        body = {"to_number": "+49301"}
        node.failure = RecordUnavailable("away")
        assert (await http.post(f"{CALLS}/initiate", body, headers={"Idempotency-Key": "k1"})).status == 503
        node.failure = None
        await self.again(node, body, 201)

    async def test_what_was_cut_off_is_not_done_twice(self, http: Http, node: Node) -> None:
        body = {"to_number": "+49301"}
        node.delay_s = 60.0  # the node dies meanwhile
        placing = asyncio.create_task(
            http.post(f"{CALLS}/initiate", body, headers={"Idempotency-Key": "k1"}, timeout=aiohttp.ClientTimeout(1))
        )
        async with asyncio.timeout(10):
            while not node.asked:
                await asyncio.sleep(0.02)
        node.delay_s = 0.0
        assert "not known" in (await self.again(node, body, 409))["message"]
        await asyncio.gather(placing, return_exceptions=True)
        assert len(node.asked) == 1

    async def test_a_database_that_is_away_does_not_keep_calls_from_being_placed(
        self, http: Http, node: Node, monkeypatch: Any
    ) -> None:
        async def away(*_: Any) -> None:
            raise RecordUnavailable("away")

        monkeypatch.setattr(node.access, "begin", away)
        body = {"to_number": "+49301"}
        answers = [await http.post(f"{CALLS}/initiate", body, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 201]
        assert answers[0].body == answers[1].body and len(node.asked) == 1

    async def test_what_a_caller_has_answered_is_not_kept(self, http: Http, node: Node) -> None:
        call_id = await node.originate(Originate(to_number="100"))
        path, body = f"{CALLS}/{call_id}/gather", {"speech": True}
        answers = [await http.post(path, body, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
        assert [answer.body["digits"] for answer in answers] == ["42", "42"] and len(node.ordered) == 1
        again = await self.again(node, body, 200, path)
        assert (again["by"], again["digits"], again["text"]) == ("digits", "", "") and len(node.ordered) == 1
