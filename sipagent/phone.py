"""The test phone: a SIP telephone with ears and a voice, made of the node's planes, in processes of its own."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sipagent.calls import sounds
from sipagent.calls.leg import Leg, LegIdentity
from sipagent.conversation.audio import frame_samples, join, whole_frames
from sipagent.conversation.interfaces import AudioFrames, MakeDetector, Pcm, Words
from sipagent.conversation.listener import Heard, Listener
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.speaker import Speaker, Utterance
from sipagent.conversation.turn_end import FixedSilence
from sipagent.core import clock
from sipagent.core.errors import ProviderError, SetupError, SipagentError
from sipagent.core.events import EventHub, MediaFigures
from sipagent.core.ids import new_call_id
from sipagent.core.resample import convert
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.media.client import MediaClient, MediaPort
from sipagent.media.quality import QualityFigures
from sipagent.media.settings import MediaSettings
from sipagent.sip import message, protocol
from sipagent.sip.lanes import LanePool
from sipagent.sip.settings import SipSettings
from sipagent.speech.client import SpeechClient
from sipagent.speech.settings import SpeechSettings
from sipagent.speech.vad import make_vad

# The phone listens like a person: it lets the other side finish its sentence before it counts it as one.
_EARS = ConversationSettings(endpointing_ms=700, pause_ms=300)
# A second speaker out of the same voice: a little higher and quicker than the agent.
PITCH, SPEED = 1.12, 1.05
LEAST_RATE = 8000  # of a recording


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneSettings:
    host: str = "127.0.0.1"  # address of the phone itself
    media_ports: tuple[int, int] = (30000, 30998)
    ears: bool = True  # recognise what is heard, and be able to speak: needs the speech models


@dataclass(slots=True)
class Tape:
    """Both directions of a call on one time line, in frames of 20 ms since the first tick."""

    said: list[tuple[int, Pcm]] = field(default_factory=list)  # (frame index, frame)
    heard: list[Pcm] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """A stereo WAV at the highest rate of the call: the phone left, the other side right."""
        said: list[Pcm] = []
        for at, frame in self.said:
            said += [np.zeros_like(frame)] * (at - len(said))
            said.append(frame)
        (left, left_rate), (right, right_rate) = (
            join(frames) if frames else (np.zeros(0, np.int16), LEAST_RATE) for frames in (said, self.heard)
        )
        rate = max(left_rate, right_rate)
        sounds.write_stereo_wav(path, convert(left, left_rate, rate), convert(right, right_rate, rate), rate)


class PhoneCall:
    """One call as the person at the phone lives it. Waiting methods return early when the call ends."""

    def __init__(self, leg: Leg, speech: SpeechClient | None, make_vad: MakeDetector | None) -> None:
        self.leg = leg
        self.heard: list[str] = []  # what the other side said, utterance by utterance
        self.on_heard: Callable[[str], None] = lambda text: None
        self.tape = Tape()
        self.quality: QualityFigures | None = None  # of the whole call, known once it is over
        self._speech = speech
        self._speaker = Speaker(leg.port, _EARS.ahead_ms)
        self._tick = asyncio.Event()
        self._listener: Listener | None = None
        if speech is not None and make_vad is not None:
            ears = LocalRecogniser(speech, _EARS)
            self._listener = Listener(_EARS, make_vad, ears, self, FixedSilence(_EARS.endpointing_ms))
        self._recognising: set[asyncio.Task[None]] = set()
        self._heard_speech = False  # since the phone last spoke
        self._speech_began_ns = 0
        self._last_voiced_ns = 0
        self._queued: dict[int, Pcm] = {}
        self._taped = 0
        self._digits_sent = asyncio.Event()
        leg.port.on_frames = self._on_frames
        leg.port.on_digits_sent = self._digits_sent.set
        leg.port.on_quality = self._on_quality

    @property
    def over(self) -> bool:
        return self.leg.ended.done()

    async def answered(self, timeout_s: float) -> bool:
        """Waits for the other side to answer; False when it does not."""
        waiting = asyncio.ensure_future(self.leg.answered.wait())
        either: set[asyncio.Future[object]] = {waiting, self.leg.ended}  # type: ignore[arg-type]
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self.leg.is_answered

    async def say(self, text: str) -> Utterance:
        """Speaks a text to its end. Raises ProviderError."""
        if self._speech is None:
            raise ProviderError("this phone has no voice", retryable=False)
        rate = self.leg.port.rate
        return await self.play(await self._speech.synthesize(text, rate, speed=SPEED, pitch=PITCH), rate, text)

    async def play(self, pcm: Pcm, rate: int, text: str = "") -> Utterance:
        """Plays audio to its end."""
        padded = whole_frames(pcm, rate)
        start = self.leg.port.written
        self._queued |= {start + i: frame for i, frame in enumerate(padded.reshape(-1, frame_samples(rate)))}
        utterance = self._speaker.utterance()
        adding = asyncio.create_task(utterance.play(padded, rate, clock.mono_ns, text))
        while not adding.done() and not self.over:
            await self._next_tick()
        if self.over:
            adding.cancel()
        utterance.complete()
        while not utterance.done and not self.over:
            await self._next_tick()
        self._heard_speech = False
        return utterance

    async def press(self, digits: str) -> None:
        """Presses keys, one after another. Raises ValueError for what is no key."""
        self._digits_sent.clear()
        self.leg.port.press(digits)
        while not self._digits_sent.is_set() and not self.over:
            await self._next_tick()
        self._heard_speech = False

    async def until_quiet(self, quiet_s: float, timeout_s: float) -> bool:
        """Until the other side has spoken and then been silent for so long; False after the timeout."""
        deadline = clock.mono_ns() + int(timeout_s * 1e9)
        while not self.over and clock.mono_ns() < deadline:
            if self._heard_speech and clock.mono_ns() - self._last_voiced_ns > quiet_s * 1e9:
                await self._settle()
                return True
            await self._next_tick()
        return False

    async def until_speaking(self, for_s: float, timeout_s: float) -> bool:
        """Until the other side has been speaking for so long; False after the timeout."""
        deadline = clock.mono_ns() + int(timeout_s * 1e9)
        while not self.over and clock.mono_ns() < deadline:
            if self._heard_speech and clock.mono_ns() - self._speech_began_ns > for_s * 1e9:
                return True
            await self._next_tick()
        return False

    async def hang_up(self) -> MediaFigures:
        """Ends the call if it is up, lets pending recognitions finish, and returns the media figures."""
        disposition = Disposition.ANSWERED if self.leg.is_answered else Disposition.CANCELLED
        self.leg.hangup(Termination(disposition=disposition, cause=Cause.NORMAL, by=EndedBy.CALLER))
        open_ = self._listener.take() if self._listener is not None else None
        if open_ is not None:
            self.speech_ended(open_)
        await self._settle()
        await self.leg.close(5.0)
        return self.leg.port.figures()

    # --- ListenerEvents ---

    def speech_started(self, heard: Heard) -> None:
        if not self._heard_speech:
            self._speech_began_ns = clock.mono_ns()
        self._heard_speech = True
        self._last_voiced_ns = clock.mono_ns()

    def frame(self, voiced: bool, heard: Heard | None) -> None:
        if voiced and heard is not None:
            self._last_voiced_ns = clock.mono_ns()

    def speech_paused(self, heard: Heard) -> None:
        pass

    def speech_resumed(self, heard: Heard) -> None:
        pass

    def words(self, heard: Heard, words: Words) -> None:
        pass

    def speech_ended(self, heard: Heard) -> None:
        task = asyncio.create_task(self._recognise(heard))
        self._recognising.add(task)
        task.add_done_callback(self._recognising.discard)

    # --- inside ---

    def _on_quality(self, figures: QualityFigures, final: bool) -> None:
        if final:
            self.quality = figures

    async def _recognise(self, heard: Heard) -> None:
        try:
            transcript = await heard.recognition.finish()
        except ProviderError as error:
            self.on_heard(f"({error})")
            return
        if transcript.text:
            self.heard.append(transcript.text)
            self.on_heard(transcript.text)

    async def _settle(self) -> None:
        if self._recognising:
            await asyncio.wait(set(self._recognising), timeout=10.0)

    async def _next_tick(self) -> None:
        """At most 0.1 s: a call whose media has stopped must not stop the phone."""
        try:
            await asyncio.wait_for(self._tick.wait(), 0.1)
        except TimeoutError:
            pass

    def _on_frames(self, frames: AudioFrames) -> None:
        now = clock.mono_ns()
        self._speaker.tick()
        self.tape.heard += list(frames.pcm)
        played = self.leg.port.played
        for position in range(self._taped, played):
            frame = self._queued.pop(position, None)
            if frame is not None:
                self.tape.said.append((len(self.tape.heard), frame))
        self._taped = played
        if self._listener is not None:
            sent = self.leg.port.sent_beside(frames.position, len(frames.pcm))
            self._listener.push(frames, sent, now)
        self._tick.set()
        self._tick = asyncio.Event()


class Phone:
    """The processes of one phone: lane, media and, with ears, a speech worker."""

    def __init__(self, settings: PhoneSettings, speech: SpeechSettings) -> None:
        self.hub = EventHub()
        self._settings = settings
        self._exit = AsyncExitStack()
        low, high = settings.media_ports
        self._media = MediaClient(MediaSettings(host=settings.host, port_min=low, port_max=high, capacity=4), self.hub)
        self._speech = SpeechClient(speech, self.hub) if settings.ears else None
        self._make_vad = make_vad(speech) if settings.ears else None
        self._lane = LanePool(SipSettings(host=settings.host, port=_free_port(settings.host), tcp=False), self.hub)
        self._legs: dict[int, Leg] = {}
        self._lane.on_fact = self._on_fact
        self._lane.on_incoming = lambda call: self._lane.send(protocol.Reject(call=call.call, status=480))
        self._lane.on_lost = self._lane_lost

    @property
    def pids(self) -> dict[str, int]:
        speech = {f"speech-{i}": pid for i, pid in enumerate(self._speech.pids)} if self._speech else {}
        return {"media": self._media.pid, **self._lane.pids, **speech}

    async def start(self) -> None:
        """Raises SetupError; nothing is left running then."""
        try:
            self._exit.push_async_callback(self._media.close)
            self._exit.push_async_callback(self._lane.close)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._media.start())
                tasks.create_task(self._lane.start())
                if self._speech is not None:
                    self._exit.push_async_callback(self._speech.close)
                    tasks.create_task(self._speech.start())
        except ExceptionGroup as failures:
            await self.close()
            raise failures.exceptions[0] from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._exit.aclose()

    async def call(self, uri: str, from_user: str = "phone") -> PhoneCall:
        """Sends the INVITE; `PhoneCall.answered` waits for the answer. Raises SipagentError."""
        target = message.parse_address(uri)
        if not target.host:
            raise SipagentError(f"{uri} is not a SIP URI: write it like sip:100@127.0.0.1:5060")
        port: MediaPort = await self._media.open()
        identity = LegIdentity(
            call_id=new_call_id(),
            direction=Direction.OUTBOUND,
            from_number=from_user,
            to_number=target.user,
            remote_address=f"{target.host}:{target.port or 5060}",
        )
        handle = self._lane.next_handle()
        leg = Leg(handle, self._lane, port, self.hub, identity, self._settings.host)
        self._legs[handle] = leg
        call = PhoneCall(leg, self._speech, self._make_vad)
        leg.created("")
        leg.call("", uri, f"sip:{from_user}@{self._settings.host}", {})
        return call

    def _lane_lost(self, calls: frozenset[int]) -> None:
        for handle in calls & self._legs.keys():
            self._legs[handle].lane_lost()

    def _on_fact(self, fact: protocol.AnyFact) -> None:
        leg = self._legs.get(getattr(fact, "call", 0))
        if leg is not None:
            leg.on_fact(fact)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise SetupError(f"{host} is not an address of this machine ({error.strerror})") from error
        return int(probe.getsockname()[1])
