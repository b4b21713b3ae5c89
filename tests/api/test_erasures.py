"""A caller's data is erased over the API."""

from .conftest import Http
from .node import Node

ERASURES, CALLS = "/api/v1/erasures", "/api/v1/voice/calls"


async def test_a_caller_is_erased_with_a_proof(http: Http, node: Node) -> None:
    call_id = (await http.post(f"{CALLS}/initiate", {"to_number": "+4930123456"})).body["id"]
    up = await http.post(ERASURES, {"number": "+4930123456"})  # flushes the record by itself
    assert (up.status, up.body["counts"]) == (201, {"calls_up": 1})
    node.says(call_id, "my name is Ann")
    await http.post(f"{CALLS}/{call_id}/hangup", {})

    proof = await http.post(ERASURES, {"number": "004930123456"})
    assert proof.status == 201 and proof.body["counts"]["calls"] == 1
    assert "30123456" not in str(proof.body) and proof.body["by"]
    record = await http.get(f"{CALLS}/{call_id}/record")
    assert "Ann" not in str(record.body) and "30123456" not in str(record.body)
    listed = await http.get(f"{ERASURES}?limit=1")
    assert listed.body["data"] == [proof.body] and listed.body["has_more"]
    older = await http.get(f"{ERASURES}?cursor_after={listed.body['next_cursor']}")
    assert older.body["data"] == [up.body] and not older.body["has_more"]


async def test_what_is_no_number_is_refused(http: Http) -> None:
    refused = await http.post(ERASURES, {"number": "abc"})
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "number")
    assert (await http.post(ERASURES, {})).status == 422
