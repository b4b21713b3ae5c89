"""Hostile and broken packets through the engine's own code: nothing may fail, grow, or reach another call.

    python -m bench.fuzz --packets 10000000 --seed 1
    python -m bench.fuzz --seed 1 --episode 17        one episode again, as a failure says

Valid streams (PCMU, PCMA, G.722, SRTP, telephone-events, comfort noise, RTCP, one port shared by two calls, RTCP on the
RTP port) are mutated, lost, doubled, delayed and mixed with those of strangers, and go where the sockets would have
handed them, by a simulated clock. In between frames are played and sent, keys pressed, calls held, moved, closed and
resumed by a new engine. One call has a perfect peer: nothing that is done to the others may be heard in it. Episodes
alternate between the hot path in numpy and its twin in C.
"""

import argparse
import gc
import heapq
import multiprocessing
import os
import random
import resource
import sys
import time
import traceback
import warnings
from collections import Counter as Tally
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.fuzz_packets import Stream, mutate
from bench.fuzz_world import SHARED_PORT, World
from sipagent.media import native
from sipagent.media.protocol import SRTP_KEY, SRTP_SUITES, ClosePort, Connect, Crypto, Hear, OpenPort, SendDigits
from sipagent.media.rings import FLAG_CONCEALED, TX_FRAMES, Counter
from sipagent.media.rtp import FRAME
from sipagent.media.source import Address

EPISODE = 50_000  # packets
CLEAN = 7  # the slot whose peer is perfect and whom nobody attacks
PORTS = ((0,), (1,), (2,), (3,), (4,), (5, 6), (CLEAN,))  # slots by port
STRANGERS = (("192.0.2.66", 666), ("192.0.2.10", 9), ("192.0.2.15", 4015))
TRANSLATED = (("198.51.100.1", 65_535), ("198.51.100.2", 1), ("198.51.100.3", 65_534))  # by a NAT that the SDP ignores
KEYS = "0123456789*#ABCD,"


class Kind(NamedTuple):
    """What a slot's SDP has agreed on."""

    payload_type: int
    event: int = -1
    noise: int = -1
    mux: bool = False
    suite: str = ""


KINDS = (
    Kind(0, 101, 13),
    Kind(8, mux=True),
    Kind(9, 101, 13),
    Kind(0, 101, 13, suite=SRTP_SUITES[0]),
    Kind(8, 96, mux=True, suite=SRTP_SUITES[1]),
    Kind(0, 101),
    Kind(8, 101, 13),
    Kind(0, 101),
)


