"""The worker process: `python -m sipagent.speech.worker FD SETTINGS [FOLDER]`, spoken to by `client.SpeechClient`.

FD is its end of a socket pair, SETTINGS the `SpeechSettings` as JSON, FOLDER where its door for a next main is
(`core.doors`; without one it dies with main). It loads each chosen model once, tries each once, says WorkerReady, and
answers until the socket closes. Each kind of work has a thread of its own:
the libraries let go of the interpreter's lock while they compute.

The number of threads of OpenMP and BLAS comes by environment variables, which the client sets: by the time this module
runs it would be too late for numpy.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.core.doors import take_away, try_door, wait_for_main
from sipagent.core.ipc import die_with_parent, frame, read_frame_blocking
from sipagent.speech import models, protocol
from sipagent.speech.lane import Lane
from sipagent.speech.protocol import (
    SPEECH_DOOR,
    AnyReply,
    Cancel,
    Embed,
    Embedded,
    Failed,
    JudgeTurn,
    Request,
    Synthesize,
    Synthesized,
    Transcribe,
    Transcribed,
    TurnJudged,
    WorkerReady,
)
from sipagent.speech.settings import SpeechSettings

Handler = Callable[[Request], AnyReply]


ESPEAK = "espeak:"  # of a voice that eSpeak has, by its language: "espeak:de"


class _Voice(Protocol):
    def synthesize(self, text: str, rate: int, speed: float, pitch: float) -> NDArray[np.int16]: ...


class _Stopwatch:
    """CPU ms of this process. With several lanes busy it counts the others' work too: an upper bound."""

    def __init__(self) -> None:
        self._began = time.process_time()

    def ms(self) -> float:
        return 1000.0 * (time.process_time() - self._began)


# The libraries are imported where they are used: a node without local synthesis needs no Piper installed.


def load_stt(settings: SpeechSettings) -> Handler:
    from sipagent.speech.whisper import Recogniser

    folder = models.locate(settings.stt_model, "stt", settings.model_dir)
    recogniser = Recogniser(folder, language=settings.language, threads=settings.threads)

    def transcribe(request: Request) -> AnyReply:
        assert isinstance(request, Transcribe)
        watch = _Stopwatch()
        said = recogniser.transcribe(np.frombuffer(request.pcm, np.int16), request.rate, request.prompt)
        return Transcribed(
            id=request.id, text=said.text, confidence=said.confidence, no_speech=said.no_speech, cpu_ms=watch.ms()
        )

    noise = np.random.default_rng(0).integers(-3000, 3000, 8000, dtype=np.int16)  # silence would not reach the model
    transcribe(Transcribe(id=0, pcm=noise.tobytes(), rate=8000))
    return transcribe


def load_tts(settings: SpeechSettings) -> Handler:
    voice = _voice(settings)

    def synthesize(request: Request) -> AnyReply:
        assert isinstance(request, Synthesize)
        watch = _Stopwatch()
        pcm = voice.synthesize(request.text, request.rate, request.speed, request.pitch)
        return Synthesized(id=request.id, pcm=pcm.tobytes(), cpu_ms=watch.ms())

    synthesize(Synthesize(id=0, text="Ready.", rate=8000))
    return synthesize


def _voice(settings: SpeechSettings) -> _Voice:
    if settings.tts_voice.startswith(ESPEAK):
        from sipagent.speech import espeak

        return espeak.Voice(settings.tts_voice.removeprefix(ESPEAK))
    from sipagent.speech import piper

    return piper.Voice(models.locate(settings.tts_voice, "tts", settings.model_dir), threads=settings.threads)


def load_embedding(settings: SpeechSettings) -> Handler:
    from sipagent.speech.embedding import DIMENSION, Embedder

    models.locate(settings.embedding_model, "embedding", settings.model_dir)
    embedder = Embedder()

    def embed(request: Request) -> AnyReply:
        assert isinstance(request, Embed)
        return Embedded(id=request.id, vectors=embedder.embed(request.texts).tobytes(), dimension=DIMENSION)

    return embed


def load_turn(settings: SpeechSettings) -> Handler:
    from sipagent.speech.smart_turn import SmartTurn

    network = SmartTurn(models.locate(settings.turn_model, "turn", settings.model_dir), threads=settings.threads)

    def judge(request: Request) -> AnyReply:
        assert isinstance(request, JudgeTurn)
        return TurnJudged(id=request.id, complete=network.judge(np.frombuffer(request.pcm, np.int16), request.rate))

    judge(JudgeTurn(id=0, pcm=bytes(16000), rate=8000))
    return judge


