"""Where events wait for the database: in order, with checksums, and outliving the process.

Segments of one size are mapped into memory. `Journal.append` copies a record into the newest one and returns; the
kernel keeps what is in a mapping, however the process ends. A segment is a file of the journal's folder, made and
zeroed by a thread beforehand, so that who appends waits for no disk. When the disk is full, or the journal has no
folder, segments are plain memory, and only then does what waits end with the process.

A file begins with `_HEADER`: what it is, and up to which byte its records are in the database. Records follow: length,
CRC-32 and body. The body is written first: where a process was killed in between, the length is still 0.
"""

import logging
import mmap
import os
import re
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sipagent.core.errors import SetupError

log = logging.getLogger(__name__)

SEGMENT_BYTES = 4 << 20
SPARES = 2  # segments made beforehand
MAGIC = b"sipagent record1"
_HEADER = struct.Struct("<16sQ")
_START = 32
_RECORD = struct.Struct("<II")
_DONE = struct.Struct("<Q")
_DONE_AT = len(MAGIC)
_FILE_NAME = re.compile(r"\d{12}\.events")


@dataclass(eq=False)
class Segment:
    memory: mmap.mmap
    file: Path | None = None  # None for plain memory
    head: int = _START  # where the next record goes
    done: int = _START  # up to here, the database has them
    waiting: int = 0  # records between the two
    damaged: int = 0  # records whose checksum is wrong, or that cannot be found any more
    left: bool = False  # by an earlier process: nothing is appended

    def fits(self, body: bytes) -> bool:
        return not self.left and self.head + _RECORD.size + len(body) <= len(self.memory)

    def append(self, body: bytes) -> None:
        start = self.head + _RECORD.size
        self.memory[start : start + len(body)] = body
        self.memory[self.head : start] = _RECORD.pack(len(body), zlib.crc32(body))
        self.waiting += 1
        self.head = start + len(body)

    def records(self, start: int, head: int) -> Iterator[tuple[int, bytes]]:
        """Those from `start` to `head`, each with where it ends."""
        while start < head:
            length, checksum = _RECORD.unpack_from(self.memory, start)
            body = self.memory[start + _RECORD.size : start + _RECORD.size + length]
            start += _RECORD.size + length
            if zlib.crc32(body) == checksum:
                yield start, body

    def finish(self, position: int, count: int) -> None:
        before, self.done = self.done, position
        self.waiting -= count
        _DONE.pack_into(self.memory, _DONE_AT, position)
        self.memory[before:position] = bytes(position - before)  # what was said stays no longer than it has to

    def drop(self) -> None:
        self.memory.close()
        if self.file is not None:
            self.file.unlink(missing_ok=True)


@dataclass
class Batch:
    """Records of one segment that follow one another; `Journal.finish` takes it when the database has them."""

    segment: Segment
    bodies: list[bytes] = field(default_factory=list)
    end: int = 0


