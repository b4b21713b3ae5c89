"""The local recogniser as a Recogniser: whole-utterance decoding made to feel like streaming.

While the caller speaks the utterance so far is decoded every `partial_ms` (dropped when the worker is busy). When the
caller pauses the utterance is decoded ahead; if the pause turns out to be the end, the words are already there.
"""

import asyncio
from typing import Protocol

from sipagent.conversation.audio import join
from sipagent.conversation.interfaces import FRAME_MS, OnWords, Pcm, Transcript, Words
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import ProviderError, SipagentError


class Recognised(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class Transcriber(Protocol):
    """The speech worker's client. None when a droppable request was dropped."""

    async def transcribe(
        self, pcm: Pcm, rate: int, *, prompt: str = "", droppable: bool = False
    ) -> Recognised | None: ...


class LocalRecogniser:
    def __init__(self, transcriber: Transcriber, settings: ConversationSettings, prompt: str = "") -> None:
        self._transcriber = transcriber
        self._settings = settings
        self._prompt = prompt

    def begin(self, on_words: OnWords) -> "LocalRecognition":
        return LocalRecognition(self._transcriber, self._settings, self._prompt, on_words)


class LocalRecognition:
    def __init__(
        self,
        transcriber: Transcriber,
        settings: ConversationSettings,
        prompt: str,
        on_words: OnWords,
    ) -> None:
        self._transcriber = transcriber
        self._prompt = prompt
        self._on_words = on_words
        self._every = max(1, settings.partial_ms // FRAME_MS)
        self._frames: list[Pcm] = []  # bounded by the endpointer's max_utterance_s
        self._partial: asyncio.Task[None] | None = None
        self._partial_at = 0
        self._ahead: asyncio.Task[Transcript] | None = None

    def push(self, frame: Pcm) -> None:
        self._frames.append(frame)
        if len(self._frames) - self._partial_at >= self._every and (self._partial is None or self._partial.done()):
            self._partial_at = len(self._frames)
            self._partial = asyncio.create_task(self._decode_partial(*join(self._frames)))

    def pause(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._ahead = asyncio.create_task(self._decode_pause(*join(self._frames)))
        # Its failure is raised by finish(), or does not matter because the caller went on speaking.
        self._ahead.add_done_callback(lambda task: task.cancelled() or task.exception())

    def resume(self) -> None:
        """The pause was not the end: what was worked out ahead is out of date."""
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    async def finish(self) -> Transcript:
        if self._partial is not None:
            self._partial.cancel()
        if self._ahead is None or self._ahead.cancelled():
            self._ahead = asyncio.create_task(self._decode(*join(self._frames)))
        return await self._ahead

    def cancel(self) -> None:
        for task in (self._partial, self._ahead):
            if task is not None:
                task.cancel()

    async def _decode(self, pcm: Pcm, rate: int) -> Transcript:
        recognised = await self._transcriber.transcribe(pcm, rate, prompt=self._prompt)
        if recognised is None:
            raise ProviderError("the recogniser dropped an utterance that it may not drop", retryable=True)
        return Transcript(recognised.text, recognised.confidence)

    async def _decode_pause(self, pcm: Pcm, rate: int) -> Transcript:
        said = await self._decode(pcm, rate)
        self._on_words(Words(said.text, said.confidence, paused=True))
        return said

    async def _decode_partial(self, pcm: Pcm, rate: int) -> None:
        try:
            recognised = await self._transcriber.transcribe(pcm, rate, prompt=self._prompt, droppable=True)
        except SipagentError:
            return  # a partial is a convenience; the final one reports what is wrong
        if recognised is not None and recognised.text:
            self._on_words(Words(recognised.text, recognised.confidence))
