"""The thread that writes recordings. What waits for the disk is bounded: beyond, audio is left out and counted."""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sipagent.calls.stereo_file import StereoFile

log = logging.getLogger(__name__)

LOOK_EVERY = 64 << 20  # bytes written between two looks at how much of the disk is free


@dataclass(frozen=True, slots=True)
class Written:
    """What has become of a file."""

    failed: str = ""  # one sentence, "" when it is complete
    detail: str = ""
    samples: int = 0
    size: int = 0  # bytes
    sha256: str = ""


@dataclass(slots=True)
class _Open:
    file: str
    rate: int


@dataclass(slots=True)
class _Audio:
    place: int
    pcm: NDArray[np.int16]


@dataclass(slots=True)
class _End:
    samples: int


class Tape:
    def __init__(self, folder: Path, backlog: int, min_free: int, over: Callable[[str, Written], None]) -> None:
        """``backlog`` and ``min_free`` in bytes; ``over`` is told on the event loop when a file is closed."""
        self._folder = folder
        self._backlog = backlog
        self._min_free = min_free
        self._over = over
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._jobs: deque[tuple[str, _Open | _Audio | _End]] = deque()
        self._waiting = 0  # bytes
        self._closing = False
        self._left_out: dict[str, int] = {}  # samples, by recording
        # The thread's own.
        self._files: dict[str, StereoFile] = {}
        self._unlooked = 0

    def open(self, name: str, file: str, rate: int) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
            self._thread.start()
        self._add(name, _Open(file, rate))

    def put(self, name: str, place: int, pcm: NDArray[np.int16]) -> None:
        """Samples (n, 2). Never waits."""
        with self._changed:
            if self._waiting + pcm.nbytes > self._backlog:
                self._left_out[name] = self._left_out.get(name, 0) + len(pcm)
                return
            self._waiting += pcm.nbytes
        self._add(name, _Audio(place, pcm))

    def end(self, name: str, samples: int) -> None:
        """It is that long; nothing more will come."""
        self._add(name, _End(samples))

    def close(self, limit_s: float) -> None:
        """Blocks until all is written, or for so long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(limit_s)

    def _add(self, name: str, job: _Open | _Audio | _End) -> None:
        with self._changed:
            self._jobs.append((name, job))
            self._changed.notify()

    # --- the thread ---

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                name, job = self._jobs.popleft()
                if isinstance(job, _Audio):
                    self._waiting -= job.pcm.nbytes
            try:
                self._do(name, job)
            except OSError as error:
                self._fail(name, error.strerror or type(error).__name__)
            except Exception as error:  # the thread is every recording's
                log.exception("a recording failed")
                self._fail(name, type(error).__name__)

    def _do(self, name: str, job: _Open | _Audio | _End) -> None:
        if isinstance(job, _Open):
            self._files[name] = StereoFile(self._folder / job.file, job.rate)
            return
        file = self._files.get(name)
        if file is None:  # it has failed before
            return
        if isinstance(job, _Audio):
            self._look(job.pcm.nbytes)
            file.write(job.place, job.pcm)
            return
        file.end(job.samples)
        size, sha256 = file.sum()
        self._close(name)
        left_out = self._left_out.pop(name, 0)
        detail = f"{left_out} samples are silence: the disk was too slow" if left_out else ""
        self._tell(name, Written(detail=detail, samples=file.samples, size=size, sha256=sha256))

    def _look(self, size: int) -> None:
        """Raises OSError when the disk is nearly full."""
        self._unlooked += size
        if self._unlooked < LOOK_EVERY:
            return
        self._unlooked = 0
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < self._min_free:
            raise OSError(None, "the disk has less free space than [recordings] min_free_mb")

    def _fail(self, name: str, why: str) -> None:
        file = self._files.get(name)
        samples, size = (file.samples, 44 + 4 * file.samples) if file is not None else (0, 0)
        self._close(name)
        self._tell(name, Written(failed=f"it could not be written to its end: {why}", samples=samples, size=size))

    def _close(self, name: str) -> None:
        file = self._files.pop(name, None)
        if file is not None:
            with suppress(OSError):  # of a disk that fails; what it has of the file stays
                file.close()

    def _tell(self, name: str, written: Written) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._over, name, written)
        except RuntimeError:  # the loop is closed: the node did not wait any longer
            log.error("a recording was closed too late to be noted")
