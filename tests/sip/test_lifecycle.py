"""Processes that die, are stopped, or are many calls old."""

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from sipagent.core.errors import SetupError
from sipagent.core.events import ProcessEnded, ProcessStarted
from sipagent.sip import zygote
from sipagent.sip.nursery import Nursery
from sipagent.sip.pjsip import tls_objection
from sipagent.sip.protocol import Answered, Ended, Hangup, IncomingCall
from tests.peers import sipp
from tests.peers.papers import Papers
from tests.peers.ports import free_port
from tests.peers.sipp import Sipp
from tests.sip.agent import Agent

pytestmark = pytest.mark.peer


async def next_call_works(agent: Agent) -> None:
    (await sipp.run("uac-inbound-answered.xml", target=agent.address, duration_ms=50)).check()


async def test_lane_killed_during_a_call(agent: Agent) -> None:
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address):
        first = await agent.fact(Answered)
        old = agent.lane.pids
        os.kill(old["lane"], signal.SIGKILL)
        await agent.until(lambda: agent.lost == 1, "loss")
        (ended,) = [event for event in agent.events if isinstance(event, ProcessEnded)]
        assert (ended.process, ended.pid, ended.calls_affected) == ("lane", old["lane"], 1)
        assert ended.reason == "killed by SIGKILL"
        agent.lane.send(Hangup(call=first.call))  # dropped: no lane is up
        await agent.until(lambda: len(agent.readies) == 2, "a new lane")
    new = agent.lane.pids
    assert new["zygote"] == old["zygote"] and new["lane"] != old["lane"]
    await next_call_works(agent)
    assert agent.all(IncomingCall)[-1].call > first.call  # a handle is never given twice


async def test_mistakes_in_callbacks_cost_nobody_the_lane(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    def mistake(*_: object) -> None:
        raise RuntimeError("mistake")

    agent.lane.on_lost = mistake
    agent.on_call = mistake
    (await sipp.run("uac-cancel-expect-487.xml", target=agent.address, timeout_s=1)).messages.index("100 Trying")
    os.kill(agent.lane.pids["lane"], signal.SIGKILL)
    await agent.until(lambda: len(agent.readies) == 2, "a new lane")
    assert [record.message for record in caplog.records].count("a fact of the lane could not be handled") == 2
    agent.on_call = agent.answer
    await next_call_works(agent)


async def test_zygote_killed_during_a_call(agent: Agent) -> None:
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address):
        await agent.fact(Answered)
        old = agent.lane.pids
        os.kill(old["zygote"], signal.SIGKILL)
        await agent.until(lambda: len(agent.readies) == 2, "a new lane")
    assert agent.lost == 1
    assert not set(agent.lane.pids.values()) & set(old.values())
    await next_call_works(agent)


async def test_stuck_lane_is_replaced(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipagent.sip.client._PING_S", 0.2)
    monkeypatch.setattr("sipagent.sip.client._SILENT_PINGS", 2)
    os.kill(agent.lane.pids["lane"], signal.SIGKILL)
    await agent.until(lambda: len(agent.readies) == 2, "a new lane")  # whose pinger has the short times
    os.kill(agent.lane.pids["lane"], signal.SIGSTOP)
    await agent.until(lambda: len(agent.readies) == 3, "a new lane")
    await next_call_works(agent)


async def test_main_standing_still_does_not_cost_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipagent.sip.client._PING_S", 0.1)
    monkeypatch.setattr("sipagent.sip.client._SILENT_PINGS", 2)
    async with Agent() as agent:
        for _ in range(2):
            await asyncio.sleep(0.15)
            time.sleep(0.6)  # the event loop does not turn, the lane does
        await asyncio.sleep(0.5)
        assert agent.lost == 0 and len(agent.readies) == 1


async def test_a_closed_terminal_does_not_cost_the_calls(agent: Agent) -> None:
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address) as caller:
        call = await agent.fact(Answered)
        for pid in agent.lane.pids.values():
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
        await asyncio.sleep(0.3)
        assert agent.lost == 0
        agent.lane.send(Hangup(call=call.call))
        (await caller.wait()).check()


async def test_a_number_used_again_is_not_taken_for_the_dead_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    killed: list[int] = []
    monkeypatch.setattr("sipagent.sip.nursery.os.kill", lambda pid, _: killed.append(pid))
    async with asyncio.timeout(20):
        client = Nursery()
        client._process = await asyncio.create_subprocess_exec("sleep", "60")
        client._control = ours
        theirs.send(zygote.encoder.encode(zygote.Forked(pid=4711)))
        theirs.send(zygote.encoder.encode(zygote.Exited(pid=4711, status=-9)))
        client.kill(4711)
        assert client._exits == {4711: -9} and not killed  # reaped: it may be anybody's by now
        theirs.send(zygote.encoder.encode(zygote.Forked(pid=4711)))
        client.kill(4711)
        assert client._exits == {} and killed == [4711]
        theirs.close()
        client.kill(4711)
        assert killed == [4711]  # nobody vouches for it
        monkeypatch.undo()
        client._process.kill()
        await client._process.wait()


