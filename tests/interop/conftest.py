"""One Asterisk and one node for all tests that talk to them: both take seconds to start."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.interop.node import Node
from tests.peers.asterisk import PASSWORD
from tests.peers.baresip import Baresip
from tests.peers.pbx import ENDPOINTS, PHONE, Pbx

TRUNK = """
[[trunks]]
name = "{name}"
registrar = "{address}"
username = "{name}"
password = "{password}"
{more}
"""
MORE = {
    "secure": 'srtp = "required"',
    "follow": 'follow_refer = ["tone*", "cause*"]',
    "info": 'dtmf = "info"\ncodecs = ["PCMA"]',
    "inband": 'dtmf = "inband"',
}

PLAN = """
routes:
  - {name: refused, calling: ["4*"], steps: busy}
  - {name: short, calling: ["2*"], steps: short}
  - {name: long, calling: ["3*"], steps: long}
  - {name: tone, steps: tone}
steps:
  tone: [answer, play: tone.wav]
  short: [answer, play: short.wav, hangup]
  long: [answer, play: tone.wav, play: tone.wav, play: tone.wav, play: tone.wav, play: tone.wav, play: tone.wav]
  busy: [reject: 486]
agents: {}
"""


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def pbx() -> AsyncIterator[Pbx]:
    async with Pbx() as pbx:
        yield pbx


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def node(pbx: Pbx) -> AsyncIterator[Node]:
    trunks = "".join(
        TRUNK.format(name=name, address=pbx.address, password=PASSWORD, more=MORE.get(name, "")) for name in ENDPOINTS
    )
    async with Node(trunks, PLAN, sip="session_expires_s = 90") as node:
        yield node


@pytest_asyncio.fixture(scope="package", loop_scope="package", autouse=True)
async def timed_call(pbx: Pbx, node: Node) -> str:
    """A call with a session timer that is up while the other tests run: its refresh comes after 45 s."""
    since = len(node.events)
    await pbx.call("timed", "echotimed", caller="3001")
    return (await node.incoming(since)).id


@pytest_asyncio.fixture(scope="package", loop_scope="package", autouse=True)
async def our_timed_call(node: Node) -> str:
    """The same, placed by us: who places a call refreshes it, unless they agree otherwise (RFC 4028 section 7.1)."""
    return (await node.answered(await node.call("echoours", "timed", "long"))).id


@pytest_asyncio.fixture(loop_scope="package")
async def extension(pbx: Pbx) -> AsyncIterator[Baresip]:
    async with Baresip(PHONE, registrar=pbx.address, password=PASSWORD) as extension:
        yield extension


@pytest_asyncio.fixture(loop_scope="package", autouse=True)
async def nothing_left(node: Node, timed_call: str, our_timed_call: str) -> AsyncIterator[None]:
    """A test that fails half-way leaves no call to the next one."""
    yield
    left = [call for call in node.app.registry.live if call.id not in (timed_call, our_timed_call)]
    for call in left:
        call.hangup()
        await node.ended(call.id)
