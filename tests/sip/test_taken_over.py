"""What a new main learns of the registrations that the one before has left."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from sipagent.core import doors
from sipagent.core.clock import mono_ns
from sipagent.core.events import Event, RegistrationChanged
from sipagent.core.states import RegistrationState
from sipagent.sip import lanes as lanes_module
from sipagent.sip import zygote
from sipagent.sip.lanes import LanePool
from sipagent.sip.protocol import AddAccount, LaneReady, Register, Registered, RegistrationResult, Start
from sipagent.sip.registrar import Registrar
from sipagent.sip.settings import SipSettings, TrunkSettings


async def zygote_behind(run: Path, other_than: int = 0) -> int:
    """Its pid, once there is one."""
    async with asyncio.timeout(20):
        while True:
            met = doors.knock(run, zygote.DOOR, socket.SOCK_SEQPACKET) if (run / zygote.DOOR).exists() else None
            if met is not None:
                met[0].close()
                if met[1] != other_than:
                    return met[1]
            await asyncio.sleep(0.05)


def start_zygote(run: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "sipagent.sip.zygote", str(theirs.fileno()), str(run)]
        return subprocess.Popen(command, pass_fds=[theirs.fileno()]), ours


async def test_a_zygote_that_leaves_takes_away_no_door_but_its_own(tmp_path: Path):
    first, to_first = start_zygote(tmp_path)
    with to_first:
        assert await zygote_behind(tmp_path) == first.pid
        second, to_second = start_zygote(tmp_path)
        with to_second:
            assert await zygote_behind(tmp_path, first.pid) == second.pid
            to_first.send(zygote.LEAVE)
            assert await asyncio.to_thread(first.wait, 10) == 0
            assert await zygote_behind(tmp_path) == second.pid
            to_second.send(zygote.LEAVE)
            assert await asyncio.to_thread(second.wait, 10) == 0
    assert not (tmp_path / zygote.DOOR).exists()


class Lanes:
    """A pool that has one lane, and what it was left."""

    def __init__(self, registered: list[Registered]) -> None:
        self.ready = LaneReady(pid=7, max_calls=4, host="127.0.0.1", port=5060)
        self.registered = registered
        self.sent: list[Any] = []
        self.send = self.sent.append


class Events(list[Event]):
    def emit(self, event: Event) -> None:
        self.append(event)


def left(status: int, seconds_ago: float) -> Registered:
    result = RegistrationResult(account="pbx", status=status, reason="OK", expires_s=300)
    return Registered(at=mono_ns() - int(seconds_ago * 1e9), result=result)


async def told(registered: list[Registered]) -> tuple[Lanes, RegistrationState, Events]:
    lanes, events = Lanes(registered), Events()
    trunk = TrunkSettings(name="pbx", registrar="192.0.2.1", username="alice", password="secret")
    registrar = Registrar([trunk], cast(LanePool, lanes), events)
    registrar.lane_ready()
    return lanes, registrar.states["pbx"].state, events


async def test_a_registration_that_holds_is_known_and_not_made_anew() -> None:
    lanes, state, events = await told([left(200, seconds_ago=40)])
    assert state is RegistrationState.REGISTERED
    assert [type(command) for command in lanes.sent] == [AddAccount]
    assert [event.state for event in events if isinstance(event, RegistrationChanged)] == [RegistrationState.REGISTERED]


async def test_one_that_was_refused_or_has_run_out_is_tried_again() -> None:
    for registered in ([left(403, seconds_ago=1)], [left(200, seconds_ago=301)], []):
        _, state, events = await told(registered)
        assert state is RegistrationState.UNREGISTERED and not events


EDGE = "127.0.0.1:5999"


class LeftLane:
    """Behind the edge, with the registration of the account that it is named after."""

    def __init__(self, _nursery: object, _events: object, _owner: object) -> None:
        self.ready: LaneReady | None = None
        self.pid, self.free = 1, 4
        self.sent: list[Any] = []
        self.send = self.sent.append

    async def take_over(self, name: str) -> bool:
        result = RegistrationResult(account=name, status=200, reason="OK", expires_s=300)
        self.ready = LaneReady(
            pid=1,
            max_calls=4,
            host="127.0.0.1",
            port=1,
            start=Start(host="127.0.0.1", port=0, tcp=False, user_agent=SipSettings().user_agent, edge=EDGE),
            registered=[Registered(at=mono_ns(), result=result)],
        )
        return True

    async def close(self) -> None: ...


class NewEdge:
    def __init__(self, _settings: object, _events: object, _folder: object, *, inside: str = "") -> None:
        self.inside, self.pid = inside, 2
        self.trusted: frozenset[str] = frozenset()
        self.address = ""
        self.on_tls_trouble: Any = None

    async def trust(self, uris: frozenset[str]) -> None:
        self.trusted = uris

    def readdress(self, host: str) -> None:
        self.address = host

    async def start(self, _lanes: object, patience_s: float = 0.0) -> None: ...

    async def set_lanes(self, _lanes: object) -> None: ...

    async def release(self, _call_ids: object) -> None: ...

    async def close(self) -> None: ...


async def taken_over(monkeypatch: pytest.MonkeyPatch, run: Path) -> LanePool:
    monkeypatch.setattr(lanes_module, "LaneClient", LeftLane)
    monkeypatch.setattr(lanes_module, "Edge", NewEdge)
    monkeypatch.setattr(doors, "names", lambda _run, _kind: ["one", "two"])
    pool = LanePool(SipSettings(host="127.0.0.1"), Events(), max_calls=4, run=run)
    monkeypatch.setattr(pool._nursery, "take_over", lambda: True)
    pool.trust(frozenset({"sip:192.0.2.1:5061;transport=tls"}))
    pool.learned_address("198.51.100.7")
    await pool.start()
    return pool


async def test_the_new_edge_trusts_the_same_servers_and_its_tls_trouble_is_heard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool = await taken_over(monkeypatch, tmp_path)
    edge = cast(NewEdge, pool.edge)
    assert (edge.inside, edge.address) == (EDGE, "198.51.100.7")
    assert edge.trusted == {"sip:192.0.2.1:5061;transport=tls"}
    troubles: list[int] = []
    pool.on_tls_trouble = lambda: troubles.append(1)
    edge.on_tls_trouble()
    assert troubles == [1]
    await pool.close()


async def test_registrations_of_every_lane_are_taken_over_and_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool = await taken_over(monkeypatch, tmp_path)
    one, two = (cast(LeftLane, lane) for lane in pool._lanes)
    assert [known.result.account for known in pool.registered] == ["one", "two"]
    pool.send(Register(account="one"))
    pool.send(Register(account="two"))
    sent = [[each.account for each in lane.sent if isinstance(each, Register)] for lane in (one, two)]
    assert sent == [["one"], ["two"]]

    results: list[RegistrationResult] = []
    homeless: list[list[str]] = []
    pool.on_registration, pool.on_homeless = results.append, homeless.append
    refused = RegistrationResult(account="one", status=403, reason="Forbidden", expires_s=0)
    pool.lane_fact(pool._lanes[0], refused)
    assert results == [refused] and [known.result.account for known in pool.registered] == ["two"]
    two.ready = None
    pool.lane_lost(pool._lanes[1], frozenset())
    assert homeless == [["two"]] and pool.registered == []
    await pool.close()