class Call:
    """One slot of the episode: what was agreed, its peer, and what is on its way."""

    def __init__(self, world: World, rng: random.Random, slot: int) -> None:
        self.world, self.rng, self.slot = world, rng, slot
        self.kind = KINDS[slot]
        self.far: Address = (f"192.0.2.{10 + slot}", 4000)
        self.late: list[tuple[int, int, bytes]] = []  # heap: when it comes, number, datagram
        self.due = 0
        self.source = self.far
        self.newest = b""
        self.number = 0
        self.open(resume=False)

    def open(self, *, resume: bool) -> None:
        world, slot, rng = self.world, self.slot, self.rng
        port = SHARED_PORT if slot in (5, 6) else 0
        world.lines.open(OpenPort(slot=slot, resume=resume, port=port), world.now)
        world.rings.tx_ssrc[slot] = rng.getrandbits(32)
        world.reopened(slot, resume=resume)
        if not resume:
            world.rings.tx_sequence[slot], world.rings.tx_timestamp[slot] = 65_500, 0xFFFFF000
        self.crypto = None
        if self.kind.suite:
            keys = rng.randbytes(SRTP_KEY), rng.randbytes(SRTP_KEY)
            self.crypto = Crypto(suite=self.kind.suite, local_key=keys[0], remote_key=keys[1])
        self.agree()

    def agree(self, *, send: bool = True, receive: bool = True) -> None:
        """The SDP's word; a new peer answers to it."""
        kind, slot, rng = self.kind, self.slot, self.rng
        connect = Connect(
            slot=slot,
            host=self.far[0],
            port=self.far[1],
            payload_type=kind.payload_type,
            telephone_event=kind.event,
            comfort_noise=kind.noise,
            rtcp_port=0 if kind.mux or slot == 5 else self.far[1] + 1,
            rtcp_mux=kind.mux,
            crypto=self.crypto,
            send=send,
            receive=receive,
        )
        self.world.lines.connect(connect, self.world.now)
        self.source = self.far if slot == CLEAN or rng.random() < 0.7 else rng.choice(TRANSLATED)
        self.peer = Stream(
            rng,
            payload_type=kind.payload_type,
            event=kind.event if kind.event >= 0 else 101,
            noise=kind.noise,
            our_ssrc=int(self.world.rings.tx_ssrc[slot]),
            crypto=self.crypto,
        )

    def datagrams(self, burst: int, spoilt: float) -> list[tuple[bytes, Address, bool]]:
        """What comes in this tick: the stream as far as it is due, what was delayed, and `burst` packets of malice."""
        rng, now, found = self.rng, self.world.now, []
        while self.due <= now:
            self.due = max(self.due, now - 40_000_000) + self.peer.ptime * 1_000_000
            found += self._sent(spoilt)
        while self.late and self.late[0][0] <= now:
            found.append((heapq.heappop(self.late)[2], self.source, False))
        for _ in range(burst):
            drawn = rng.random()
            if drawn < 0.15:
                plain = self.peer.report()
                plain = mutate(rng, plain, self.newest) if rng.random() < 0.7 else plain
                data = self.peer.protected(plain, control=True)
                data = mutate(rng, data, self.newest) if rng.random() < 0.3 else data
                control = not self.kind.mux if rng.random() < 0.9 else self.kind.mux
                found.append((data, self.source if rng.random() < 0.8 else rng.choice(STRANGERS), control))
            elif drawn < 0.55:
                data = mutate(rng, self.newest, self.peer.report() if drawn < 0.17 else self.newest)
                found.append((data, self.source, rng.random() < 0.02))
            elif drawn < 0.75:  # authentic, but malicious
                found.append((self.peer.protected(mutate(rng, self.peer.next(), self.newest)), self.source, False))
            else:
                data = self.newest if drawn < 0.85 else mutate(rng, self.newest, self.newest)
                found.append((data, rng.choice(STRANGERS), rng.random() < 0.1))
        return found

    def _sent(self, spoilt: float) -> list[tuple[bytes, Address, bool]]:
        rng = self.rng
        plain = self.peer.next()
        if rng.random() < spoilt / 4:
            plain = mutate(rng, plain, self.newest)
        data = self.newest = self.peer.protected(plain)
        drawn = rng.random()
        if drawn < spoilt / 4:
            return []
        if drawn < spoilt / 2:
            self.number += 1
            delay = rng.choice((10, 20, 30, 60, 200, 900, 3000)) * 1_000_000
            heapq.heappush(self.late, (self.world.now + delay, self.number, data))
            if drawn < spoilt / 3:
                return []
        if drawn > 1 - spoilt / 4:
            data = mutate(rng, data, self.newest)
        return [(data, self.source, False)] * (2 if rng.random() < spoilt / 8 else 1)

    def command(self) -> None:
        """Something that main does."""
        rng, world, slot = self.rng, self.world, self.slot
        drawn = rng.randrange(9)
        if drawn == 0:
            world.lines.close(ClosePort(slot=slot), world.now)
            self.open(resume=rng.random() < 0.5)
        elif drawn == 1:
            self.agree(receive=rng.random() < 0.5, send=rng.random() < 0.5)
        elif drawn == 2:
            self.far = self.far[0], self.far[1] + 2 if self.far[1] < 5000 else 4000
            self.agree()
        elif drawn == 3 and slot not in (5, 6):
            wanted = rng.choice((0, 8, 9))
            self.kind = self.kind._replace(payload_type=wanted, event=rng.choice((-1, 96, 101)))
            self.agree()
        elif drawn < 6:
            keys = "".join(rng.choices(KEYS, k=rng.randrange(1, 6)))
            world.lines.press(SendDigits(slot=slot, digits=keys, duration_ms=rng.choice((40, 160, 1000))))
        elif drawn == 8:
            self.hear(rng.sample(range(world.rings.capacity), rng.choice((0, 1, 1, 2, 5))))
        else:
            self.agree()

    def hear(self, others: list[int]) -> None:
        own, keys = self.rng.random() < 0.7, self.rng.random() < 0.5
        said = tuple(self.rng.sample(others, self.rng.randrange(len(others) + 1)))
        self.world.lines.hear(Hear(slot=self.slot, others=tuple(others), said=said, own=own, keys=keys))

    def speak(self) -> None:
        """Main queues some audio."""
        rings, slot = self.world.rings, self.slot
        frames = min(self.rng.randrange(40), TX_FRAMES // 4)
        place = (int(rings.tx_head[slot]) + np.arange(frames)) % (TX_FRAMES // 2)
        rings.tx_pcm[slot, place] = np.frombuffer(self.rng.randbytes(2 * FRAME), np.int16)
        rings.tx_head[slot] = max(int(rings.tx_head[slot]), int(rings.tx_tail[slot])) + frames


class Clean:
    """The perfect peer of slot `CLEAN`: 20 ms every 20 ms, each packet filled with one code."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.call = Call(world, random.Random(7), CLEAN)
        self.count = 0
        self.head = self.stretched = 0
        self.heard: int | None = None
        world.sockets.sent[CLEAN] = []
        self.call.hear([slot for slot in range(world.rings.capacity) if slot != CLEAN][:2])

    def datagrams(self) -> list[tuple[bytes, Address, bool]]:
        if self.world.now % 20_000_000:
            return []
        peer, self.count = self.call.peer, self.count + 1
        code = 0x80 | self.count % 100
        return [(peer._packet(0, bytes((code,)) * FRAME, FRAME), self.call.far, False)]

    def resumed(self) -> None:
        """After a stall nobody can expect unbroken audio."""
        self.heard = None

    def check(self, calm: bool) -> None:
        world, row = self.world, self.world.rings.counters[CLEAN]
        for counter in (Counter.MALFORMED, Counter.FOREIGN, Counter.LOST, Counter.SRTP_REFUSED, Counter.SEND_ERRORS):
            assert row[counter] == 0, f"the clean call counts {counter.name} {row[counter]}"
        stretched = int(row[Counter.ACCELERATED_MS] + row[Counter.EXPANDED_MS])
        whole = calm and stretched == self.stretched
        self.stretched = stretched
        if calm:
            assert row[Counter.CONCEALED_MS] == 0 and row[Counter.RESYNCS] == 0, "the clean call was concealed"
        sequences = [int.from_bytes(packet[2:4], "big") for packet in world.sockets.sent[CLEAN]]
        assert all((b - a) & 0xFFFF == 1 for a, b in zip(sequences, sequences[1:], strict=False)), "sent out of order"
        world.sockets.sent[CLEAN] = []
        for head in range(max(self.head, int(world.rings.rx_head[CLEAN]) - 200), int(world.rings.rx_head[CLEAN])):
            frame = world.rings.rx_pcm[CLEAN, head % 256]
            flags = int(world.rings.rx_flags[CLEAN, head % 256])
            if flags or not frame.any():
                assert not calm or self.heard is None or not flags & FLAG_CONCEALED, "a frame was concealed"
                continue
            assert not whole or (frame == frame[0]).all(), "audio that the clean peer did not send"
            self.heard = int(frame[0])
        self.head = int(world.rings.rx_head[CLEAN])


class Result(NamedTuple):
    packets: int
    seconds: float
    counts: Tally[str]
    failure: str = ""


def episode(seed: int, number: int, packets: int = EPISODE) -> Result:
    """So many packets through a new engine; the same for the same numbers."""
    rng = random.Random(f"{seed}/{number}")
    library = native.load() if number % 2 else None
    world = World(len(KINDS), library, repeats=rng.random() < 0.5)
    begun, done, calm = time.perf_counter(), 0, rng.random() < 0.7
    try:
        calls = [Call(world, rng, slot) for slot in range(CLEAN)]
        clean = Clean(world)
        calls_of = [[calls[slot] for slot in slots] for slots in PORTS[:-1]]
        checked = storm = 0
        victim, spoilt = 0, 0.1
        while done < packets:
            if storm <= 0:
                storm, victim, spoilt = rng.randrange(1, 400), rng.randrange(len(calls_of)), rng.choice((0, 0.05, 0.5))
                intensity = rng.choice((0, 5, 60, 200, 400))
            storm -= 1
            order = list(range(len(calls_of)))
            rng.shuffle(order)
            for port in order:
                some = rng.random() < 0.3
                burst = rng.randrange(intensity + 1) if port == victim else rng.randrange(3) if some else 0
                datagrams = [each for call in calls_of[port] for each in call.datagrams(burst, spoilt)]
                done += len(datagrams)
                if rng.random() < 0.01:
                    _isolated(world, PORTS[port], datagrams)
                else:
                    world.receive(PORTS[port], datagrams)
            world.receive(PORTS[-1], clean.datagrams())
            done += 1
            if rng.random() < 0.02:
                rng.choice(calls).command()
            if rng.random() < 0.05:
                rng.choice(calls).speak()
            if not calm and rng.random() < 0.001:
                world.stall(rng.choice((5, 50, 250, 1000, 30_000)) * 1_000_000 // 20_000_000 * 20_000_000)
                clean.resumed()
            world.tick()
            if done - checked >= 1000:
                checked = done
                world.check()
                clean.check(calm)
        for call in calls:
            world.lines.close(ClosePort(slot=call.slot), world.now)
        world.check()
        counts = Tally({counter.name: int(world.rings.counters[:, counter].sum()) for counter in Counter})
        counts.update(sent=world.sockets.count, notices=world.told, sources=world.sources)
        return Result(done, time.perf_counter() - begun, counts)
    except Exception:
        failure = f"seed {seed} episode {number}, after {done} packets:\n{traceback.format_exc()}"
        return Result(done, time.perf_counter() - begun, Tally(), failure)
    finally:
        world.close()


def _isolated(world: World, slots: tuple[int, ...], datagrams: list[tuple[bytes, Address, bool]]) -> None:
    others = [slot for slot in range(world.rings.capacity) if slot not in slots]
    before = world.state(others)
    world.receive(slots, datagrams)
    assert world.state(others) == before, f"packets to slots {slots} changed another slot"


def strict() -> None:
    """What numpy would only warn of is a failure."""
    warnings.simplefilter("error")
    np.seterr(over="raise", divide="raise", invalid="raise")


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Work(NamedTuple):
    """What one process did."""

    packets: int
    seconds: float
    episodes: int
    failures: list[str]
    counts: Tally[str]
    resident: list[int]  # bytes after each episode


def work(seed: int, process: int, processes: int, packets: int) -> Work:
    """Every `processes`th pair of episodes, one of each path, until so many packets are done."""
    strict()
    total, seconds, number = 0, 0.0, 0
    failures, counts, sizes = list[str](), Tally[str](), list[int]()
    while total < packets and len(failures) < 10:
        result = episode(seed, number // 2 * 2 * processes + 2 * process + number % 2)
        number += 1
        total, seconds = total + result.packets, seconds + result.seconds
        counts += result.counts
        gc.collect()  # the worlds are cycles
        sizes.append(resident())
        if result.failure:
            failures.append(result.failure)
            print(result.failure, file=sys.stderr, flush=True)
        if number % 10 == 0:
            print(f"{process}: {number} episodes, {total:,} packets, {total / seconds:,.0f}/s", flush=True)
    return Work(total, seconds, number, failures, counts, sizes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--episode", type=int, help="only this one")
    options = parser.parse_args()
    strict()
    if options.episode is not None:
        result = episode(options.seed, options.episode)
        print(result.failure or f"{result.packets:,} packets, no failure")
        return bool(result.failure)
    begun = time.perf_counter()
    each = -(-options.packets // options.processes)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes) as pool:
        tasks = [(options.seed, process, options.processes, each) for process in range(options.processes)]
        results = pool.starmap(work, tasks, chunksize=1)
    print(summary(results, time.perf_counter() - begun))
    return any(done.failures for done in results)


def summary(results: list[Work], seconds: float) -> str:
    packets, failures = sum(done.packets for done in results), sum(len(done.failures) for done in results)
    counts = Tally[str]()
    lines = [
        f"{packets:,} packets in {sum(done.episodes for done in results)} episodes, {failures} failures; "
        f"{seconds:,.0f} s by {len(results)} processes, {packets / seconds:,.0f} packets/s"
    ]
    for done in results:
        counts += done.counts
        warm, most, last = done.resident[:4][-1] >> 20, max(done.resident) >> 20, done.resident[-1] >> 20
        lines.append(f"resident {warm} MB after 4 episodes, {most} at most, {last} after {done.episodes}")
        lines += done.failures
    lines.append(", ".join(f"{name.lower()} {count:,}" for name, count in sorted(counts.items()) if count))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
