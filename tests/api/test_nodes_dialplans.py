"""Nodes and draining; dialplans listed, checked and read again."""

from datetime import timedelta
from functools import partial

import pytest

from sipagent.core import clock
from sipagent.core.errors import ConfigError
from sipagent.store import access
from sipagent.store.access import NodeRecord

from .conftest import Http
from .node import Node

NODES, DIALPLANS = "/api/v1/nodes", "/api/v1/dialplans"


async def test_a_node_is_drained_and_takes_calls_again(http: Http, node: Node) -> None:
    [own] = (await http.get(NODES)).body["data"]
    assert (own["name"], own["state"], own["this"]) == ("test", "ok", True)
    drained = await http.post(f"{NODES}/test/drain")
    assert (drained.status, drained.body["state"]) == (200, "draining")
    assert (await http.get("/readyz", key=None)).status == 503
    assert (await http.post(f"{NODES}/test/drain", {"on": False})).body["state"] == "ok"
    assert (await http.get("/readyz", key=None)).status == 200
    assert (await http.post(f"{NODES}/none/drain")).status == 404


async def test_other_nodes_of_the_database_are_listed_and_drained_by_themselves(http: Http, node: Node) -> None:
    assert node.writes is not None
    now = clock.now().wall
    for name, seen in (("alive", now), ("dead", now - timedelta(minutes=5))):
        other = NodeRecord(
            name=name,
            url="http://192.0.2.1:8080",
            version="0.1.0",
            state="ok",
            started_at=now,
            seen_at=seen,
            calls_active=1,
            max_calls=10,
        )
        await node.writes.run(partial(access.seen, node=other))
    listed = (await http.get(NODES)).body["data"]
    assert [(it["name"], it["state"]) for it in listed] == [("alive", "ok"), ("dead", "gone"), ("test", "ok")]
    refused = await http.post(f"{NODES}/alive/drain")
    assert refused.status == 409 and "192.0.2.1" in refused.body["message"]


async def test_dialplans_are_listed_and_read_again(http: Http, node: Node) -> None:
    listed = (await http.get(DIALPLANS)).body["data"]
    desk = next(it for it in listed if it["name"] == "front-desk")
    assert desk["routes"] and desk["steps"] and desk["agents"]
    assert (await http.post(f"{DIALPLANS}/reload")).body["data"] == listed
    node.failure = ConfigError("front-desk.yaml:3: unknown key `rotes`")
    refused = await http.post(f"{DIALPLANS}/reload")
    assert refused.status == 422 and "rotes" in refused.body["message"]


@pytest.mark.parametrize(
    ("text", "valid", "line"),
    [
        ("routes: [{steps: a}]\nsteps: {a: [answer, hangup]}\n", True, None),
        ("routes: [{steps: a}]\nsteps:\n  a: [answer, hang]\n", False, 3),
        ("routes: [", False, 1),
        ("[" * 600, False, None),
    ],
)
async def test_a_text_is_checked_as_a_dialplan(http: Http, text: str, valid: bool, line: int | None) -> None:
    answer = await http.post(f"{DIALPLANS}/validate", {"text": text, "name": "mine"})
    assert answer.status == 200, answer.body
    assert answer.body["valid"] is valid and bool(answer.body["message"]) is not valid
    if line is not None:
        assert answer.body["line"] == line and answer.body["message"].startswith(f"mine.yaml:{line}: ")
