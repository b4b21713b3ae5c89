"""The documents of one folder, found by meaning.

Every sentence is a vector, with its heading; a passage is as near to a question as its nearest sentence. Vectors are
kept in a file for each document, named by the hash of its content, so that only what has changed is worked out anew.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.conversation.knowledge.documents import is_document, read_document
from sipagent.conversation.knowledge.passages import Passage, cut
from sipagent.core.errors import ConfigError, ProviderError

MAX_DOCUMENTS = 500
MAX_SENTENCES = 20_000  # 2 KiB each, and 10 ms of embedding the first time
BATCH = 32  # sentences in one request, so that a caller's question does not wait long behind them
HARDLY_FARTHER = 0.75  # of the nearest sentence's cosine
SOON_SAID = 220  # characters, some 14 s
WAIT_S = 3.0  # for documents that are being read still
VERSION = 1  # of the kept files


class Embedder(Protocol):
    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim), unit length. Raises ProviderError."""
        ...


class _Kept(msgspec.Struct, frozen=True):
    """One document as it is kept."""

    version: int
    passages: list[tuple[str, list[str]]]
    dimension: int
    vectors: bytes  # float32, a row for each sentence


@dataclass(frozen=True, slots=True)
class Found:
    document: str  # path within the folder
    passage: Passage
    nearest: tuple[int, ...]  # sentences that answer the question, in their order
    score: float  # cosine of the nearest one

    @property
    def answer(self) -> str:
        """What to say of it."""
        return " ".join(self.passage.sentences[number] for number in self.nearest)

    @property
    def source(self) -> dict[str, object]:
        """For the record."""
        return {"document": self.document, "heading": self.passage.heading, "score": round(self.score, 3)}


class Knowledge:
    """Stays as it was read; a folder that has changed is read into a new one. It may be asked before: it waits then."""

    def __init__(self, embedder: Embedder, top: int, threshold: float) -> None:
        self._embedder = embedder
        self._top = top
        self._threshold = threshold
        self._places: list[tuple[str, Passage, int]] = []  # of each row
        self._vectors: NDArray[np.float32] = np.zeros((0, 1), np.float32)
        self._is_read = asyncio.Event()

    @property
    def sentences(self) -> int:
        return len(self._places)

    async def read(self, folder: Path, kept: Path) -> None:
        """Reads the folder; ``kept`` is where vectors are. Raises ConfigError, SetupError or ProviderError."""
        files = await asyncio.to_thread(_documents, folder)
        await asyncio.to_thread(kept.mkdir, parents=True, exist_ok=True, mode=0o700)
        rows: list[NDArray[np.float32]] = []
        places: list[tuple[str, Passage, int]] = []
        names: set[str] = set()
        for file in files:
            document = await self._document(file, kept, names)
            for heading, sentences in document.passages:
                passage = Passage(heading, tuple(sentences))
                places += [(str(file.relative_to(folder)), passage, n) for n in range(len(sentences))]
            if document.vectors:
                rows.append(np.frombuffer(document.vectors, np.float32).reshape(-1, document.dimension))
            if len(places) > MAX_SENTENCES:
                raise ConfigError(f"{folder}: more than {MAX_SENTENCES} sentences are too many for one agent")
        if not places:
            raise ConfigError(f"{folder}: there is nothing to read; documents are .txt, .md, .html or .pdf")
        self._vectors, self._places = np.concatenate(rows), places
        self._is_read.set()
        await asyncio.to_thread(_forget_others, kept, names)

    async def _document(self, file: Path, kept: Path, names: set[str]) -> _Kept:
        digest = hashlib.sha256(await asyncio.to_thread(file.read_bytes)).hexdigest()
        place = kept / f"{digest}.vectors"
        names.add(place.name)
        known = await asyncio.to_thread(_load, place)
        if known is not None:
            return known
        passages = cut(await asyncio.to_thread(read_document, file))
        texts = [_with_heading(passage, each) for passage in passages for each in passage.sentences]
        if len(texts) > MAX_SENTENCES:
            raise ConfigError(f"{file}: more than {MAX_SENTENCES} sentences are too many for one agent")
        parts = [await self._embedder.embed(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
        made = _Kept(
            VERSION,
            [(passage.heading, list(passage.sentences)) for passage in passages],
            vectors.shape[1],
            vectors.astype(np.float32).tobytes(),
        )
        await asyncio.to_thread(_save, place, made)
        return made

    async def find(self, question: str) -> list[Found]:
        """The nearest passages, the best first; none that is too far. Raises ProviderError."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._is_read.wait()
        except TimeoutError:
            raise ProviderError("the documents have not been read yet", retryable=True) from None
        (vector,) = await self._embedder.embed([question])
        scores = self._vectors @ vector
        found: list[Found] = []
        for row in np.argsort(scores)[::-1][: 8 * self._top]:
            document, passage, sentence = self._places[row]
            if scores[row] < self._threshold or len(found) == self._top:
                break
            if all(passage is not known.passage for known in found):
                of_passage = scores[row - sentence :][: len(passage.sentences)]
                found.append(Found(document, passage, _nearest(of_passage, passage), float(scores[row])))
        return found


def _nearest(scores: NDArray[np.float32], passage: Passage) -> tuple[int, ...]:
    """The nearest sentence; beside it the next nearest, where that is hardly farther and both are soon said."""
    first, *others = (int(number) for number in np.argsort(scores)[::-1])
    if others and scores[others[0]] >= HARDLY_FARTHER * scores[first]:
        both = len(passage.sentences[first]) + len(passage.sentences[others[0]])
        if both <= SOON_SAID:
            return tuple(sorted((first, others[0])))
    return (first,)


def _with_heading(passage: Passage, sentence: str) -> str:
    return f"{passage.heading}: {sentence}" if passage.heading else sentence


def _documents(folder: Path) -> list[Path]:
    """In order of their names, none that a link leads to outside of the folder."""
    root = folder.resolve()
    found = [file for file in sorted(folder.rglob("*")) if is_document(file) and file.resolve().is_relative_to(root)]
    if len(found) > MAX_DOCUMENTS:
        raise ConfigError(f"{folder}: more than {MAX_DOCUMENTS} documents are too many for one agent")
    return found


def _load(place: Path) -> _Kept | None:
    """None where there is none, or of another making."""
    try:
        kept = msgspec.msgpack.decode(place.read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError):
        return None
    rows = sum(len(sentences) for _, sentences in kept.passages)
    return kept if kept.version == VERSION and len(kept.vectors) == 4 * rows * kept.dimension else None


def _save(place: Path, made: _Kept) -> None:
    """Whole or not at all."""
    beside = place.with_suffix(f".{os.getpid()}")
    beside.write_bytes(msgspec.msgpack.encode(made))
    beside.replace(place)


def _forget_others(kept: Path, names: set[str]) -> None:
    """What belongs to documents that are gone."""
    for file in kept.iterdir():
        if file.name not in names:
            file.unlink(missing_ok=True)
