"""The end of a call as of Twilio."""

import aiohttp

from sipagent.api.calls.backend import Originate
from sipagent.calls.streams.twilio import sid

from .conftest import KEY, OTHER_KEY, Http
from .node import Node


def path(call_sid: str) -> str:
    return f"/2010-04-01/Accounts/AC1/Calls/{call_sid}.json"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(user, password)}


async def test_a_call_is_ended_by_the_sid_that_its_stream_was_told(http: Http, node: Node) -> None:
    call_id = await node.originate(Originate(to_number="100"))
    headers, url = basic("AC1", KEY), http.url + path(sid("CA", call_id))
    async with http.session.post(url, headers=headers, data={"Status": "in-progress"}) as answer:
        assert answer.status == 400 and call_id in node.live
    async with http.session.post(url, headers=headers, json={"Status": "completed"}) as answer:
        assert answer.status == 415
    for wrong in (basic("AC1", "guess"), basic(KEY, ""), {"Authorization": "Basic %"}):
        async with http.session.post(url, headers=wrong, data={"Status": "completed"}) as answer:
            assert answer.status == 401 and call_id in node.live
    async with http.session.post(url, headers=headers, data={"Status": "completed"}) as answer:
        ended = await answer.json()
        assert (answer.status, ended["sid"], ended["status"]) == (200, sid("CA", call_id), "completed")
        assert call_id not in node.live
    async with http.session.post(url, headers=headers, data={"Status": "completed"}) as answer:
        assert answer.status == 404


async def test_basic_authentication_is_for_twilios_path_and_metrics_alone(http: Http, node: Node) -> None:
    async with http.session.get(f"{http.url}/metrics", headers=basic("prometheus", KEY)) as answer:
        assert answer.status == 200
    place = f"{http.url}/api/v1/voice/calls/initiate"
    for key, header in ((KEY, {}), (KEY, {"x-api-key": ""}), (OTHER_KEY, {"x-api-key": ""})):
        headers = {**basic("AC1", key), **header, "Idempotency-Key": "k"}
        async with http.session.post(place, headers=headers, json={"to_number": "100"}) as answer:
            assert answer.status == 401
    assert not node.asked
