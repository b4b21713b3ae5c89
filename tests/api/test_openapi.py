"""The document tells of every route, and the answers of a live server are what it tells."""

import re
from typing import Any

from sipagent.api.server import ApiServer

from .conftest import KEY, Answer, Http
from .node import Node
from .schema import check


def described(document: dict[str, Any], method: str, path: str, status: int) -> dict[str, Any]:
    response = document["paths"][path][method.lower()]["responses"][str(status)]
    [content] = response["content"].values()
    schema: dict[str, Any] = content["schema"]
    return schema


async def test_every_route_is_in_the_document(server: ApiServer, http: Http) -> None:
    document = (await http.get("/api/openapi.json", key=None)).body
    assert document["openapi"] == "3.1.0"
    served = {
        (route.method, route.resource.canonical)
        for route in server.application().router.routes()
        if route.resource is not None and route.method != "HEAD" and "dashboard" not in route.resource.canonical
        if route.resource.canonical != "/"
    }
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert served == told
    assert len({op["operationId"] for methods in document["paths"].values() for op in methods.values()}) == len(told)


async def test_every_reference_leads_somewhere(http: Http) -> None:
    document = (await http.get("/api/openapi.json", key=None)).body
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert references == set(document["components"]["schemas"])


async def test_answers_are_as_described(http: Http, node: Node) -> None:
    document = (await http.get("/api/openapi.json", key=None)).body
    calls = "/api/v1/voice/calls"

    def fits(answer: Answer, method: str, path: str) -> None:
        check(answer.body, described(document, method, path, answer.status), document)

    started = await http.post(f"{calls}/initiate", {"to_number": "+491"})
    fits(started, "POST", f"{calls}/initiate")
    call_id = started.body["id"]
    one = f"{calls}/{{call_id}}"
    fits(await http.get(f"{calls}/{call_id}"), "GET", one)  # maybe not recorded yet
    node.says(call_id, "when do you open")
    await node.recorder.flush()
    fits(await http.get("/api/v1/live-calls"), "GET", "/api/v1/live-calls")
    fits(await http.get(f"{calls}/{call_id}"), "GET", one)
    fits(await http.post(f"{calls}/{call_id}/hangup", {}), "POST", f"{one}/hangup")
    await node.recorder.flush()
    fits(await http.get(f"{calls}/{call_id}"), "GET", one)
    fits(await http.get(calls), "GET", calls)
    fits(await http.get(f"{calls}/{call_id}/legs"), "GET", f"{one}/legs")
    record = await http.get(f"{calls}/{call_id}/record")
    fits(record, "GET", f"{one}/record")
    assert record.body["turns"] and record.body["events"] and record.body["call"]["legs"][0]["figures"]
    fits(await http.get("/api/v1/registrations"), "GET", "/api/v1/registrations")
    fits(await http.get("/api/v1/trunks"), "GET", "/api/v1/trunks")
    for key in (None, KEY):
        fits(await http.get("/healthz", key=key), "GET", "/healthz")
    fits(await http.get("/readyz", key=None), "GET", "/readyz")
    # refusals
    fits(await http.get(calls, key=None), "GET", calls)
    fits(await http.get(calls, params={"limit": "0"}), "GET", calls)
    fits(await http.get(f"{calls}/call_none"), "GET", one)
    fits(await http.post(f"{calls}/{call_id}/hangup", {}), "POST", f"{one}/hangup")
    fits(await http.post(f"{calls}/initiate", {"to_number": "1", "x": 1}), "POST", f"{calls}/initiate")
    node.status = "draining"
    fits(await http.get("/readyz", key=None), "GET", "/readyz")
