"""What the record costs: events per second on each database, and how much of a core 1,000 calls at a time take.

    python -m bench.store [URL ...]

Without a URL: SQLite in a temporary folder, and a PostgreSQL of Debian's package that is started for it. A call lasts
60 s, with eight turns, quality every 5 s, and its SIP messages. First the recorder is given all at once what
`CALLS` calls tell; then the events of 1,000 calls at a time, each when it is due.
"""

import argparse
import asyncio
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from sipagent.core import clock
from sipagent.core.clock import Stamp
from sipagent.core.events import (
    AgentSpeaking,
    CallCreated,
    CallEnded,
    CallerSaid,
    CallQuality,
    Event,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegRinging,
    MediaFigures,
    RouteChosen,
    SipMessage,
    SipMessages,
    TurnEnded,
    TurnLatency,
)
from sipagent.core.ids import CallId, LegId, new_call_id, new_leg_id, new_turn_id
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.store.engine import upgrade
from sipagent.store.recorder import Recorder
from tests.store.postgres import PostgresServer

CALLS = 500
CALL_S = 60
PACED_S = 20
AT_A_TIME = 1000
END = Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.CALLER, sip_status=200)
LATENCY = TurnLatency(endpointing_ms=300.0, stt_ms=80.0, tts_ms=120.0, total_ms=500.0)
SAID = "I would like to change my appointment from Tuesday morning to Thursday afternoon, if you can."
ANSWER = "Of course. On Thursday there is a place at two and another one at half past four. Which one suits you?"


def events_of(start: Stamp) -> list[tuple[float, Event]]:
    """A call's events, each with its second."""
    call, leg = new_call_id(), new_leg_id()
    told: list[tuple[float, Event]] = []

    def at(seconds: float) -> Stamp:
        return Stamp(start.mono + int(seconds * 1e9) + len(told), start.wall + timedelta(seconds=seconds))

    def tell(seconds: float, event: Event) -> None:
        told.append((seconds, event))

    numbers: dict[str, Any] = {"from_number": f"+4930{random.randrange(10**7):07}", "to_number": "+493012345"}
    tell(0, CallCreated(at=at(0), call_id=call, direction=Direction.INBOUND, trunk="carrier", **numbers))
    tell(0, RouteChosen(at=at(0), call_id=call, dialplan="front-desk", route="day", agent="desk"))
    tell(
        0,
        LegCreated(
            at=at(0),
            call_id=call,
            leg_id=leg,
            direction=Direction.INBOUND,
            sip_call_id=f"{call}@peer",
            remote_address="192.0.2.1:5060",
            **numbers,
        ),
    )
    tell(0.1, LegRinging(at=at(0.1), call_id=call, leg_id=leg, sip_status=180))
    tell(
        1,
        LegAnswered(
            at=at(1),
            call_id=call,
            leg_id=leg,
            sip_call_id=f"{call}@peer",
            codec="PCMU",
            local_media="192.0.2.9:20000",
            remote_media="192.0.2.1:30000",
        ),
    )
    for dialog_at, count in ((2, 4), (CALL_S - 0.1, 3)):
        messages = tuple(
            SipMessage(
                seq=int(dialog_at) * 10 + i,
                at=at(dialog_at),
                sent=i % 2 == 1,
                transport="UDP",
                local="192.0.2.9:5060",
                remote="192.0.2.1:5060",
                size=700,
                repeats=None,
                text="SIP/2.0 200 OK\r\n" + "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds\r\n" * 12,
            )
            for i in range(count)
        )
        tell(
            dialog_at,
            SipMessages(at=at(dialog_at), call_id=call, dialog=1, leg_id=leg, count=count, messages=messages),
        )
    for index in range(8):
        begin = 2 + 7 * index
        turn = new_turn_id()
        if index:
            tell(
                begin + 2,
                CallerSaid(
                    at=at(begin + 2),
                    call_id=call,
                    turn_id=turn,
                    text=SAID,
                    started_at=at(begin),
                    ended_at=at(begin + 2),
                    confidence=0.9,
                ),
            )
        tell(begin + 2.5, AgentSpeaking(at=at(begin + 2.5), call_id=call, text=ANSWER[:40], latency=LATENCY))
        tell(
            begin + 6,
            TurnEnded(
                at=at(begin + 6),
                call_id=call,
                turn_id=turn,
                index=index,
                caller_text=SAID,
                agent_text=ANSWER,
                heard_text=ANSWER,
                intent="move",
                confidence=0.9,
                interrupted=False,
                started_at=at(begin),
                agent_started_at=at(begin + 2.5),
                latency=LATENCY,
                details={"end": {"strategy": "adaptive", "silence_ms": 420, "probability": 0.83}},
            ),
        )
    for second in range(5, CALL_S, 5):
        tell(second, quality(at(second), call, leg))
    tell(CALL_S, quality(at(CALL_S), call, leg, final=True))
    tell(CALL_S, LegEnded(at=at(CALL_S), call_id=call, leg_id=leg, termination=END, figures=MediaFigures(lost=2)))
    tell(CALL_S, CallEnded(at=at(CALL_S), call_id=call, termination=END))
    return sorted(told, key=lambda both: both[0])


