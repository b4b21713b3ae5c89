"""What main and a speech worker say to each other. `id` pairs answers with requests; main chooses it.

Audio is 8 kHz mono signed 16-bit little-endian.
"""

import msgspec


class Request(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    id: int


class Reply(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    id: int


class Transcribe(Request):
    pcm: bytes
    prompt: str = ""  # words that are likely here; biases the recogniser


class Synthesize(Request):
    text: str  # one clause or sentence
    speed: float = 1.0
    pitch: float = 1.0  # 1.0 is the voice as it is; made by resampling, so that two speakers can be told apart


class Embed(Request):
    texts: list[str]


class Cancel(Request):
    """Drop the request of this id if it has not begun; its answer, if any, will be ignored."""


class WorkerReady(Reply):
    pid: int
    models: dict[str, str]  # what was loaded, by kind: "stt", "tts", "embedding"


class Transcribed(Reply):
    text: str  # "" when it was no speech
    confidence: float  # 0..1
    no_speech: float  # 0..1
    cpu_ms: float


class Synthesized(Reply):
    pcm: bytes
    cpu_ms: float


class Embedded(Reply):
    vectors: list[list[float]]  # unit length


class Failed(Reply):
    reason: str


AnyRequest = Transcribe | Synthesize | Embed | Cancel
AnyReply = WorkerReady | Transcribed | Synthesized | Embedded | Failed

encoder = msgspec.msgpack.Encoder()
request_decoder: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
reply_decoder: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)
