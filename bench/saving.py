"""What it costs to write calls down for the case that main dies: on the event loop, and on the disk.

`python -m bench.saving`. A call of ten turns with an agent is described and encoded (event loop), and its file replaced
(a thread), 2000 times. A talking call does so about once a second.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

import msgspec

from sipagent.calls import saved
from sipagent.calls.saved import SavedCall, SavedEvent
from tests.calls.test_saved import call
from tests.store.story import Story


def described() -> SavedCall:
    """As after ten turns."""
    one = call()
    assert one.talk is not None
    history = [
        ("caller" if turn % 2 else "agent", "Something of an ordinary length is said here.") for turn in range(20)
    ]
    events = [SavedEvent.of(event) for event in Story().whole()][:16]
    return msgspec.structs.replace(one, talk=msgspec.structs.replace(one.talk, history=history), events=events)


async def main(times: int) -> None:
    whole, encoding, writing = described(), deque[float](), deque[float]()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            before = time.perf_counter()
            data = msgspec.msgpack.encode(whole)
            between = time.perf_counter()
            saved.write(Path(folder), whole.id, data)
            encoding.append(between - before)
            writing.append(time.perf_counter() - between)
    print(f"{len(data)} bytes")
    for what, seconds in (("encoded (event loop)", encoding), ("written (thread)", writing)):
        quantiles = statistics.quantiles(seconds, n=20)
        print(f"{what}: {statistics.median(seconds) * 1e6:.0f} us, p95 {quantiles[-1] * 1e6:.0f} us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000)
    asyncio.run(main(parser.parse_args().times))
