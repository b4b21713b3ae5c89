"""Keys pressed in calls between a node and Asterisk, each way, in each form that Asterisk has for them."""

import pytest

from sipagent.core.events import DigitReceived
from tests.interop.node import Node
from tests.peers.pbx import Pbx

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]

FORMS = ("plain", "info", "inband")  # telephone-events, SIP INFO, tones: by the names of the trunks that use them


async def test_asterisk_presses(pbx: Pbx, node: Node) -> None:
    async def pressed(trunk: str) -> None:
        since = len(node.events)
        await pbx.call(trunk, "press1590#*1D")
        call = await node.incoming(since, trunk=trunk)
        record = await node.ended(call.id)
        digits = node.of(call.id, DigitReceived)
        assert "".join(event.digit for event in digits) == "1590#*1D", trunk
        assert record.call.legs[0].digits_in == 8
        assert all(110 <= event.duration_ms <= 250 for event in digits), (trunk, digits)

    for trunk in FORMS:  # not at once: two calls of the lane's four are up all the time
        await pressed(trunk)


async def test_we_press(pbx: Pbx, node: Node) -> None:
    async def press(trunk: str) -> None:
        seen = len(pbx.manager.events)
        call = await node.answered(await node.call(f"sip:digits{trunk}@{pbx.address}", trunk, "tone"))
        await call.leg.press("4711*A09")
        told = await pbx.manager.event("UserEvent", since=seen, UserEvent="Digits", Name=trunk)
        assert told["Got"] == "4711*A09"
        await node.ended(call.id)

    for trunk in FORMS:
        await press(trunk)