LOADERS: dict[str, tuple[str, Callable[[SpeechSettings], Handler]]] = {
    "stt": ("stt_model", load_stt),
    "tts": ("tts_voice", load_tts),
    "embedding": ("embedding_model", load_embedding),
    "turn": ("turn_model", load_turn),
}


def load(settings: SpeechSettings) -> dict[str, Handler]:
    """What answers each kind of request, for the kinds that have a model. The models load side by side."""
    chosen = {kind: loader for kind, (field, loader) in LOADERS.items() if getattr(settings, field)}
    if not models.installed(settings.model_dir).get(settings.turn_model, True):
        del chosen["turn"]  # the one model that conversations can do without
    with ThreadPoolExecutor(len(chosen) or 1) as pool:
        loading = {kind: pool.submit(loader, settings) for kind, loader in chosen.items()}
        return {kind: future.result() for kind, future in loading.items()}


class Worker:
    """Reads requests from `sock` and hands each to the lane of its kind."""

    def __init__(self, sock: socket.socket, door: socket.socket | None = None) -> None:
        self._sock = sock
        self._door = door
        self._writing = threading.Lock()

    def send(self, reply: AnyReply) -> None:
        message = frame(protocol.encoder.encode(reply))
        try:
            with self._writing:
                self._sock.sendall(message)
        except OSError:
            if self._door is None:
                os._exit(0)  # main is gone: nobody wants the rest

    def run(self, settings: SpeechSettings) -> None:
        """Loads, then serves until main closes its end."""
        try:
            handlers = load(settings)
        except ImportError as error:
            self.send(Failed(id=0, reason=f"{error}; type: {models.INSTALL_COMMAND}"))
            return
        except Exception as error:  # each library has its own for a broken model; main must learn the reason
            self.send(Failed(id=0, reason=str(error)))
            return
        lanes = {kind: Lane(kind, handler, self.send) for kind, handler in handlers.items()}
        chosen = {kind: str(getattr(settings, LOADERS[kind][0])) for kind in handlers}
        ready = WorkerReady(id=0, pid=os.getpid(), models=chosen, settings=settings)
        self.send(ready)
        while True:
            message = read_frame_blocking(self._sock)
            if message is None:
                if not self._another_main(ready):
                    return
                continue
            request = protocol.request_decoder.decode(message)
            match request:
                case Transcribe():
                    self._put(lanes, "stt", request, droppable=request.droppable)
                case Synthesize():
                    self._put(lanes, "tts", request)
                case Embed():
                    self._put(lanes, "embedding", request)
                case JudgeTurn():
                    self._put(lanes, "turn", request, droppable=True)
                case Cancel() if request.id == protocol.LEAVE:
                    return
                case Cancel():
                    for lane in lanes.values():
                        lane.cancel(request.id)

    def _another_main(self, ready: WorkerReady) -> bool:
        """Waits for one, and greets it; it knows its own requests from those of the last one, still worked at."""
        comer = wait_for_main(self._door) if self._door is not None else None
        if comer is None:
            return False
        with self._writing, contextlib.suppress(OSError):
            self._sock.close()
            self._sock = comer
            comer.sendall(frame(protocol.encoder.encode(ready)))
        return True

    def _put(self, lanes: dict[str, Lane], kind: str, request: Request, *, droppable: bool = False) -> None:
        if lane := lanes.get(kind):
            lane.put(request, droppable=droppable)
        else:
            self.send(Failed(id=request.id, reason=f"no local model for {kind} is configured"))


def main(arguments: list[str]) -> None:
    run = Path(arguments[2]) if len(arguments) > 2 else None
    name = f"{SPEECH_DOOR}{os.getpid()}"
    door = try_door(run, name) if run is not None else None
    if door is None:
        die_with_parent()
    # Ctrl-C and a service manager's stop go to every process; main still says goodbye, then closes our socket.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=int(arguments[0]))
    Worker(sock, door).run(msgspec.json.decode(arguments[1], type=SpeechSettings))
    if run is not None:
        take_away(run, name)
    # Inferences under way are of no use to anyone, and their threads are daemons: no orderly end to wait for.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