def quality(at: Stamp, call: CallId, leg: LegId, final: bool = False) -> Event:
    figures: dict[str, Any] = dict.fromkeys(
        (
            "lost_percent discarded_percent burst_density_percent burst_ms gap_density_percent gap_ms jitter_ms"
            " playout_delay_ms round_trip_ms mos_lq mos_cq level_in_dbov level_out_dbov peer_lost_percent"
            " peer_jitter_ms peer_mos_lq peer_mos_cq"
        ).split(),
        1.25,
    )
    counts: dict[str, Any] = {"packets": 250, "lost": 3, "discarded": 1, "concealed_ms": 80}
    return CallQuality(at=at, call_id=call, leg_id=leg, final=final, **counts, **figures)


def cpu_of_thread(name: str) -> float:
    """Seconds of CPU of this process's thread so far."""
    ids = [thread.native_id for thread in threading.enumerate() if thread.name == name]
    return sum(part.user_time + part.system_time for part in psutil.Process().threads() if part.id in ids)


async def saturated(url: str, folder: Path) -> str:
    start = clock.now()
    told = [event for _ in range(CALLS) for _, event in events_of(start)]
    recorder = Recorder(url, folder=folder)
    recorder.start()
    await recorder.flush()
    began, cpu, emitted = time.monotonic(), cpu_of_thread("recorder"), time.thread_time()
    for event in told:
        recorder.emit(event)
    emitted = time.thread_time() - emitted
    await recorder.flush()
    took, cpu = time.monotonic() - began, cpu_of_thread("recorder") - cpu
    assert await recorder.close() == 0 and recorder.statistics.refused == 0
    assert recorder.statistics.written == len(told)
    n = len(told)
    return f"{n} | {n / took:.0f} | {emitted / n * 1e6:.0f} | {cpu / n * 1e6:.0f}"


async def paced(url: str, folder: Path) -> str:
    """1,000 calls, evenly spread over their minute, for some seconds of it."""
    start = clock.now()
    due: list[tuple[float, Event]] = []
    for index in range(AT_A_TIME + AT_A_TIME * PACED_S // CALL_S):
        begins = index * CALL_S / AT_A_TIME - CALL_S
        due += [(begins + second, event) for second, event in events_of(start)]
    due.sort(key=lambda both: both[0])
    recorder = Recorder(url, folder=folder)
    recorder.start()
    for second, event in due:  # what was told before
        if second < 0:
            recorder.emit(event)
    await recorder.flush()
    now = [both for both in due if 0 <= both[0] < PACED_S]
    worst = in_emit = 0.0
    process, thread = time.process_time(), cpu_of_thread("recorder")
    began = time.monotonic()
    for second, event in now:
        if (wait := began + second - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        before, cpu = time.perf_counter(), time.thread_time()
        recorder.emit(event)
        in_emit += time.thread_time() - cpu
        worst = max(worst, time.perf_counter() - before)
    await recorder.flush()
    thread = cpu_of_thread("recorder") - thread
    whole = time.process_time() - process
    assert await recorder.close() == 0 and recorder.statistics.refused == 0
    share, rest = (thread + in_emit) / PACED_S * 100, (whole - thread - in_emit) / PACED_S * 100
    return f"{len(now) / PACED_S:.0f} | {share:.1f} % | {worst * 1e3:.2f} | {rest:.1f} %"


def databases(given: list[str], folder: Path, stack: ExitStack) -> Iterator[tuple[str, str]]:
    if given:
        for url in given:
            yield url.partition(":")[0], url
        return
    yield "SQLite", f"sqlite:///{folder / 'bench.db'}"
    server = PostgresServer()
    stack.callback(server.close)
    yield "PostgreSQL", server.create("bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="*")
    given = parser.parse_args().url
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        print(f"load {os.getloadavg()[0]:.1f}")
        print("| database | events | events/s | us in emit | us of CPU in the writer's thread |")
        urls = list(databases(given, folder, stack))
        for kind, url in urls:
            upgrade(url)
            print(f"| {kind} | {asyncio.run(saturated(url, folder / 'journal'))} |")
        print("| database | events/s | of a core: emit and writer | worst emit ms | the bench's own pacing |")
        for kind, url in urls:
            print(f"| {kind} | {asyncio.run(paced(url, folder / 'journal'))} |")


if __name__ == "__main__":
    main()
