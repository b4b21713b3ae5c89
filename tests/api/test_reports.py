"""Reports and detail records over REST."""

import csv
import io

import aiohttp
import pytest

from sipagent.api.server import ApiServer

from .conftest import KEY, Http
from .node import Node
from .schema import check
from .test_openapi import described

REPORTS, CDRS = "/api/v1/reports", "/api/v1/cdrs"


@pytest.fixture
async def calls(http: Http, node: Node) -> list[str]:
    """Two calls that are over, and one that is up."""
    ids = []
    for number in ("+491", "+492", "+493"):
        started = await http.post("/api/v1/voice/calls/initiate", {"to_number": number, "from_number": "+4930555"})
        ids.append(started.body["id"])
        node.says(ids[-1], "when do you open")
    for call_id in ids[:2]:
        await http.post(f"/api/v1/voice/calls/{call_id}/hangup", {})
    await node.recorder.flush()
    return ids


async def test_reports_are_as_described(http: Http, calls: list[str]) -> None:
    document = (await http.get("/api/openapi.json", key=None)).body
    for by in ("total", "hour", "trunk", "q850"):
        answer = await http.get(REPORTS, params={"by": by})
        check(answer.body, described(document, "GET", REPORTS, answer.status), document)
        assert (answer.status, answer.body["total"]["calls"], answer.body["total"]["up"]) == (200, 3, 1)
    assert answer.body["zone"] == "Europe/Berlin"
    only = await http.get(REPORTS, params={"number": "+4930555", "by": "number", "from": "yesterday", "zone": "UTC"})
    assert [row["key"] for row in only.body["rows"]] == ["+4930555"]
    assert (await http.get(REPORTS, params={"agent": "nobody"})).body["total"]["calls"] == 0


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"from": "soon"}, "from"),
        ({"to": "2026-13"}, "to"),
        ({"from": "today", "to": "yesterday"}, "from"),
        ({"zone": "Mars/Base"}, "zone"),
        ({"by": "weather"}, "by"),
        ({"from": "2001-01-01", "by": "hour"}, "by"),
        ({"from": "0001-01-01", "by": "day"}, "from"),
        ({"direction": "sideways"}, "direction"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_refusals_name_the_field(http: Http, parameters: dict[str, str], field: str) -> None:
    answer = await http.get(REPORTS, params=parameters)
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, field), answer.body


async def test_detail_records_in_pages(http: Http, calls: list[str]) -> None:
    document = (await http.get("/api/openapi.json", key=None)).body
    first = await http.get(CDRS, params={"limit": "2"})
    check(first.body, described(document, "GET", CDRS, 200), document)
    rest = await http.get(CDRS, params={"limit": "2", "cursor_after": first.body["next_cursor"]})
    assert [call["id"] for call in first.body["data"] + rest.body["data"]] == calls[::-1]
    (oldest,) = rest.body["data"]
    assert oldest["charges"][0]["kind"] == "minute" and oldest["legs"][0]["q850"] == 16
    assert oldest["latency"] is not None
    assert (await http.get(CDRS, params={"agent": "nobody"})).body["data"] == []
    assert (await http.get(CDRS, params={"from": "2030-01-01"})).body["data"] == []
    both = await http.get(CDRS, params={"cursor_after": calls[0], "cursor_before": calls[1]})
    assert (both.status, both.body["errors"][0]["field"]) == (422, "cursor_after")


async def test_as_files(server: ApiServer, calls: list[str]) -> None:
    async with aiohttp.ClientSession(server.url, headers={"x-api-key": KEY}) as session:

        async def text(path: str, kind: str) -> str:
            async with session.get(path) as answer:
                assert (answer.status, answer.content_type) == (200, kind), await answer.text()
                return await answer.text()

        rows = list(csv.DictReader(io.StringIO(await text(f"{REPORTS}.csv?by=trunk", "text/csv"))))
        assert [(row["key"], row["calls"]) for row in rows] == [("carrier", "3"), ("total", "3")]
        legs = list(csv.DictReader(io.StringIO(await text(f"{CDRS}.csv?from=yesterday", "text/csv"))))
        assert [leg["call_id"] for leg in legs] == calls
        page = await text(f"{REPORTS}.html?from=yesterday", "text/html")
        assert "What the figures mean" in page and "<svg" in page
