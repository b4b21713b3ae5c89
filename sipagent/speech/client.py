"""Main's side of the speech workers: a pool that answers, whatever happens to the processes behind it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.core.clock import mono_ns, now
from sipagent.core.doors import names
from sipagent.core.errors import ProcessDied, ProviderError, SetupError
from sipagent.core.events import EventSink, ProcessEnded, ProcessStarted
from sipagent.speech.process import PROCESS, WorkerProcess
from sipagent.speech.protocol import (
    SPEECH_DOOR,
    AnyReply,
    AnyRequest,
    Dropped,
    Embed,
    Embedded,
    Failed,
    JudgeTurn,
    Synthesize,
    Synthesized,
    Transcribe,
    Transcribed,
    TurnJudged,
)
from sipagent.speech.settings import SpeechSettings

READY_LIMIT_S = 60.0
GREETING_LIMIT_S = 2.0  # of a worker that has been without a main
REQUEST_LIMIT_S = 15.0
CLOSE_LIMIT_S = 2.0
OUTSTANDING = 64  # requests per worker that have no answer yet; more are refused, and the caller may try elsewhere
EMBED_BATCH = 256  # texts of one request: half a MiB of vectors, and well within its time
LONGEST_PCM_S = 120  # one utterance; the message would still fit, the caller would not wait for it
STEADY_S = 10.0  # a worker that lived this long is replaced at once; one that did not, after the back-off
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_NONE_RUNS = "no speech worker is running"


class Recognised(NamedTuple):
    """What was said. `text` is "" when it was no speech; `confidence` and `no_speech` are 0..1."""

    text: str
    confidence: float
    no_speech: float
    cpu_ms: float


class _NoWorker(Exception):
    """A worker did not come up; the message says why."""


class _Job:
    """A request on its way: sent once, and once more if the worker it was sent to dies."""

    def __init__(self, request: AnyRequest) -> None:
        self.request = request
        self.reply: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.worker: WorkerProcess | None = None


class SpeechClient:
    """`settings.workers` processes, each with every model; a request goes to the one with the fewest outstanding.

    All methods belong to one asyncio loop. A worker that dies is replaced in the background.
    """

    def __init__(self, settings: SpeechSettings, events: EventSink, run: Path | None = None) -> None:
        """``run``: the folder by which a next main finds the workers again."""
        self._settings = settings
        self._run = run
        self._left: list[str] = []  # doors of workers that an earlier main has left
        self._events = events
        self._ids = itertools.count(mono_ns())  # an earlier main's requests may still be answered
        self._jobs: dict[int, _Job] = {}
        self._ready: list[WorkerProcess] = []
        self._coming = 0  # workers on their way: while there is one, a request without a worker waits for it
        self._supervisors: set[asyncio.Task[None]] = set()
        self._closing = False
        self._judges_turns = False  # there is a model for it

    @property
    def pids(self) -> list[int]:
        """Of the workers that are ready."""
        return [worker.pid for worker in self._ready]

    async def start(self) -> dict[str, str]:
        """Starts the workers; the models they loaded, by kind. SetupError when one cannot, or not within 60 s."""
        loop = asyncio.get_running_loop()
        self._left = names(self._run, SPEECH_DOOR) if self._run is not None else []
        firsts: list[asyncio.Future[dict[str, str]]] = [loop.create_future() for _ in range(self._settings.workers)]
        for number, first in enumerate(firsts):
            self._supervisors.add(asyncio.create_task(self._supervise(first), name=f"speech/worker-{number}"))
        try:
            return (await asyncio.gather(*firsts))[0]
        except BaseException:
            await self.close()
            raise

    async def transcribe(
        self, pcm: NDArray[np.int16], rate: int, *, prompt: str = "", droppable: bool = False
    ) -> Recognised | None:
        """The words of one utterance (at most 120 s). None when it was droppable and the workers are behind.

        ProviderError when it failed or took over 15 s.
        """
        if len(pcm) > LONGEST_PCM_S * rate:
            raise ProviderError(f"an utterance of over {LONGEST_PCM_S} s is not recognised", retryable=False)
        request = Transcribe(
            id=next(self._ids),
            pcm=pcm.astype(np.int16, copy=False).tobytes(),
            rate=rate,
            prompt=prompt,
            droppable=droppable,
        )
        reply = await self._ask(request, (Transcribed, Dropped))
        if isinstance(reply, Dropped):
            return None
        assert isinstance(reply, Transcribed)
        return Recognised(reply.text, reply.confidence, reply.no_speech, reply.cpu_ms)

    async def synthesize(self, text: str, rate: int, *, speed: float = 1.0, pitch: float = 1.0) -> NDArray[np.int16]:
        """Speech for one clause at `rate`; empty when there is nothing to say. Errors as `transcribe`."""
        request = Synthesize(id=next(self._ids), text=text, rate=rate, speed=speed, pitch=pitch)
        reply = await self._ask(request, (Synthesized,))
        assert isinstance(reply, Synthesized)
        return np.frombuffer(reply.pcm, np.int16)

    async def speak(self, text: str, rate: int) -> AsyncIterator[NDArray[np.int16]]:
        """As `synthesize`: the local voices make a clause in one piece."""
        yield await self.synthesize(text, rate)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of unit length per text: shape (n, dimension). Errors as `transcribe`."""
        parts = []
        for begin in range(0, max(1, len(texts)), EMBED_BATCH):
            batch = list(texts[begin : begin + EMBED_BATCH])
            reply = await self._ask(Embed(id=next(self._ids), texts=batch), (Embedded,))
            assert isinstance(reply, Embedded)
            parts.append(np.frombuffer(reply.vectors, np.float32).reshape(-1, reply.dimension))
        return np.concatenate(parts)

    async def complete(self, pcm: NDArray[np.int16], rate: int) -> float | None:
        """Probability that the pause behind this audio ends a turn; None when the workers are behind, or no model for
        it is installed. Errors as `transcribe`."""
        if not self._judges_turns:
            return None
        request = JudgeTurn(id=next(self._ids), pcm=pcm.astype(np.int16, copy=False).tobytes(), rate=rate)
        reply = await self._ask(request, (TurnJudged, Dropped))
        return reply.complete if isinstance(reply, TurnJudged) else None

    async def close(self) -> None:
        """Ends the workers, by force after 2 s; requests under way fail. May be called again."""
        self._closing = True
        for job in list(self._jobs.values()):
            self._fail(job, "the speech workers are being stopped", retryable=False)
        for task in self._supervisors:
            task.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)
        self._supervisors.clear()

    # --- requests ---------------------------------------------------------------------------------------------

    async def _ask(self, request: AnyRequest, kinds: tuple[type[AnyReply], ...]) -> AnyReply:
        if self._closing:
            raise ProviderError("the speech workers are stopped", retryable=False)
        job = _Job(request)
        self._jobs[request.id] = job
        try:
            self._dispatch(job)
            async with asyncio.timeout(REQUEST_LIMIT_S):
                reply = await job.reply
        except TimeoutError as error:
            if job.worker:
                job.worker.kill_if_silent(REQUEST_LIMIT_S)
            raise ProviderError(
                f"no answer from the speech worker within {REQUEST_LIMIT_S:.0f} s", retryable=True
            ) from error
        finally:
            del self._jobs[request.id]
            if job.worker:
                job.worker.forget(request.id)
        if isinstance(reply, Failed):
            raise ProviderError(f"the speech worker failed: {reply.reason}", retryable=reply.retryable)
        if not isinstance(reply, kinds):
            raise ProviderError(f"the speech worker answered with {type(reply).__name__}", retryable=False)
        return reply

    def _dispatch(self, job: _Job) -> None:
        """Sends it to the least busy worker; without one it waits for the next that is ready."""
        alive = [worker for worker in self._ready if worker.alive()]
        if alive:
            worker = min(alive, key=lambda each: len(each.outstanding))
            if len(worker.outstanding) >= OUTSTANDING:
                self._fail(job, f"every speech worker has {OUTSTANDING} requests outstanding", retryable=True)
                return
            job.sent += 1
            job.worker = worker
            worker.send(job.request)
        elif self._ready or self._coming:  # one that is dead and not buried yet is followed by another
            job.worker = None
        else:
            self._fail(job, _NONE_RUNS, retryable=True)

    def _fail(self, job: _Job, reason: str, *, retryable: bool) -> None:
        if not job.reply.done():
            job.reply.set_result(Failed(id=job.request.id, reason=reason, retryable=retryable))

    def _answer(self, reply: AnyReply) -> None:
        job = self._jobs.get(reply.id)
        if job and not job.reply.done():  # an answer nobody waits for any more is ignored
            job.reply.set_result(reply)

    # --- workers ----------------------------------------------------------------------------------------------

    async def _supervise(self, first: asyncio.Future[dict[str, str]]) -> None:
        """Keeps one worker running: starts it, serves it until it dies, waits a little if it died young, again."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            await self._one_life(first)
            if first.cancelled() or first.exception():
                return  # it never came up: `start` says so, and nothing is gained by trying again
            failures = 0 if loop.time() - began >= STEADY_S else failures + 1
            if failures > 1:
                if not self._ready and not self._coming:  # let whoever waits try another way of speaking or hearing
                    for job in [job for job in self._jobs.values() if job.worker is None]:
                        self._fail(job, _NONE_RUNS, retryable=True)
                await asyncio.sleep(BACKOFF_S[min(failures - 2, len(BACKOFF_S) - 1)])

    async def _one_life(self, first: asyncio.Future[dict[str, str]]) -> None:
        worker: WorkerProcess | None = None
        reason = "stopped by us"
        try:
            worker, loaded = await self._raise()
            self._ready.append(worker)
            self._judges_turns = "turn" in loaded
            if not first.done():
                first.set_result(loaded)
            for job in [job for job in self._jobs.values() if job.worker is None]:
                self._dispatch(job)
            while True:
                self._answer(await worker.reply())
        except _NoWorker as error:
            if not first.done():
                first.set_exception(SetupError(f"a speech worker did not start: {error}"))
        except ProcessDied as error:
            reason = str(error)
        finally:
            if worker:
                self._ready.remove(worker)
                self._coming += 1  # another follows, so requests that come now may wait for it
                try:
                    await self._bury(worker, reason)
                finally:
                    self._coming -= 1

    async def _raise(self) -> tuple[WorkerProcess, dict[str, str]]:
        """A new worker with its models loaded, and their names by kind. _NoWorker when it does not come to that."""
        self._coming += 1
        try:
            try:
                taken = await self._taken_over()
                if taken is not None:
                    return taken
                worker = await WorkerProcess.spawn(self._settings, self._run)
            except OSError as error:
                raise _NoWorker(str(error)) from error
            self._events.emit(ProcessStarted(at=now(), process=PROCESS, pid=worker.pid))
            came, reason = False, "stopped by us"
            try:
                async with asyncio.timeout(READY_LIMIT_S):
                    loaded = await worker.ready()
                came = True
                return worker, loaded
            except TimeoutError as error:
                reason = f"not ready within {READY_LIMIT_S:.0f} s"
                raise _NoWorker(reason) from error
            except (ProcessDied, SetupError) as error:
                reason = str(error)
                raise _NoWorker(reason) from error
            finally:
                if not came:
                    await self._bury(worker, reason)
        finally:
            self._coming -= 1

    async def _taken_over(self) -> tuple[WorkerProcess, dict[str, str]] | None:
        """One that an earlier main has left and that was started as ours would be."""
        while self._left and self._run is not None:
            worker = await WorkerProcess.take_over(self._run, self._left.pop())
            if worker is None:
                continue
            with contextlib.suppress(TimeoutError, ProcessDied, SetupError):
                async with asyncio.timeout(GREETING_LIMIT_S):
                    loaded = await worker.ready()
                if worker.settings == self._settings:
                    self._events.emit(ProcessStarted(at=now(), process=PROCESS, pid=worker.pid))
                    return worker, loaded
            await worker.end(CLOSE_LIMIT_S)
        return None

    async def _bury(self, worker: WorkerProcess, reason: str) -> None:
        """Finds the requests it leaves behind another worker, reaps the process, tells the world."""
        orphans = [job for job in self._jobs.values() if job.worker is worker and not job.reply.done()]
        for job in orphans:
            job.worker = None  # the next that is ready takes it, if there is none now
            if job.sent > 1:
                self._fail(job, "two speech workers died over it", retryable=False)
            elif self._ready:
                self._dispatch(job)
        status = await worker.end(CLOSE_LIMIT_S)
        self._events.emit(
            ProcessEnded(
                at=now(), process=PROCESS, pid=worker.pid, reason=f"{reason} ({status})", calls_affected=len(orphans)
            )
        )
