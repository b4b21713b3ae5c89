"""Bodies and queries nobody in their senses sends."""

import asyncio
import io

import pytest

from .conftest import KEY, Http
from .node import Node

INITIATE = "/api/v1/voice/calls/initiate"
CALLS = "/api/v1/voice/calls"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"to_number": "+49\x00"}', 400),
        (b'{"to_number": "\\ud800"}', 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"{}", 422),
        (b"[" * 100_000, 422),
        (b'{"to_number":' * 50_000, 422),
        (b'{"to_number": 49301}', 422),
        (b'{"to_number": ""}', 422),
        (b'{"to_number": "' + b"1" * 257 + b'"}', 422),
        (b'{"to_number": "1\\r\\nRoute: <sip:evil>"}', 422),
        (b'{"to_number": "1\\n"}', 422),
        (b'{"to_number": "1", "from_number": "1\\n"}', 422),
        (b'{"to_number": "1", "trunk": "carrier\\n"}', 422),
        (b'{"to_number": "sip:a b"}', 422),
        ('{"to_number": "sip:\u202e@example.com"}'.encode(), 422),
        (b'{"to_number": "1", "from_number": "\\"x\\" <sip:a>"}', 422),
        (b'{"to_number": "1", "dialplan": "../../etc/passwd"}', 422),
        (b'{"to_number": "1", "timeout_s": 1e999}', 422),
        (b'{"to_number": "1", "timeout_s": 0}', 422),
        (b'{"to_number": "1", "unknown": {}}', 422),
    ],
)
async def test_a_bad_body_is_refused_and_never_reaches_the_node(
    http: Http, node: Node, body: bytes, status: int
) -> None:
    answer = await http.ask("POST", INITIATE, data=body, headers=JSON)
    assert answer.status == status, answer.body
    assert answer.body["message"]
    assert node.asked == []


async def test_the_wrong_field_is_named(http: Http) -> None:
    unknown = await http.post(INITIATE, {"to_number": "1", "colour": "red"})
    assert unknown.body["errors"] == [{"field": "colour", "message": "is not a known field"}]
    missing = await http.post(INITIATE, {})
    assert missing.body["errors"] == [{"field": "to_number", "message": "is required"}]
    wrong = await http.post(INITIATE, {"to_number": "1", "timeout_s": "soon"})
    assert wrong.body["errors"][0]["field"] == "timeout_s"


async def test_what_contradicts_itself_is_said_and_not_done(http: Http, node: Node) -> None:
    for field, value in (("flow_url", "ftp://example.com/flow"), ("flow_url", "nothing")):
        answer = await http.post(INITIATE, {"to_number": "1", field: value})
        assert (answer.status, answer.body["errors"][0]["field"]) == (422, field)
    two = await http.post(INITIATE, {"to_number": "1", "flow_url": "https://example.com/flow", "dialplan": "b"})
    assert (two.status, two.body["errors"][0]["field"]) == (422, "flow_url")
    leg = await http.post(f"{CALLS}/call_x/hangup", {"leg_id": "leg_1"})
    assert (leg.status, leg.body["errors"][0]["field"]) == (422, "leg_id")
    both = await http.post(INITIATE, {"to_number": "1", "flow_url": "dialplan:a", "dialplan": "b"})
    assert both.status == 422
    assert node.asked == []


async def test_only_json_and_only_so_much(http: Http) -> None:
    form = await http.ask("POST", INITIATE, data={"to_number": "1"})
    assert form.status == 415
    huge = await http.ask("POST", INITIATE, data=io.BytesIO(b"1" * (1 << 20) + b"1"), headers=JSON)
    assert (huge.status, huge.body["message"]) == (413, "the body is larger than 1 MiB")

    async def chunks():
        for _ in range(64):
            yield b" " * 65536

    try:
        chunked = await http.ask("POST", INITIATE, data=chunks(), headers=JSON)
        assert chunked.status == 413
    except OSError:
        pass  # the server may close before the client is done


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=ten",
        "limit=1&limit=2",
        "cursor_after=a&cursor_before=b",
        "cursor_after=",
        "cursor_after=" + "x" * 65,
        "state=alive",
        "state=null",
        "limit=NULL",
        "created_after=yesterday",
        "colour=red",
        "from_number=" + "1" * 513,
    ],
)
async def test_a_bad_query_is_422_and_names_the_parameter(http: Http, query: str) -> None:
    answer = await http.get(f"{CALLS}?{query}")
    assert answer.status == 422, answer
    assert answer.body["errors"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("query", ["cursor_after=%00", "cursor_before=%F0%9F%99%82", "to_number=%27%3B--%00%25"])
async def test_odd_but_lawful_values_find_nothing_and_harm_nothing(http: Http, query: str) -> None:
    answer = await http.get(f"{CALLS}?{query}")
    assert (answer.status, answer.body["data"]) == (200, [])


async def test_the_longest_lawful_parameters_are_read(http: Http) -> None:
    longest = "%F0%9F%99%82" * 512
    answer = await http.get(f"{CALLS}?from_number={longest}&to_number={longest}")
    assert (answer.status, answer.body["data"]) == (200, [])


@pytest.mark.parametrize("call_id", ["%00", "%F0%9F%99%82", "..%2f..", "a" * 5000, "call_'%3B--"])
async def test_odd_ids_are_404(http: Http, call_id: str) -> None:
    assert (await http.get(f"{CALLS}/{call_id}")).status == 404


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /+49301234567 BAD\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header +49301234567\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_and_not_logged(
    http: Http, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(http.url.rpartition(":")[2]))
    writer.write(raw)
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert [line for line in caplog.messages if "http" in line.lower() or "49301" in line] == []
    assert (await http.get("/healthz", key=None)).status == 200


async def test_a_body_that_never_comes_is_given_up(http: Http) -> None:
    port = int(http.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {INITIATE} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: 100\r\n\r\n{{".encode())
    status_line = await asyncio.wait_for(reader.readline(), 5)
    assert b" 504 " in status_line
    writer.close()
    await writer.wait_closed()
