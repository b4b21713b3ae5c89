"""What SRTP costs: µs of CPU per packet each way, per call-second, per session, and of a session that goes on.

    python -m bench.srtp

One process, one thread; medians of the rounds. 20 ms packets: a call-second is 50 packets each way.
"""

import argparse
import resource
import statistics
import struct
import time
from collections.abc import Callable

from sipagent.media.protocol import Crypto
from sipagent.media.srtp import Progress, SrtpSession

SUITES = ("AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32")
OURS, THEIRS = bytes(range(30)), bytes(range(100, 130))
PACKETS = 20_000  # per round
PER_SECOND = 50
DAY = 24 * 3600 * PER_SECOND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds: int = parser.parse_args().rounds
    print("| suite | payload | protect µs | unprotect µs | refuse µs | both ways per call-second µs |")
    print("|---|---|---|---|---|---|")
    for suite in SUITES:
        for size in (80, 160):
            seal, check, refuse = (statistics.median(each) for each in zip(*_rounds(suite, size, rounds), strict=True))
            total = (seal + check) * PER_SECOND
            print(f"| {suite} | {size} B | {seal:.2f} | {check:.2f} | {refuse:.2f} | {total:.0f} |")
    keys = Crypto(suite=SUITES[0], local_key=OURS, remote_key=THEIRS)
    print()
    print("| session | µs |\n|---|---|")
    for name, progress in (
        ("new", None),
        ("goes on after an hour", Progress(1, DAY // 24, DAY // 24 // 250, 2, DAY // 24)),
        ("goes on after a day", Progress(1, DAY, DAY // 250, 2, DAY)),
    ):
        print(f"| {name} | {_each(lambda p=progress: SrtpSession(keys, p)):.0f} |")  # type: ignore[misc]
    late = SrtpSession(keys, Progress(1, DAY // 24, DAY // 24 // 250))
    print(f"| first report of one that goes on after an hour | {_cpu_us(lambda: late.protect_rtcp(_report())):.0f} |")
    print(f"\nMemory: {_kilobytes(keys):.1f} KB per call")


def _rounds(suite: str, size: int, rounds: int) -> list[tuple[float, float, float]]:
    we = SrtpSession(Crypto(suite=suite, local_key=OURS, remote_key=THEIRS))
    peer = SrtpSession(Crypto(suite=suite, local_key=THEIRS, remote_key=OURS))
    found = []
    for number in range(rounds):
        plain = [_packet(number * PACKETS + i, size) for i in range(PACKETS)]
        sealed: list[bytes] = []
        junk = [packet + bytes(10) for packet in plain]

        def refuse(junk: list[bytes] = junk) -> None:
            for packet in junk:
                try:
                    peer.unprotect(packet)
                except Exception:
                    continue

        seal_us = _cpu_us(lambda s=sealed, p=plain: s.extend(map(we.protect, p)))  # type: ignore[misc]
        check_us = _cpu_us(lambda s=sealed: [peer.unprotect(packet) for packet in s])  # type: ignore[misc]
        found.append((seal_us / PACKETS, check_us / PACKETS, _cpu_us(refuse) / PACKETS))
    return found


def _packet(index: int, size: int) -> bytes:
    return struct.pack(">BBHII", 0x80, 0, index & 0xFFFF, index * size & 0xFFFFFFFF, 7) + bytes(size)


def _report() -> bytes:
    return struct.pack(">BBHI", 0x80, 201, 1, 7)


def _cpu_us(work: Callable[[], object]) -> float:
    begin = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin) / 1000


def _each(work: Callable[[], object]) -> float:
    return statistics.median(_cpu_us(work) for _ in range(101))


def _kilobytes(keys: Crypto) -> float:
    count = 2000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sessions = [SrtpSession(keys) for _ in range(count)]
    peer = SrtpSession(Crypto(suite=keys.suite, local_key=keys.remote_key, remote_key=keys.local_key))
    for number, session in enumerate(sessions):
        session.unprotect(peer.protect(_packet(number, 160)))
        session.protect(_packet(1, 160))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / count


if __name__ == "__main__":
    main()
