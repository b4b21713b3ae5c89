"""What may be asked of a call that is up."""

import pytest

from sipagent.api.steering.backend import Guest, Transfer
from sipagent.core.errors import NotNow

from .conftest import Http
from .node import Node
from .test_calls import CALLS, placed

LEG = {"kind": "leg", "leg_id": "leg_1"}
PSTN = {"kind": "pstn", "number": "+49303"}
HEADED = {**PSTN, "custom_headers": {"X-Ticket": "7"}}


async def test_hold_resume_and_bring_in(http: Http, node: Node) -> None:
    call_id = await placed(http)
    for path, body in (
        ("hold", {}),
        ("hold", {"music": "ringback"}),
        ("resume", {}),
        ("participants", {"to_number": "sip:boss@example.com", "part": "whisper", "timeout_s": 9}),
    ):
        answer = await http.post(f"{CALLS}/{call_id}/{path}", body)
        assert answer.status == 200 and answer.body["request_id"].startswith("req_"), answer
    guest = Guest(to_number="sip:boss@example.com", part="whisper", timeout_s=9.0)
    assert node.ordered == ["hold", "hold ringback", "resume", guest]


async def test_one_leg_is_hung_up(http: Http, node: Node) -> None:
    one, other = await placed(http), await placed(http)
    leg = node.live[one].leg_id
    assert (await http.post(f"{CALLS}/{one}/hangup", {"leg_id": leg})).status == 200
    assert node.ordered == [f"hangup {leg}"]
    assert (await http.post(f"{CALLS}/{other}/hangup", {"leg_id": leg})).status == 422
    assert len(node.live) == 2


async def test_a_transfer_of_each_kind(http: Http, node: Node) -> None:
    one, other = await placed(http), await placed(http)
    attended = {"target": {"kind": "sip", "uri": "sip:desk@pbx"}, "mode": "warm", "whisper": "Mind the gap."}
    answer = await http.post(f"{CALLS}/{one}/transfer", attended)
    assert (answer.status, answer.body["id"], answer.body["mode"]) == (200, "tr_1", "warm")
    leg = node.live[other].leg_id
    assert (await http.post(f"{CALLS}/{one}/transfer", {"target": {"kind": "leg", "leg_id": leg}})).status == 200
    assert (await http.post(f"{CALLS}/{one}/bridge", {"call_id": other})).status == 200
    target = {"kind": "sip", "uri": "sip:desk@pbx", "custom_headers": {"X-Ticket": "7"}}
    body = {"target": target, "dial_music": {"action": "play", "file": "jingle.wav"}}
    assert (await http.post(f"{CALLS}/{one}/transfer", body)).status == 200
    wanted = Transfer(target="sip:desk@pbx", attended=True, whisper="Mind the gap.")
    headed = Transfer(target="sip:desk@pbx", music="jingle.wav", headers={"X-Ticket": "7"})
    assert node.ordered == [wanted, f"bridge {other}", f"bridge {other}", headed]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("transfer", {}, 422, "target"),
        ("transfer", {"target": {"kind": "sip"}}, 422, "target.uri"),
        ("transfer", {"target": {"kind": "leg", "leg_id": "leg_none"}}, 422, "target.leg_id"),
        ("transfer", {"target": {"kind": "pstn", "number": "+49 >\r\n"}}, 422, "target.number"),
        ("transfer", {"target": PSTN, "whisper": "for whom?"}, 422, "whisper"),
        ("transfer", {"target": PSTN, "dial_music": {"action": "play"}}, 422, "dial_music"),
        ("transfer", {"target": PSTN, "dial_music": {"media_url": "file:///a"}}, 422, "dial_music.media_url"),
        ("transfer", {"target": PSTN, "dial_music": {"file": "../../secret.wav"}}, 422, "dial_music.file"),
        ("transfer", {"target": PSTN, "on_failure": {"action": "fly"}}, 422, "on_failure.action"),
        ("transfer", {"target": PSTN, "on_failure": {"action": "play"}}, 422, "on_failure.media_url"),
        ("transfer", {"target": PSTN, "confirm_sound": {"action": "hangup"}}, 422, "confirm_sound.action"),
        ("transfer", {"target": PSTN, "confirm_sound": {"action": "say", "text": "x"}}, 422, "confirm_sound.text"),
        ("transfer", {"target": LEG, "on_failure": {"action": "hangup"}}, 422, "on_failure"),
        ("transfer", {"target": HEADED, "via": "refer"}, 422, "target.custom_headers"),
        ("hold", {"music": "../../etc/passwd"}, 422, "music"),
        ("bridge", {"call_id": "call_none"}, 422, "call_id"),
        ("participants", {"to_number": "1", "part": "shout"}, 422, "part"),
    ],
)
async def test_what_cannot_be_is_refused_by_field(
    http: Http, node: Node, path: str, body: dict[str, object], status: int, field: str
) -> None:
    call_id = await placed(http)
    answer = await http.post(f"{CALLS}/{call_id}/{path}", body)
    assert (answer.status, answer.body["errors"][0]["field"]) == (status, field)
    assert node.ordered == []


async def test_calls_that_are_not_up_or_cannot_now(http: Http, node: Node) -> None:
    assert (await http.post(f"{CALLS}/call_none/hold", {})).status == 404
    call_id = await placed(http)
    node.failure = NotNow("the call is not answered yet")
    answer = await http.post(f"{CALLS}/{call_id}/transfer", {"target": PSTN})
    assert (answer.status, answer.body["message"]) == (409, "the call is not answered yet")
    node.failure = None
    await http.post(f"{CALLS}/{call_id}/hangup")
    await node.recorder.flush()
    assert (await http.post(f"{CALLS}/{call_id}/hold", {})).status == 409
