"""Keys, health, and what the log may know."""

import logging
import re

import pytest

from sipagent.api.auth import Failures
from sipagent.api.keys import PREFIX, hash_key, matching_hash, new_key
from sipagent.api.routes import ROUTES
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.core.errors import SetupError

from .conftest import KEY, Http
from .node import Node


@pytest.mark.parametrize("route", [route for route in ROUTES if route.needs_key], ids=lambda route: str(route.path))
async def test_no_key_no_answer(http: Http, route) -> None:
    path = re.sub(r"{\w+}", "x", route.path)
    answer = await http.ask(route.method, path, key=None)
    assert answer.status == 401
    assert (await http.ask(route.method, path, key="sk_sipagent_wrong")).status == 401


@pytest.mark.parametrize(
    "path", ["/api", "/api/v1", "/api/v1/nothing", "/api/../api/v1/live-calls", "/%61pi/v1/live-calls"]
)
async def test_no_way_around_the_key(http: Http, path: str) -> None:
    assert (await http.get(path, key=None)).status == 401


async def test_paths_and_methods_that_do_not_exist(http: Http) -> None:
    assert (await http.get("/api/v1/nothing")).status == 404
    assert (await http.get("/nothing", key=None)).status == 404
    wrong = await http.ask("DELETE", "/api/v1/voice/calls")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD")


async def test_guessing_is_slowed_and_does_not_lock_out_the_others(http: Http) -> None:
    statuses = [(await http.get("/api/v1/live-calls", key=f"guess{i}")).status for i in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = await http.get("/api/v1/live-calls", key=None)
    assert refused.status == 429 and 1 <= int(refused.headers["Retry-After"]) <= 60
    assert (await http.get("/api/v1/live-calls")).status == 200


def test_failures_are_forgotten_with_time_and_are_bounded() -> None:
    failures = Failures(limit=2, window_s=60.0, addresses=3)
    second = 1_000_000_000
    failures.add("a", 0)
    failures.add("a", 10 * second)
    assert failures.wait_s("a", 20 * second) == 40.0
    assert failures.wait_s("a", 60 * second) == 0.0
    assert failures.wait_s("b", 20 * second) == 0.0
    for address in "bcd":
        failures.add(address, 20 * second)
    assert failures.wait_s("a", 20 * second) == 0.0  # the oldest made room


def test_keys() -> None:
    plain, hashed = new_key()
    assert plain.startswith(PREFIX) and len(plain) > 50
    assert hashed == hash_key(plain) and len(hashed) == 64
    assert new_key()[0] != plain
    assert matching_hash(plain, ["0" * 64, hashed.upper() + " "]) is not None
    assert matching_hash(plain + "x", [hashed]) is None
    assert matching_hash("\udcff", [hashed]) is None
    assert matching_hash(plain, []) is None


async def test_health_tells_strangers_only_the_status(http: Http, node: Node) -> None:
    assert (await http.get("/healthz", key=None)).body == {"status": "ok"}
    assert (await http.get("/healthz", key="wrong")).status == 401
    known = (await http.get("/healthz")).body
    assert known["processes"] == {"lane-0": 4711, "media": 4712}
    assert known["recorder"]["dropped"] == 0
    node.status = "draining"
    assert (await http.get("/healthz", key=None)).status == 200
    assert (await http.get("/readyz", key=None)).status == 503


async def test_trunks(http: Http) -> None:
    [trunk] = (await http.get("/api/v1/trunks")).body["data"]
    assert (trunk["name"], trunk["state"], trunk["servers"][0]["up"]) == ("carrier", "degraded", False)


async def test_registrations(http: Http) -> None:
    [registration] = (await http.get("/api/v1/registrations")).body["data"]
    assert (registration["trunk"], registration["state"]) == ("carrier", "registered")


async def test_answers_are_not_cached_and_name_no_versions(http: Http) -> None:
    for path in ("/api/v1/voice/calls", "/healthz", "/nothing"):
        headers = (await http.get(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "sipagent"


async def test_the_log_knows_no_number(http: Http, node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await http.get("/api/v1/voice/calls", params={"to_number": "+49301234567"})
    await http.post("/api/v1/voice/calls/initiate", {"to_number": "+49301234567"})
    await http.get("/api/v1/voice/+49301234567")
    node.failure = RuntimeError("broken by +49301234567")
    await http.post("/api/v1/voice/calls/initiate", {"to_number": "+49301234567"})
    await node.recorder.flush()
    assert "api request" in caplog.messages
    told = [str(record.__dict__) for record in caplog.records if record.name.startswith(("sipagent", "aiohttp"))]
    assert not [line for line in told if "301234567" in line or KEY in line]


async def test_a_port_in_use_is_said_in_a_sentence(server: ApiServer, node: Node) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port}.*change \[api\] host or port"):
        await ApiServer(ApiSettings(port=port), node.backend, node.hub).start()


async def test_without_keys_nobody_gets_in_and_the_log_says_so(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    server = ApiServer(ApiSettings(port=0), node.backend, node.hub)
    await server.start()
    assert server.url.startswith("http://127.0.0.1:")
    assert any("has no key" in message for message in caplog.messages)
    await server.close()
    await server.close()  # closing twice is once