async def test_lanes_that_keep_dying_are_replaced_ever_more_slowly(agent: Agent) -> None:
    for count in range(1, 4):
        os.kill(agent.lane.pids["lane"], signal.SIGKILL)
        begun = time.monotonic()
        await agent.until(lambda count=count: len(agent.readies) == count + 1, "a new lane")  # type: ignore[misc]
    assert time.monotonic() - begun >= 0.8  # 0.2, 0.4, 0.8 s
    assert len([event for event in agent.events if isinstance(event, ProcessStarted)]) == 4


async def test_close_hangs_up_and_leaves_nothing_behind() -> None:
    agent = Agent()
    await agent.lane.start()
    processes = [psutil.Process(pid) for pid in agent.lane.pids.values()]
    assert len(processes) == 2
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=agent.address) as caller:
        await agent.fact(Answered)
        await agent.lane.close()
        (await caller.wait()).check()  # it got its BYE
    await agent.lane.close()
    assert agent.lane.pids == {} and agent.lane.ready is None
    assert not any(process.is_running() for process in processes)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", agent.settings.port))
    assert agent.lost == 0


async def test_main_killed_hangs_up_and_leaves_nothing_behind() -> None:
    port = free_port()
    code = (
        "import asyncio\n"
        "from tests.sip.agent import Agent\n"
        "async def main():\n"
        f"    async with Agent(port={port}) as agent:\n"
        "        print(*agent.lane.pids.values(), flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    main = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert main.stdout is not None
    pids = [int(word) for word in (await main.stdout.readline()).split()]
    processes = [psutil.Process(pid) for pid in pids]
    async with Sipp("uac-inbound-agent-hangs-up.xml", target=f"127.0.0.1:{port}") as caller:
        await asyncio.sleep(0.6)
        main.kill()
        await main.wait()
        (await caller.wait()).check()
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_taken_port_is_a_sentence(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        port = sock.getsockname()[1]
        agent = Agent(port=port)
        with pytest.raises(SetupError, match=f"port {port} on 127.0.0.1 is taken.*another port"):
            await agent.lane.start()
        assert agent.lane.pids == {}


async def test_an_address_of_another_machine_is_a_sentence() -> None:
    agent = Agent()
    agent.lane.settings = type(agent.settings)(host="192.0.2.1", port=free_port())
    with pytest.raises(SetupError, match="cannot be bound"):
        await agent.lane.start()


async def test_a_hundred_calls_one_after_another_leave_nothing(agent: Agent) -> None:
    lane = psutil.Process(agent.lane.pids["lane"])

    async def calls(count: int) -> None:
        result = await sipp.run(
            "uac-inbound-answered.xml",
            target=agent.address,
            calls=count,
            rate=20,
            limit=1,
            duration_ms=30,
            timeout_s=60,
        )
        result.check()

    await calls(20)
    files, threads, memory = lane.num_fds(), lane.num_threads(), lane.memory_info().rss
    await calls(80)
    await agent.fact(Ended, nth=100)
    assert len(agent.all(IncomingCall)) == len(agent.all(Answered)) == len(agent.all(Ended)) == 100
    assert lane.num_fds() == files and lane.num_threads() == threads
    # PJSIP keeps a finished call's transactions for 32 s (RFC 3261 timer J), about 33 KB each: a plateau, no leak.
    grown = lane.memory_info().rss - memory
    print(f"lane after 20 calls {memory >> 10} KiB, after 100 {(memory + grown) >> 10} KiB, {files} files")
    assert grown < 80 * 60_000


@pytest.mark.soak
async def test_soak_memory_is_flat_once_timers_have_run(agent: Agent) -> None:
    lane = psutil.Process(agent.lane.pids["lane"])
    seen = []
    for _ in range(4):
        result = await sipp.run(
            "uac-inbound-answered.xml",
            target=agent.address,
            calls=300,
            rate=30,
            limit=4,
            duration_ms=20,
            timeout_s=60,
        )
        result.check()
        seen.append(lane.memory_info().rss)
        await asyncio.sleep(1)
    print("lane RSS after each 300 calls, KiB:", [rss >> 10 for rss in seen])
    await agent.fact(Ended, nth=1200)
    assert seen[-1] - seen[-2] < 6 << 20


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("OpenSSL 3.0.15 3 Sep 2024", ""),
        ("OpenSSL 10.1.0 1 Jan 2040", ""),
        ("OpenSSL 1.1.1w  11 Sep 2023", "OpenSSL 1.1.1w, which gets no fixes"),
        ("OpenSSL 1.0.2k-fips  26 Jan 2017", "OpenSSL 1.0.2k-fips, which gets no fixes"),
        ("LibreSSL 3.9.2", "LibreSSL 3.9.2"),
        ("", "without TLS"),
    ],
)
def test_with_which_openssl_a_lane_may_do_tls(version: str, says: str) -> None:
    objection = tls_objection(version)
    assert bool(objection) is bool(says) and says in objection


async def test_a_lane_does_no_tls_with_the_openssl_of_the_wheel(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    files: dict[str, Any] = {
        "tls_certificate": papers.certificate("edge"),
        "tls_key": papers.key("edge"),
        "tls_ca": papers.certificate("authority"),
    }
    with pytest.raises(SetupError, match=r"OpenSSL 1\.0\.2.*leave TLS to the edge"):
        async with Agent(edge="off", tls_port=free_port(), **files):
            pass
