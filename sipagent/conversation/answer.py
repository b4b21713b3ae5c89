"""An answer on its way: the agent's words as clauses, and the clauses' audio made ahead of the wire.

    agent ─► texts (2) ─► voice ─► clauses (1) ─► whoever speaks them
                                     └─ each with the audio that has come of it (2 s)

Every arrow waits when the next place is full, so that an agent which writes faster than it can be spoken is read
slower, and nothing is made that is far from being heard. While the caller may still go on, only the first clause is
made.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from sipagent.conversation import chunking
from sipagent.conversation.audio import pcm_of
from sipagent.conversation.interfaces import Agent, Asked, Piece, Speech, Text, Tts, Working
from sipagent.conversation.streams import closing
from sipagent.core.errors import ProviderError

TEXTS_AHEAD = 2  # clauses of text that wait for the voice; the agent waits beyond that
AUDIO_AHEAD_S = 2  # of one clause that waits to be spoken; the voice waits beyond that


class Clause:
    """A clause of an answer; iterated once, it gives its audio as it comes, and raises what the voice raised."""

    def __init__(self, said: Text, rate: int) -> None:
        self.text = said.text
        self.protected = said.whole
        self.rate = rate
        self._pieces: deque[Speech] = deque()
        self._held = 0
        self._error: ProviderError | None = None
        self._over = False
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self.begun = asyncio.Event()  # its first audio is there, or there will be none

    async def make(self, tts: Tts) -> None:
        try:
            async with closing(tts.speak(self.text, self.rate)) as pieces:
                async for piece in pieces:
                    await self._put(piece)
        except ProviderError as error:
            self._error = error
        self._over = True
        self._news.set()
        self.begun.set()

    async def _put(self, piece: Speech) -> None:
        self._pieces.append(piece)
        self._held += len(pcm_of(piece))
        self._news.set()
        self.begun.set()
        while self._held > AUDIO_AHEAD_S * self.rate:
            self._taken.clear()
            await self._taken.wait()

    def __aiter__(self) -> AsyncIterator[Speech]:
        return self

    async def __anext__(self) -> Speech:
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        self._held -= len(pcm_of(piece))
        self._taken.set()
        return piece


class Answer:
    """`now` is monotonic ns, `rate` that of the wire at the moment; times are 0 until they are known."""

    def __init__(
        self, agent: Agent, asked: Asked, tts: Tts, *, rate: Callable[[], int], now: Callable[[], int], name: str
    ) -> None:
        self._agent = agent
        self._asked = asked
        self._tts = tts
        self._rate = rate
        self._now = now
        self._name = name
        self._texts: asyncio.Queue[Text | None] = asyncio.Queue(TEXTS_AHEAD)
        self._clauses: asyncio.Queue[Clause | None] = asyncio.Queue(1)
        self._work: set[asyncio.Task[None]] = set()
        self.action: Piece | None = None  # what the agent wants done after it
        self.error: ProviderError | None = None  # by which it ended early
        self.intent = ""
        self.busy_until_ns = 0  # the agent has said that it takes a while
        self.answer_ns = 0  # its first words
        self.clause_ns = 0  # its first clause

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        self._start(tasks, self._think(), "agent")
        self._start(tasks, self._voice(tasks), "voice")

    @property
    def asked(self) -> Asked:
        return self._asked

    def settle(self) -> None:
        """The caller has finished, with the words that were asked."""
        self._asked.settle()

    async def next(self) -> Clause | None:
        """The next clause as soon as its text is there; None after the last."""
        return await self._clauses.get()

    async def stop(self) -> None:
        """Cancels what is under way; afterwards neither agent nor voice does anything for it. May be called again."""
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)

    def _start(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        task = tasks.create_task(work, name=f"{self._name}/{name}")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _think(self) -> None:
        """The agent's pieces as clauses of text."""
        chunker, whole = chunking.Chunker(), False
        try:
            async with closing(self._agent.respond(self._asked)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Working):
                        self.busy_until_ns = self._now() + int(piece.limit_s * 1e9)
                        self._asked.working, self._asked.worked_ns = piece.limit_s > 0, self._now()
                        await self._write(chunker.flush(), whole)
                        continue
                    self.answer_ns = self.answer_ns or self._now()
                    if isinstance(piece, Text):
                        if piece.whole is not whole:
                            await self._write(chunker.flush(), whole)
                            whole = piece.whole
                        await self._write(chunker.push(piece.text), whole)
                    else:
                        self.action = piece
        except ProviderError as error:
            self.error = error
        self.intent = self._agent.intent
        await self._write(chunker.flush(), whole)
        await self._texts.put(None)

    async def _write(self, texts: list[str], whole: bool) -> None:
        for text in texts:
            self.clause_ns = self.clause_ns or self._now()
            await self._texts.put(Text(text, whole))

    async def _voice(self, tasks: asyncio.TaskGroup) -> None:
        """Clauses of text as audio: each begins once the one before has, so that the first has the voice to itself."""
        first = True
        while (text := await self._texts.get()) is not None:
            if not first:
                await self._asked.certain()
            first = False
            clause = Clause(text, self._rate())
            await self._clauses.put(clause)
            self._start(tasks, clause.make(self._tts), "clause")
            await clause.begun.wait()
        await self._clauses.put(None)
