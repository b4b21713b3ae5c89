"""Keys pressed in calls between a node and Asterisk, each way, in each form that Asterisk has for them."""

import pytest

from sipagent.core.events import DigitReceived
from tests.interop.node import Node
from tests.peers.pbx import Pbx

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="package")]


@pytest.mark.parametrize("trunk", ["plain", "info", "inband"])
async def test_asterisk_presses(pbx: Pbx, node: Node, trunk: str) -> None:
    since = len(node.events)
    await pbx.call(trunk, "press1590#*1D")
    call = await node.incoming(since)
    record = await node.ended(call.id)
    digits = node.of(call.id, DigitReceived)
    assert "".join(event.digit for event in digits) == "1590#*1D"
    assert record.call.legs[0].digits_in == 8
    if trunk != "info":  # an INFO's duration PJSIP does not tell
        assert all(150 <= event.duration_ms <= 250 for event in digits), digits


@pytest.mark.parametrize("trunk", ["plain", "info", "inband"])
async def test_we_press(pbx: Pbx, node: Node, trunk: str) -> None:
    name = f"digits{trunk}"
    seen = len(pbx.manager.events)
    call = await node.answered(await node.call(f"sip:{name}@{pbx.address}", trunk, "tone"))
    await call.leg.press("4711*A09")
    told = await pbx.manager.event("UserEvent", since=seen, UserEvent="Digits")
    assert (told["Name"], told["Got"]) == (trunk, "4711*A09")
    await node.ended(call.id)
