"""What recording costs the main process: every frame of so many calls copied, interleaved and handed to the thread.

python -m bench.recording [--calls 200] [--seconds 20]
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from sipagent.calls.recording import EVERY_S, FRAMES_PER_S, Recordings
from sipagent.calls.settings import RecordingSettings
from sipagent.core.events import Event, RecordingEnded
from sipagent.core.ids import CallId, LegId
from sipagent.media.port import Stretch

SAMPLES = 160


class Line:
    """A ring of speech-like noise that grows by the clock."""

    rate = 8000

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ring = np.random.default_rng(1).integers(-9000, 9000, (256, SAMPLES)).astype(np.int16)

    @property
    def received(self) -> int:
        return int((time.monotonic() - self._began) * FRAMES_PER_S)

    def since(self, position: int) -> Stretch | None:
        head = self.received
        if head <= position:
            return None
        places = np.arange(position, head) % 256
        return Stretch(position, self._ring[places], self._ring[places])


class Sink(list[Event]):
    def emit(self, event: Event) -> None:
        self.append(event)


async def measure(calls: int, seconds: float, folder: Path) -> None:
    events = Sink()
    recordings = Recordings(RecordingSettings(min_free_mb=0), folder, events)
    began = [recordings.begin(CallId(f"call_{i}"), LegId(f"leg_{i}"), Line()) for i in range(calls)]
    main, all_threads, wall = time.thread_time(), time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    main, all_threads = time.thread_time() - main, time.process_time() - all_threads
    wall = time.monotonic() - wall
    for recording in began:
        recordings.end(recording)
    await recordings.close()
    ended = [event for event in events if isinstance(event, RecordingEnded)]
    whole = sum(not event.failed and not event.detail for event in ended)
    print("| calls | seconds | looks per s | loop thread | writing thread | whole recordings | MB |")
    print("|---|---|---|---|---|---|---|")
    size = sum(event.size for event in ended) / 1e6
    print(
        f"| {calls} | {wall:.0f} | {1 / EVERY_S:g} | {100 * main / wall:.1f} % of a core "
        f"| {100 * (all_threads - main) / wall:.1f} % | {whole} | {size:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(asked.calls, asked.seconds, Path(folder)))


if __name__ == "__main__":
    main()