class Journal:
    """One thread reads (`next_batch`, `finish`), any may append.

    `most_bytes`: that files may take up; `most_in_memory`: records that may wait in plain memory. What is over both is
    refused.
    """

    def __init__(self, folder: Path | None, most_bytes: int, most_in_memory: int) -> None:
        self._folder = folder
        self._most_segments = max(2 * SPARES, most_bytes // SEGMENT_BYTES)
        self._most_in_memory = most_in_memory
        self._lock = threading.Lock()
        self._segments: deque[Segment] = deque()  # the oldest first; the last one is appended to
        self._spares: deque[Segment] = deque()
        self._left: deque[Path] = deque()  # files of an earlier process, from the one that is read next
        self._number = 0
        self._wanted = threading.Event()
        self._closing = False
        self._maker: threading.Thread | None = None
        self.trouble = ""  # why no more files are made, "" when nothing is wrong
        self.appended = 0  # records of this process
        self.finished = 0  # of those; what an earlier process has left is done before them
        self.left = 0  # records of an earlier process that are not done, in the files that are read by now
        self.damaged = 0  # records that could not be read

    def open(self) -> None:
        """Finds what an earlier process has left, which `next_batch` reads file by file.

        Raises SetupError when the folder cannot be used.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = sorted(file for file in self._folder.iterdir() if _FILE_NAME.fullmatch(file.name))
        except OSError as error:
            raise SetupError(f"the journal {self._folder} cannot be used: {error.strerror}") from error
        self._left.extend(files)
        self._number = max((int(file.stem) for file in files), default=0)
        self._make_spares()
        self._maker = threading.Thread(target=self._make, name="journal", daemon=True)
        self._maker.start()

    def append(self, body: bytes) -> bool:
        """Keeps the record, or returns False when there is no room for it. Never waits for a disk."""
        with self._lock:
            segment = self._segments[-1] if self._segments else None
            if segment is None or not segment.fits(body) or segment.file is None:
                segment = self._next(segment, body)
            if segment is None:
                return False
            segment.append(body)
            self.appended += 1
            return True

    def _next(self, last: Segment | None, body: bytes) -> Segment | None:
        """The segment to go on with: a file as soon as there is one again."""
        if len(body) + _START + _RECORD.size > SEGMENT_BYTES:
            return None
        if self._spares:
            self._segments.append(self._spares.popleft())
            self._wanted.set()
            return self._segments[-1]
        if self._in_memory() >= self._most_in_memory:
            return None
        if last is None or not last.fits(body):
            self._segments.append(Segment(mmap.mmap(-1, SEGMENT_BYTES)))
            self._wanted.set()
        return self._segments[-1]

    def _in_memory(self) -> int:
        return sum(segment.waiting for segment in self._segments if segment.file is None)

    def next_batch(self, most: int) -> Batch | None:
        """The oldest records that are not done, or None when there are none."""
        while self._left and not self._reads_what_was_left():
            self._take_up(self._left.popleft())
        with self._lock:
            self._drop_finished()
            segment = next((segment for segment in self._segments if segment.done < segment.head), None)
            head = segment.head if segment is not None else 0  # who appends moves it on
        if segment is None:
            return None
        batch = Batch(segment, end=segment.done)
        for end, body in segment.records(segment.done, head):
            batch.bodies.append(body)
            batch.end = end
            if len(batch.bodies) == most:
                break
        else:
            batch.end = head
        return batch

    def finish(self, batch: Batch) -> None:
        """The database has the batch's records."""
        with self._lock:
            batch.segment.finish(batch.end, len(batch.bodies))
            if batch.segment.left:
                self.left -= len(batch.bodies)
            else:
                self.finished += len(batch.bodies)
            self._drop_finished()

    def _reads_what_was_left(self) -> bool:
        with self._lock:
            return any(segment.left and segment.waiting for segment in self._segments)

    def _take_up(self, file: Path) -> None:
        try:
            segment = _reopen(file)
        except OSError as error:
            log.error(
                "a file of the journal cannot be read and waits for the next start",
                extra={"file": file.name, "error": error.strerror},
            )
            return
        if segment is None:
            return
        self.damaged += segment.damaged
        with self._lock:
            self._segments.appendleft(segment)
            self.left += segment.waiting

    def close(self) -> tuple[int, int]:
        """How many records wait in files for the next start, and how many are lost."""
        self._closing = True
        self._wanted.set()
        if self._maker is not None:
            self._maker.join()
        with self._lock:
            left = sum(segment.waiting for segment in self._segments if segment.file is not None)
            lost = self._in_memory()
            for segment in (*self._segments, *self._spares):
                if segment.file is None or not segment.waiting:
                    segment.drop()
                else:
                    segment.memory.close()
            self._segments.clear()
            self._spares.clear()
        return left, lost

    def _drop_finished(self) -> None:
        while len(self._segments) > 1 and self._segments[0].done >= self._segments[0].head:
            self._segments.popleft().drop()

    # --- the thread that makes segments -----------------------------------------------------------------------

    def _make(self) -> None:
        while not self._closing:
            # again soon where the disk is full: it may not stay so
            self._wanted.wait(1.0 if len(self._spares) < SPARES else None)
            self._wanted.clear()
            if not self._closing:
                self._make_spares()

    def _make_spares(self) -> None:
        assert self._folder is not None
        while len(self._spares) < SPARES:
            files = sum(segment.file is not None for segment in tuple(self._segments)) + len(self._spares)
            files += len(self._left)
            if files >= self._most_segments:
                self.trouble = "the journal is as large as [store] spill_mb allows"
                return
            self._number += 1
            try:
                spare = _new_file(self._folder / f"{self._number:012}.events")
            except OSError as error:
                self.trouble = f"the journal cannot grow: {error.strerror}"
                return
            self.trouble = ""
            with self._lock:
                self._spares.append(spare)


def holds_records(folder: Path) -> bool:
    """Whether a process, one that runs or an earlier one, has records there that are not done. Raises OSError."""
    if not folder.is_dir():
        return False
    return any(_holds_records(file) for file in folder.iterdir() if _FILE_NAME.fullmatch(file.name))


def _holds_records(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            header = file.read(_START)
            if len(header) < _START or header[: len(MAGIC)] != MAGIC:
                return False
            file.seek(max(_START, _DONE.unpack_from(header, _DONE_AT)[0]))
            return any(file.read(_RECORD.size))
    except FileNotFoundError:  # done meanwhile
        return False


def _new_file(path: Path) -> Segment:
    """Every page written: an append finds it in memory, and a disk that is full says so here. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SEGMENT_BYTES)
        memory = mmap.mmap(descriptor, SEGMENT_BYTES)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    memory[:] = bytes(SEGMENT_BYTES)
    _HEADER.pack_into(memory, 0, MAGIC, _START)
    return Segment(memory, path)


def _reopen(path: Path) -> Segment | None:
    """A segment of an earlier process, None for a file that has nothing to read. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        memory = mmap.mmap(descriptor, size) if size >= _START else None
    finally:
        os.close(descriptor)
    if memory is None or memory[: len(MAGIC)] == bytes(len(MAGIC)):  # the process ended while it was being made
        path.unlink()
        return None
    if memory[: len(MAGIC)] != MAGIC:
        log.error("a file of the journal is none of ours and is set aside", extra={"file": path.name})
        path.replace(path.with_suffix(".damaged"))
        return None
    segment = Segment(memory, path, left=True)
    (done,) = _DONE.unpack_from(memory, _DONE_AT)
    segment.done = segment.head = done if _START <= done <= len(memory) else _START
    memory[_START : segment.done] = bytes(segment.done - _START)  # the process may have ended before it did
    while True:
        start = segment.head + _RECORD.size
        if start > len(memory):
            break
        length, checksum = _RECORD.unpack_from(memory, segment.head)
        if length == 0:
            break
        if start + length > len(memory):
            segment.damaged += 1  # and nobody knows how many come after it
            break
        if zlib.crc32(memory[start : start + length]) == checksum:
            segment.waiting += 1
        else:
            segment.damaged += 1
        segment.head = start + length
    if segment.damaged:
        log.error("events in the journal are damaged", extra={"file": path.name, "damaged": segment.damaged})
    return segment
