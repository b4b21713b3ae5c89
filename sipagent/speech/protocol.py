"""What main and a speech worker say to each other. `id` pairs answers with requests; main chooses it.

Audio is mono signed 16-bit little-endian, of the `rate` that the request names (Hz).
"""

import msgspec

from sipagent.speech.settings import SpeechSettings

SPEECH_DOOR = "speech-"  # and its pid: the name of a worker's door (core.doors)
LEAVE = 0  # the id of a Cancel that tells a worker to leave: no other main is to be waited for


class Request(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    id: int


class Reply(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    id: int


class Transcribe(Request):
    pcm: bytes
    rate: int
    prompt: str = ""  # words that are likely here; biases the recogniser
    droppable: bool = False  # an interim transcript: answered by Dropped when the recogniser is behind


class Synthesize(Request):
    text: str  # one clause or sentence
    rate: int
    speed: float = 1.0
    pitch: float = 1.0  # 1.0 is the voice as it is; made by resampling, so that two speakers can be told apart


class Embed(Request):
    texts: list[str]


class JudgeTurn(Request):
    """Does the pause behind this audio sound like the end of a turn?"""

    pcm: bytes  # what was said up to the pause; its last 8 s matter
    rate: int


class Cancel(Request):
    """Drop the request of this id if it has not begun. It gets no answer then; a late one will be ignored."""


class WorkerReady(Reply):
    pid: int
    models: dict[str, str]  # what was loaded, by kind: "stt", "tts", "embedding", "turn"
    settings: SpeechSettings


class Transcribed(Reply):
    text: str  # "" when it was no speech
    confidence: float  # 0..1
    no_speech: float  # 0..1
    cpu_ms: float


class Synthesized(Reply):
    pcm: bytes
    cpu_ms: float


class Embedded(Reply):
    vectors: bytes  # float32, row after row, each of unit length
    dimension: int  # of a row


class TurnJudged(Reply):
    complete: float  # 0..1


class Dropped(Reply):
    """A droppable request that was not begun, because the worker is behind."""


class Failed(Reply):
    """With `id` 0: the worker could not start."""

    reason: str
    retryable: bool = False


AnyRequest = Transcribe | Synthesize | Embed | JudgeTurn | Cancel
AnyReply = WorkerReady | Transcribed | Synthesized | Embedded | TurnJudged | Dropped | Failed

encoder = msgspec.msgpack.Encoder()
request_decoder: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
reply_decoder: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)
