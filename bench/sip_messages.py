"""What keeping the SIP messages of calls costs: CPU of the lane and of main a message, and rows in the record.

python -m bench.sip_messages [--calls 600] [--rate 60]

SIPp calls a lane; every call is answered and hung up, 7 messages. With and without `record_messages`, in turns.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from sipagent.calls.ladder import Ladders
from sipagent.core.clock import now
from sipagent.core.events import CallCreated, CallEnded
from sipagent.core.ids import CallId, new_call_id
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.sip.protocol import Ended, IncomingCall, SipMessages
from sipagent.store.engine import default_url, upgrade
from sipagent.store.recorder import Recorder
from tests.peers import sipp
from tests.sip.agent import Agent

MESSAGES = 7  # of each call
END = Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.CALLER, sip_status=200)


async def round_of(calls: int, rate: float, *, keep: bool) -> tuple[float, float, int]:
    """CPU seconds of the lane, of this process, and bytes of the record."""
    with tempfile.TemporaryDirectory() as folder:
        url = default_url(Path(folder))
        upgrade(url)
        recorder = Recorder(url)
        recorder.start()
        ladders = Ladders(recorder)
        ids: dict[int, CallId] = {}
        async with Agent(record_messages=keep) as agent:

            def incoming(call: IncomingCall) -> None:
                ids[call.call] = call_id = new_call_id()
                recorder.emit(
                    CallCreated(
                        at=now(),
                        call_id=call_id,
                        direction=Direction.INBOUND,
                        from_number="+4930123456",
                        to_number="100",
                        trunk="",
                    )
                )
                ladders.belongs(call.call, call_id)
                agent.answer(call)

            def fact(told: object) -> None:
                if isinstance(told, SipMessages):
                    ladders.take(told)
                elif isinstance(told, Ended):
                    ladders.ended(told.call)
                    recorder.emit(CallEnded(at=now(), call_id=ids[told.call], termination=END))

            agent.on_call = incoming
            agent.lane.on_fact = fact
            (lane_pid,) = (pid for name, pid in agent.lane.pids.items() if name == "lane")
            lane, main = psutil.Process(lane_pid), psutil.Process()
            before = _cpu(lane), _cpu(main)
            result = await sipp.run(
                "uac-inbound-caller-hangs-up.xml",
                target=agent.address,
                calls=calls,
                rate=rate,
                limit=4,
                duration_ms=0,
                timeout_s=20 + 3 * calls / rate,
            )
            result.check()
            await asyncio.sleep(3)  # until the lane has told everything
            spent = _cpu(lane) - before[0], _cpu(main) - before[1]
        lost = await recorder.close()
        assert lost == 0 and recorder.statistics.refused == 0
        return *spent, (Path(folder) / "sipagent.db").stat().st_size


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--rate", type=float, default=60.0)
    given = parser.parse_args()
    for turn in range(2):
        found = {keep: await round_of(given.calls, given.rate, keep=keep) for keep in (False, True)}
        each = given.calls * MESSAGES
        for index, who in enumerate(("lane", "main, record included")):
            off, on = found[False][index], found[True][index]
            cost = (on - off) / each * 1e6
            print(f"round {turn + 1}, {who}: {off:.2f} s without, {on:.2f} s with: {cost:.0f} us a message")
        print(f"round {turn + 1}, record: {(found[True][2] - found[False][2]) / given.calls / 1000:.1f} kB a call")


if __name__ == "__main__":
    began = time.monotonic()
    asyncio.run(main())
    print(f"{time.monotonic() - began:.0f} s")
