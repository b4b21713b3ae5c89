"""A chat agent with tools through the whole node: by voice and keys, with a model by script and a real web server."""

import json
from typing import Any

import pytest

from sipagent.phone import Phone, PhoneCall, PhoneSettings
from sipagent.speech.settings import SpeechSettings
from sipagent.store.records import FullCall
from tests.conversation.test_http_tools import shop_server
from tests.peers.chat_server import DONE, calls, chat_server, says
from tests.peers.ports import free_block
from tests.peers.sipp import Sipp
from tests.system.node import Node

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(180)]

PIN = "4711"
WHISPER = "A guest who wants to cancel."
TRANSFER = calls("transfer_call", {"target": "manager", "summary": WHISPER})
AWAY = calls("transfer_call", {"target": "night"})


def dialplan(model: str, shop: str, manager: str, away: str) -> str:
    return f"""\
routes: [{{steps: desk}}]
steps: {{desk: [answer, agent: desk]}}
agents:
  desk:
    greeting: "Hotel Miramar, hello."
    silence_s: 600
    chat:
      base_url: {model}
      model: scripted
      prompt: "You are the desk of a hotel."
      transfer_targets:
        manager: {{target: "{manager}", kind: attended, via: bridge}}
        night: {{target: "{away}", kind: attended, via: bridge, timeout_s: 1.5}}
      tools:
        pin:
          description: "Lets the caller enter the PIN of the booking on the keypad."
          collect: {{least: 4, most: 4, ask: "Please enter your number now."}}
        booking:
          description: "Looks up the caller's booking."
          http:
            method: POST
            url: {shop}/bookings
            headers: {{Authorization: "Bearer {{env:SHOP_KEY}}"}}
            body: {{pin: "{{digits.pin}}", by: "{{call.from}}"}}
            fields: [order.state]
"""


def answer(messages: list[dict[str, Any]]) -> list[object]:
    """What the model says to the last message."""
    last = messages[-1]
    if last["role"] == "tool":
        by_pin = last["tool_call_id"].startswith("call_pin")
        return [calls("booking") if by_pin else says("Your booking has been sent by mail."), DONE]
    words = last["content"].lower()
    if "booking" in words:
        return [calls("pin"), DONE]
    return [says("I will put you through."), AWAY, DONE] if "human" in words else [says("One moment."), TRANSFER, DONE]


async def hears(call: PhoneCall, word: str) -> None:
    """Until the other side has said so, and is silent."""

    async def heard() -> bool:
        return any(word in said.lower() for said in call.heard)

    await Node.until(heard, 30)


def outcomes(record: FullCall) -> list[tuple[str, str, str]]:
    return [(tool.name, str(tool.status), tool.detail) for tool in record.tool_calls]


async def test_digits_a_request_and_two_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "s3cret")
    low = free_block(64)
    manager = Sipp("uas-outbound-answered.xml", timeout_s=120)
    away = Sipp("uas-outbound-no-answer.xml", timeout_s=120)
    async with chat_server() as server, shop_server() as shop, manager, away:
        server.decide = answer
        plan = dialplan(server.base_url, shop.url, manager.uri, away.uri)
        async with Node(dialplan=plan, extra='[tools]\nallow = ["127.0.0.1"]\n') as node:
            phone = Phone(PhoneSettings(media_ports=(low, low + 62)), SpeechSettings())
            await phone.start()
            try:
                call = await phone.call(f"sip:desk@{node.target}")
                assert await call.answered(10) and await call.until_quiet(1.0, 20)
                await call.say("I would like to know about my booking.")
                await hears(call, "number now")
                await call.press(PIN)
                await hears(call, "mail")
                asked, seen = shop.asked, json.dumps(server.requests)
                await call.say("Please let me talk to a human.")
                await hears(call, "sorry")  # the caller is back
                await call.say("Then somebody else, please.")
                await node.until(lambda: joined(node), 20)
                await call.hang_up()
            finally:
                await phone.close()
            (record,) = await node.ended(1, 40)
            log = node.log.read_text()
            assert await node.stop() == 0

    # What the caller pressed went to the web server, and to nobody else.
    ((method, path, headers, body),) = asked
    assert (method, path, headers["Authorization"]) == ("POST", "/bookings", "Bearer s3cret")
    assert json.loads(body) == {"pin": PIN, "by": "phone"}
    assert PIN not in seen and PIN not in log and "s3cret" not in log
    results = [message["content"] for message in server.messages() if message["role"] == "tool"]
    assert results == ["Collected: 4 digits, kept from you.", '{"order.state":"sent"}']
    said = " ".join(heard.lower() for heard in call.heard)
    assert "enter your number" in said and "sent by mail" in said and "sorry" in said

    # The agent knew why the caller was back, and the second human was told who comes.
    notes = [m["content"] for m in server.messages() if m["role"] == "system" and "transfer" in m["content"]]
    assert notes[-1] == "The transfer failed: nobody answers there. The caller is with you again."
    assert outcomes(record) == [
        ("pin", "ok", ""),
        ("booking", "ok", ""),
        ("transfer_call", "failed", "nobody answers there"),
        ("transfer_call", "ok", ""),
    ]
    assert "whispered" in [step.state for step in record.transfers]
    first = next(turn for turn in record.turns if turn.caller_text)
    assert [tool["name"] for tool in first.details["tools"]] == ["pin", "booking"]
    assert "One moment" not in first.agent_text  # the silence was the caller's
    assert {tool.turn_id for tool in record.tool_calls[:2]} == {first.id}


async def joined(node: Node) -> bool:
    """The second transfer is through."""
    async with node.http.get("/api/v1/voice/calls") as response:
        (call,) = (await response.json())["data"]
    async with node.http.get(f"/api/v1/voice/calls/{call['id']}/record") as response:
        record: dict[str, Any] = await response.json()
    steps = record.get("data", record)["transfers"]
    return any(step["state"] == "completed" for step in steps)
