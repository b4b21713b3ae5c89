"""Synthesised texts, kept: greetings and fixed answers are spoken on every call and need to be made only once."""

from collections import OrderedDict
from collections.abc import Iterable

from sipagent.conversation.interfaces import Pcm, Tts
from sipagent.core.errors import ProviderError

MAX_BYTES = 64 << 20  # about an hour of audio; the least recently used go first


class PhraseCache:
    """A Tts in front of another one."""

    def __init__(self, tts: Tts) -> None:
        self._tts = tts
        self._kept: OrderedDict[str, Pcm] = OrderedDict()
        self._bytes = 0

    async def synthesize(self, text: str) -> Pcm:
        kept = self._kept.get(text)
        if kept is not None:
            self._kept.move_to_end(text)
            return kept
        return await self._tts.synthesize(text)

    async def prepare(self, texts: Iterable[str]) -> int:
        """Makes and keeps these; returns how many could not be made."""
        failed = 0
        for text in dict.fromkeys(texts):
            if text in self._kept:
                continue
            try:
                pcm = await self._tts.synthesize(text)
            except ProviderError:
                failed += 1
                continue
            pcm.setflags(write=False)
            self._kept[text] = pcm
            self._bytes += pcm.nbytes
            while self._bytes > MAX_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return failed
