"""A node behind somebody else's Kamailio: as its registrar and proxy, and as what spreads calls over several nodes."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from sipagent.core.events import CallCreated
from sipagent.core.termination import Cause, EndedBy
from tests.interop.agreement import agree
from tests.interop.audio import seconds_of
from tests.interop.conftest import PLAN, TRUNK
from tests.interop.node import TONE_HZ, Node
from tests.peers.baresip import Baresip
from tests.peers.kamailio import PASSWORD, Balancer, Kamailio
from tests.peers.pbx import Pbx
from tests.wait import until

# The first run fetches Asterisk.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="package")]


async def test_telephone_and_node_meet_at_their_registrar() -> None:
    async with Kamailio(expires_s=60) as registrar, AsyncExitStack() as parties:
        trunk = TRUNK.format(name="sbc", address=registrar.address, password=PASSWORD, more='from_user = "desk"')
        node = await parties.enter_async_context(Node(trunk, PLAN))
        phone = await parties.enter_async_context(Baresip("ann", registrar=registrar.address, password=PASSWORD))

        # The telephone calls; what follows inside the dialog goes by the proxy as well.
        await phone.command("dial", f"sip:desk@{registrar.address}")
        call = await node.incoming()
        port = call.leg.port
        await phone.command("hold")
        await until(lambda: port.connected is not None and not port.connected.send, "hold")
        await phone.command("resume")
        await until(lambda: port.connected is not None and port.connected.send, "resume")
        await phone.command("hangup")
        record = await node.ended(call.id)
        assert (record.call.trunk, record.call.ended_by) == ("sbc", EndedBy.CALLER)
        assert record.call.legs[0].remote_address == registrar.address

        # We call the telephone's address of record, with our password, and hang up.
        call = await node.answered(await node.call(f"sip:ann@{registrar.address}", "sbc"))
        await asyncio.sleep(0.8)
        call.hangup()
        record = await node.ended(call.id)
        assert (record.call.cause, record.call.ended_by) == (Cause.NORMAL, EndedBy.OPERATOR)
        await phone.event("CALL_CLOSED", since=len(phone.events) - 1)
        assert seconds_of(phone.heard(), TONE_HZ) > 0.4


async def test_calls_are_spread_over_nodes_and_go_on_when_one_is_gone(pbx: Pbx) -> None:
    trunk = '[[trunks]]\nname = "sbc"\nregister = false\npeers = ["127.0.0.1"]\n'
    async with AsyncExitStack() as parties:
        nodes = [await parties.enter_async_context(Node(trunk, PLAN)) for _ in range(2)]
        balancer = await parties.enter_async_context(Balancer(*(node.address for node in nodes)))
        to = f"sip:700@{balancer.address}"

        def taken() -> list[int]:
            return [len([event for event in node.events if isinstance(event, CallCreated)]) for node in nodes]

        channels = [await pbx.call("plain", f"tonespread{name}", caller="2004", to=to) for name in "ab"]
        cdrs = [await pbx.cdr_of(channel) for channel in channels]
        assert taken() == [1, 1]
        for node in nodes:
            (created,) = (event for event in node.events if isinstance(event, CallCreated))
            record = await node.ended(created.call_id)
            assert record.call.ended_by is EndedBy.AGENT  # our BYE came back by the proxy
            (cdr,) = (cdr for cdr in cdrs if cdr.sip_call_id == record.call.legs[0].sip_call_id)
            agree(record, cdr)
        assert all(seconds_of(pbx.heard(f"tonespread{name}"), TONE_HZ) > 0.8 for name in "ab")

        await nodes[0].app.close()
        channels = [await pbx.call("plain", f"tonespread{name}", caller="2005", to=to) for name in "cd"]
        assert [(await pbx.cdr_of(channel)).disposition for channel in channels] == ["ANSWERED"] * 2
        assert taken() == [1, 3]
