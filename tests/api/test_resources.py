"""Voice apps and numbers: made, changed, found and deleted; those of the configuration beside them, read only."""

from typing import Any

import pytest

from .conftest import Http
from .node import Node

APPS, NUMBERS = "/api/v1/voice/apps", "/api/v1/virtual-numbers"


async def made_app(http: Http, name: str = "desk", **more: Any) -> dict[str, Any]:
    answer = await http.post(APPS, {"name": name, "flow_url": "dialplan:front-desk", "webhook_url": "", **more})
    assert answer.status == 201, answer.body
    return dict(answer.body)


async def made_number(http: Http, number: str = "+49302", **more: Any) -> dict[str, Any]:
    answer = await http.post(NUMBERS, {"number": number, **more})
    assert answer.status == 201, answer.body
    return dict(answer.body)


async def test_an_app_is_made_changed_and_deleted(http: Http) -> None:
    number = await made_number(http)
    app = await made_app(http, vn_ids=[number["id"]], channel_limit=3)
    assert (app["dialplan"], app["flow_url"], app["vn_count"]) == ("front-desk", "dialplan:front-desk", 1)
    path = f"{APPS}/{app['id']}"
    assert (await http.get(path)).body == app
    changed = await http.ask("PATCH", path, json={"status": "inactive", "flow_url": "https://example.com/flow"})
    assert changed.status == 200
    assert (changed.body["status"], changed.body["dialplan"]) == ("inactive", "")
    assert (changed.body["flow_url"], changed.body["channel_limit"]) == ("https://example.com/flow", 3)
    assert (await http.ask("PATCH", path, json={"channel_limit": None})).body["channel_limit"] is None
    assert (await http.ask("DELETE", path)).body["success"] is True
    assert (await http.get(path)).status == 404
    assert (await http.get(f"{NUMBERS}/{number['id']}")).body["voice_app"] is None


async def test_what_stands_in_the_configuration_is_listed_and_cannot_be_changed(http: Http) -> None:
    app = await made_app(http)
    listed = (await http.get(APPS)).body["data"]
    assert [(it["name"], it["configured"]) for it in listed] == [("desk", False), ("configured", True)]
    configured = f"{APPS}/{listed[1]['id']}"
    for answer in (
        await http.ask("PATCH", configured, json={"name": "mine"}),
        await http.ask("DELETE", configured),
    ):
        assert answer.status == 409 and "configuration" in answer.body["message"]
    [number] = (await http.get(NUMBERS)).body["data"]
    assert number["voice_app"] == {"id": listed[1]["id"], "name": "configured"} and number["configured"]
    assign = {"vn_ids": [number["id"]], "voice_app_id": app["id"]}
    assert (await http.post(f"{NUMBERS}/assign", assign)).status == 409
    assert (await http.ask("DELETE", f"{NUMBERS}/{number['id']}")).status == 409


async def test_numbers_are_assigned_one_by_one_or_as_the_filter_finds_them(http: Http) -> None:
    app = await made_app(http)
    berlin = await made_number(http, "+49302", location={"city": "Berlin"}, name="first")
    await made_number(http, "+49401", location={"city": "Hamburg"})
    trunk = (await http.get(NUMBERS)).body
    assert len(trunk["data"]) == 3
    one = await http.post(f"{NUMBERS}/assign", {"vn_ids": [berlin["id"]], "voice_app_id": app["id"]})
    assert one.body == {"success": True, "message": "1 assigned"}
    found = await http.get(f"{APPS}/{app['id']}/virtual-numbers")
    assert [number["number"] for number in found.body["data"]] == ["+49302"]
    hamburg = await http.post(
        f"{NUMBERS}/assign", {"apply_to_all": True, "voice_app_id": app["id"]}, params={"location": "hamburg"}
    )
    assert hamburg.body["message"] == "1 assigned"
    query = [("voice_app", app["id"]), ("voice_app", "app_other"), ("search", "+49")]
    assert len((await http.get(NUMBERS, params=query)).body["data"]) == 2
    left = await http.post(f"{NUMBERS}/unassign", {"apply_to_all": True})
    assert left.body["message"] == "2 unassigned"
    assert (await http.get(APPS, params={"search": "desk"})).body["data"][0]["vn_count"] == 0


async def test_pages_stay_the_same_while_apps_come_and_go(http: Http) -> None:
    for index in range(5):
        await made_app(http, f"app{index}")
    first = (await http.get(APPS, params={"limit": "2"})).body
    assert [app["name"] for app in first["data"]] == ["app4", "app3"] and first["has_more"]
    await made_app(http, "later")
    second = (await http.get(APPS, params={"limit": "2", "cursor_after": first["next_cursor"]})).body
    assert [app["name"] for app in second["data"]] == ["app2", "app1"]
    back = (await http.get(APPS, params={"limit": "2", "cursor_before": second["previous_cursor"]})).body
    assert back["data"] == first["data"] and back["previous_cursor"]
    last = (await http.get(APPS, params={"cursor_after": second["next_cursor"]})).body
    assert [app["name"] for app in last["data"]] == ["app0", "configured"] and not last["has_more"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x"}, "flow_url"),
        ({"name": "x", "flow_url": "dialplan:nowhere"}, "dialplan"),
        ({"name": "x", "flow_url": "ftp://example.com"}, "flow_url"),
        ({"name": "x", "flow_url": "http://127.0.0.1/metadata"}, "flow_url"),
        ({"name": "x", "flow_url": "http://[::1]/"}, "flow_url"),
        ({"name": "x", "dialplan": "front-desk", "webhook_url": "http://10.0.0.1/"}, "webhook_url"),
        ({"name": "x", "dialplan": "front-desk", "vn_ids": ["vn_none"]}, "vn_ids"),
        ({"name": "x", "dialplan": "front-desk", "secret_id": "secret_none"}, "secret_id"),
        ({"name": "x", "dialplan": "front-desk", "channel_limit": 0}, "channel_limit"),
        ({"name": "", "dialplan": "front-desk"}, "name"),
        ({"name": "x\n", "dialplan": "front-desk"}, "name"),
        ({"name": "x", "dialplan": "front-desk", "colour": "red"}, "colour"),
        ({"name": "x", "dialplan": "front-desk", "webhook_api_version": "2020-01-01"}, "webhook_api_version"),
    ],
)
async def test_an_app_that_cannot_work_is_refused_by_the_name_of_the_field(
    http: Http, node: Node, body: dict[str, Any], field: str
) -> None:
    answer = await http.post(APPS, body)
    assert answer.status == 422, answer.body
    assert answer.body["errors"][0]["field"] == field
    assert len((await http.get(APPS)).body["data"]) == 1


async def test_a_name_or_number_is_taken_once(http: Http) -> None:
    await made_app(http)
    assert (await http.post(APPS, {"name": "desk", "dialplan": "front-desk"})).status == 409
    await made_number(http)
    assert (await http.post(NUMBERS, {"number": "+49302"})).status == 409
    assert (await http.post(NUMBERS, {"number": "+49301000"})).status == 409
