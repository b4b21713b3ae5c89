"""Synthesised texts, kept: greetings and fixed answers are spoken on every call and need to be made only once."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable

from sipagent.conversation.audio import collect
from sipagent.conversation.interfaces import Pcm, Speech, Tts
from sipagent.conversation.streams import closing
from sipagent.core.errors import ProviderError
from sipagent.core.resample import convert

MAX_BYTES = 64 << 20  # about 20 minutes of audio; the least recently used go first
NARROW, WIDE = 8000, 16_000


class PhraseCache:
    """A Tts in front of another one."""

    def __init__(self, tts: Tts) -> None:
        self._tts = tts
        self._kept: OrderedDict[str, dict[int, Pcm]] = OrderedDict()  # by text, then by rate
        self._bytes = 0

    async def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
        kept = self._kept.get(text)
        if kept is not None:
            self._kept.move_to_end(text)
            yield kept[rate]
            return
        async with closing(self._tts.speak(text, rate)) as pieces:
            async for piece in pieces:
                yield piece

    def holds(self, text: str) -> bool:
        """It can be spoken at once, whatever has become of the voice."""
        return text in self._kept

    async def prepare(self, texts: Iterable[str]) -> int:
        """Makes and keeps these, for both kinds of line; returns how many could not be made."""
        failed = 0
        for text in dict.fromkeys(texts):
            if text in self._kept:
                continue
            try:
                wide = await collect(self._tts.speak(text, WIDE))
            except ProviderError:
                failed += 1
                continue
            # One synthesis serves both, so that a node is ready as soon as with one of them.
            self._keep(text, {WIDE: wide, NARROW: convert(wide, WIDE, NARROW)})
        return failed

    def _keep(self, text: str, spoken: dict[int, Pcm]) -> None:
        for pcm in spoken.values():
            pcm.setflags(write=False)
        self._kept[text] = spoken
        self._bytes += _size(spoken)
        while self._bytes > MAX_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(spoken: dict[int, Pcm]) -> int:
    return sum(pcm.nbytes for pcm in spoken.values())
