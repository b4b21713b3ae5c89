"""Many calls at once, everything in any order: each leg and each call ends once, and nothing is left."""

import asyncio
import random

import pytest

from sipagent.core.events import CallCreated, CallEnded, LegCreated, LegEnded, TransferChanged
from sipagent.dialplan.model import DialStep, TransferStep
from sipagent.sip import protocol
from tests.calls.test_registry import World, settle

TWO = ("sip:a@127.0.0.1", "sip:b@127.0.0.1")
STEPS = [
    TransferStep(target="sip:d@127.0.0.9", music="silence"),
    DialStep(to=TWO, at_once=True, music="silence"),
    DialStep(to=TWO, music="silence"),
]
ENDS = ("completed", "failed", "abandoned", "unknown")


async def lives(world: World, handle: int, chance: random.Random) -> None:
    """One caller, and peers that do what they like."""
    world.rings(handle)
    await asyncio.sleep(chance.random() * 0.1)
    world.answered(handle)
    for _ in range(chance.randrange(1, 5)):
        await asyncio.sleep(chance.random() * 0.05)
        placed = [command.call for command in world.lane.sent if isinstance(command, protocol.MakeCall)]
        other = chance.choice(placed) if placed else handle
        what = chance.random()
        if what < 0.3:
            world.answered(other)
        elif what < 0.5:
            world.ended(other, status=chance.choice([486, 480, 603, 503]))
        elif what < 0.75:
            status = chance.choice([200, 405, 486])
            world.registry.on_fact(protocol.TransferProgress(call=handle, status=status, reason="", final=True))
        elif world.registry.live:
            chance.choice(world.registry.live).hangup()
    await asyncio.sleep(chance.random() * 0.1)
    world.ended(handle, was_answered=True)


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_each_leg_and_each_call_ends_once(seed):
    chance = random.Random(seed)
    world = World(STEPS, end_timeout_s=0.05, ring_timeout_s=0.3, transfer_timeout_s=0.2)
    world.lane.ready.max_calls = 1000
    world.media.delay_s = 0.002
    await asyncio.gather(*(lives(world, handle, chance) for handle in range(1, 101)))
    await settle(0.5)
    await world.registry.drain()
    assert len(world.of(CallCreated)) == len(world.of(CallEnded)) == 100
    ended = [event.leg_id for event in world.of(LegEnded)]
    assert sorted(ended) == sorted(event.leg_id for event in world.of(LegCreated))
    assert len(ended) > 100 and len(set(ended)) == len(ended)
    assert world.media.opened == world.media.closed
    assert world.registry.live == [] and len(world.registry._legs) == 0
    outcomes = {event.transfer_id: event.state for event in world.of(TransferChanged)}
    assert set(outcomes.values()) <= set(ENDS)
