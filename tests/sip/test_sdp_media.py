"""Two legs, each with a lane and a media process of its own: what SDP agreed on is what is heard."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from sipagent.calls.leg import Leg, LegIdentity
from sipagent.core.events import EventHub, LegAnswered
from sipagent.core.ids import new_call_id
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.media.client import Frames, MediaClient
from sipagent.media.settings import MediaSettings
from sipagent.sip import sdes, sdp
from sipagent.sip.lanes import LanePool
from sipagent.sip.protocol import AnyFact, IncomingCall, Reject
from sipagent.sip.settings import SipSettings
from tests.peers.ports import free_block, free_port

pytestmark = [pytest.mark.peer, pytest.mark.timeout(60)]

DONE = Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.AGENT, sip_status=200)


class Party:
    """One end: places or takes one call, says a tone, and measures the tone it hears."""

    def __init__(self, terms: sdp.Terms, hertz: int) -> None:
        self.terms, self.hertz = terms, hertz
        self.hub = EventHub()
        self.answered: list[LegAnswered] = []
        self.hub.subscribe(lambda event: self.answered.append(event) if isinstance(event, LegAnswered) else None)
        self.sip = SipSettings(host="127.0.0.1", port=free_port(), tcp=False)
        self.lane = LanePool(self.sip, self.hub)
        low = free_block(40)
        self.media = MediaClient(
            MediaSettings(host="127.0.0.1", port_min=low, port_max=low + 39, capacity=4, realtime=False), self.hub
        )
        self.legs: dict[int, Leg] = {}
        self.refused = 0
        self.heard: list[Frames] = []
        self.lane.on_fact = self._fact
        self.lane.on_incoming = lambda call: self.tasks.append(asyncio.ensure_future(self._take(call)))
        self.tasks: list[asyncio.Future[None]] = []

    async def leg(self, handle: int, direction: Direction) -> Leg:
        identity = LegIdentity(
            call_id=new_call_id(), direction=direction, from_number="a", to_number="b", remote_address="127.0.0.1"
        )
        port = await self.media.open()
        leg = Leg(handle, self.lane, port, self.hub, identity, "127.0.0.1", self.terms)
        port.on_frames = self.heard.append
        self.legs[handle] = leg
        return leg

    async def call(self, other: "Party") -> Leg:
        leg = await self.leg(self.lane.next_handle(), Direction.OUTBOUND)
        leg.call("", f"sip:b@127.0.0.1:{other.sip.port}", "", {})
        return leg

    def say(self, seconds: float = 3.0) -> None:
        (leg,) = self.legs.values()
        rate = leg.port.rate
        at = np.arange(int(seconds * 50) * rate // 50)
        leg.port.write((8000 * np.sin(2 * np.pi * self.hertz / rate * at)).astype(np.int16))

    async def hears(self, other: "Party", within_s: float = 30.0) -> None:
        """Returns once half a second of the other's tone came in from now on."""
        self.heard.clear()
        async with asyncio.timeout(within_s):
            while True:
                await asyncio.sleep(0.1)
                frames = self.heard[-25:]
                if len(frames) < 25:
                    continue
                pcm = np.concatenate([frame.pcm.ravel() for frame in frames])
                rate = next(iter(self.legs.values())).port.rate
                spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64)))
                if spectrum.max() > 1e5 and abs(spectrum.argmax() * rate / len(pcm) - other.hertz) < 20:
                    return

    async def _take(self, call: IncomingCall) -> None:
        leg = await self.leg(call.call, Direction.INBOUND)
        try:
            leg.take_offer(call.sdp)
        except sdp.NoCommonCodec:
            self.refused += 1
            self.lane.send(Reject(call=call.call, status=488))
            return
        leg.answer()

    def _fact(self, fact: AnyFact) -> None:
        leg = self.legs.get(getattr(fact, "call", 0))
        if leg is not None:
            leg.on_fact(fact)

    async def __aenter__(self) -> "Party":
        await self.lane.start()
        await self.media.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self.tasks)
        await self.lane.close()
        await self.media.close()


@asynccontextmanager
async def parties(ours: sdp.Terms, theirs: sdp.Terms) -> AsyncIterator[tuple[Party, Party]]:
    async with Party(ours, 440) as caller, Party(theirs, 900) as callee:
        yield caller, callee


async def talk(caller: Party, callee: Party) -> None:
    for party in (caller, callee):
        party.say()
    await asyncio.gather(caller.hears(callee), callee.hears(caller))


def keyed(srtp: sdp.SrtpPolicy) -> sdp.Terms:
    return sdp.Terms(srtp=srtp, keys=sdes.new_keys())


async def test_an_encrypted_call_that_outlives_a_media_process() -> None:
    async with parties(keyed("required"), keyed("optional")) as (caller, callee):
        leg = await caller.call(callee)
        await asyncio.wait_for(leg.answered.wait(), 5)
        await talk(caller, callee)
        connected = leg.port.connected
        assert connected is not None and connected.crypto is not None
        assert connected.crypto.suite == "AES_CM_128_HMAC_SHA1_80"
        os.kill(caller.media.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        await talk(caller, callee)
        assert leg.port.figures().malformed == 0
        leg.hangup(DONE)


@pytest.mark.parametrize(("ours", "theirs", "encrypted"), [("optional", "optional", True), ("optional", "off", False)])
async def test_optional_takes_what_there_is(ours: sdp.SrtpPolicy, theirs: sdp.SrtpPolicy, encrypted: bool) -> None:
    async with parties(keyed(ours), keyed(theirs)) as (caller, callee):
        leg = await caller.call(callee)
        await asyncio.wait_for(leg.answered.wait(), 5)
        await talk(caller, callee)
        connected = leg.port.connected
        assert connected is not None and (connected.crypto is not None) == encrypted
        leg.hangup(DONE)


async def test_required_is_refused_by_who_has_it_off() -> None:
    async with parties(keyed("required"), sdp.CLEAR) as (caller, callee):
        leg = await caller.call(callee)
        ended = await asyncio.wait_for(asyncio.shield(leg.ended), 5)
        assert ended.sip_status == 488 and callee.refused == 1


async def test_a_wideband_call() -> None:
    terms = sdp.Terms(codecs=("G722", "PCMU"), srtp="optional", keys=sdes.new_keys())
    async with parties(terms, terms) as (caller, callee):
        leg = await caller.call(callee)
        await asyncio.wait_for(leg.answered.wait(), 5)
        await talk(caller, callee)
        assert caller.answered[0].codec == "G722" and leg.port.rate == 16000
        leg.hangup(DONE)
