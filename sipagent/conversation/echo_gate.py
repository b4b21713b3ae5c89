"""Tells the caller's voice from the agent's own coming back from the far end of the line.

The echo is what was sent, up to half a second later and filtered. Two things are learned from both signals:

- the delay, by phase correlation of the last 256 ms received with what was sent (Knapp and Carter, 1976);
- the path, as cross spectrum over power spectrum of windows so aligned, with forgetting.

The path says how much of a frame is echo. A frame is the caller's when it is louder than the echo can be, or when more
remains after the echo is taken off than usually does. A playout delay that moves leaves the path as it is: before such
a frame is held against the echo, the neighbouring delays are tried.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]
Floats = NDArray[np.float32]
Spectra = NDArray[np.complex64]

RATE = 8000  # at which the gate works; faster lines are averaged down to it
FRAME = 160
WINDOW = 2 * FRAME
BINS = slice(12, 137)  # 300 to 3,400 Hz in a window's spectrum

FULL_SCALE = 32768.0**2
ACTIVE = FULL_SCALE * 10**-6.0  # -60 dBFS: the agent says something
LOWEST_NOISE = FULL_SCALE * 10**-7.5  # of a line that is digitally silent
NOISE_RISE = 1.014  # a frame: 3 dB/s; it falls at once
RISES = 2000  # frames by which it has risen as far as it can
OVER_NOISE = 4.0  # what is weaker is noise
IDLE_FRAMES = 40  # after so much silence of the agent no echo can come
QUIET_LEARNS = 4  # every so many quiet frames the path is told that nothing came back

CAUTIOUS_FRAMES = 12  # so many frames may be taken for echo before one is found, which takes 100 to 300 ms
CAUTIOUS_LOSS = 0.25  # an echo is at least 6 dB below the agent
SURE_FRAMES = 50  # of the agent's speech without a trace of echo: no frame need be taken for one any more
LOST_FRAMES = 250  # likewise: the echo that was known is gone

SEARCH = 4096  # points of the correlation, at half the rate
HEARD = 1024  # of them received: 256 ms; the rest was sent, until now
FURTHEST = 2000  # 500 ms
SEARCH_FRAMES = 5  # from one search to the next
SETTLE_FRAMES = 15  # until the search hears nothing of the delay there was before
MEMORY = 0.6  # of the correlation from one search to the next
WHITENING = 0.8  # 1 trusts all frequencies alike, 0 only the strong ones, which repeat with the pitch
CERTAIN = 8.0  # times the RMS over all delays; double-talk without echo gets there in one search of twenty
SAME = 6  # samples two delays may differ and mean one

FORGET = 0.95  # a frame: the path follows in 0.4 s
PAST = 20  # frames from which the path of a new delay is learned
EXPLAINS = 0.3  # what may remain of them; of chance correlations at least 0.34 did, of echoes at most 0.29 when found
LOCAL = 1024  # points of the correlation by which a moved delay is found
NEAR = (LOCAL - WINDOW) // 2  # 44 ms either way
TAIL = 0.6  # a frame: how reverberation dies away

LOUDER = 4.0  # than the loudest echo expected: somebody speaks
REMAINS = 4.0  # times what usually remains: somebody speaks
PURE = 0.25  # less remains: nobody speaks
LOUDER_POINTS, REMAINS_POINTS, PURE_POINTS, OTHER_POINTS = 3, 2, -3, -1
ENOUGH, MOST = 5, 12  # points to be taken for speech, until all are gone: a lost packet disturbs two frames

_HANN = np.hanning(WINDOW + 1)[:WINDOW].astype(np.float32)
_NOISE_ENERGY = float(np.sum(_HANN**2)) * (BINS.stop - BINS.start)  # in BINS of a window, for a sample's power
_AGES = (FORGET ** np.arange(PAST - 1, -1, -1, dtype=np.float32))[:, None]
_TINY = np.float32(1e-3)


class EchoGate:
    """One call. `feed` takes a frame a time, in order, at 8 or 16 kHz, as its length tells."""

    def __init__(self) -> None:
        self._signals = _Signals()
        self._search = _Search()
        self._path = _Path()
        self._noise = FULL_SCALE
        self._loudest_sent = 0.0
        self._since_sent = IDLE_FRAMES
        self._until_search = SEARCH_FRAMES
        self._until_learn = QUIET_LEARNS
        self._cautious = CAUTIOUS_FRAMES
        self._unseen = 0  # frames of the agent's speech since an echo was last found
        self._points = 0
        self._speaking = False
        # Received while no echo can come, and not yet looked at.
        self._idle: deque[Pcm] = deque(maxlen=_Signals.KEPT_FRAMES)
        self._skipped = 0  # of those that came before them
        self.delay: int | None = None  # of the echo, in samples at 8 kHz; None while none is known

    def feed(self, received: Pcm, sent: Pcm | None) -> bool:
        """Whether the received frame is nothing but echo. `sent` left when it was played; None for silence."""
        if sent is None and self._since_sent == IDLE_FRAMES:  # half of every call
            self._skipped += len(self._idle) == self._idle.maxlen
            self._idle.append(received)
            return False
        if self._idle:
            self._catch_up()
        return self._hear(received, sent)

    def _catch_up(self) -> None:
        """The agent begins to speak: what has been received just before is needed now."""
        self._noise = min(self._noise * NOISE_RISE ** min(self._skipped, RISES), FULL_SCALE)
        self._loudest_sent *= 0.97**self._skipped
        for frame in self._idle:
            self._hear(frame, None)
        self._idle.clear()
        self._skipped = 0

    def _hear(self, received: Pcm, sent: Pcm | None) -> bool:
        power, sent_power = self._signals.store(received, sent)
        self._noise = max(min(power, self._noise * NOISE_RISE), LOWEST_NOISE)
        self._loudest_sent = max(sent_power, 0.97 * self._loudest_sent)
        if sent_power > ACTIVE:
            self._since_sent = 0
            self._unseen += 1
            self._give_up()
        elif self._since_sent < IDLE_FRAMES:
            self._since_sent += 1
        if self._since_sent == IDLE_FRAMES:
            self._points, self._speaking = 0, False
            return False
        quiet = power < OVER_NOISE * self._noise
        self._until_search -= 1
        if self._until_search <= 0 and not quiet:
            self._until_search = SEARCH_FRAMES
            self._find()
        if self.delay is None:
            return self._guess(power, quiet)
        if quiet:
            self._pass_quiet(self.delay)
        else:
            self._judge(self.delay)
        return not self._speaking

    def _give_up(self) -> None:
        if self._unseen >= SURE_FRAMES:
            self._cautious = 0
        if self._unseen >= LOST_FRAMES:
            self.delay = None

    def _guess(self, power: float, quiet: bool) -> bool:
        """As long as no echo can have been found, what may be one is taken for one; but not often."""
        if not self._cautious or quiet or power > CAUTIOUS_LOSS * self._loudest_sent:
            return False
        self._cautious -= 1
        return True

    def _find(self) -> None:
        found = self._search.find(self._signals)
        if found is None:
            return
        if self.delay is None or abs(found - self.delay) > SAME:
            if not self._path.adopt(self._signals, found):
                return
            self.delay = found
            self._points, self._speaking = 0, False
        self._unseen = self._cautious = 0

    def _pass_quiet(self, delay: int) -> None:
        self._score(OTHER_POINTS)
        self._until_learn -= 1
        if self._until_learn <= 0:
            self._until_learn = QUIET_LEARNS
            self._path.learn(*self._signals.spectra(delay))

    def _judge(self, delay: int) -> None:
        noise = OVER_NOISE * self._noise * _NOISE_ENERGY
        received, sent = self._signals.spectra(delay)
        view = self._path.look(received, sent, noise)
        if view.points > 0:
            moved = min(max(delay + self._signals.shift(delay), 0), 2 * FURTHEST)
            if abs(moved - delay) > SAME:
                shifted = self._signals.spectra(moved)[1]
                other = self._path.look(received, shifted, noise)
                if other.points < 0 and other.remains < view.all / 2:
                    self.delay, sent, view = moved, shifted, other
                    self._search.forget()
                    self._until_search = SETTLE_FRAMES
        self._path.expect(view)
        self._score(view.points)
        if not self._speaking and view.points < LOUDER_POINTS:
            self._path.learn(received, sent)
            self._path.compare(view, noise)

    def _score(self, points: int) -> None:
        self._points = min(max(self._points + points, 0), MOST)
        if self._points >= ENOUGH:
            self._speaking = True
        elif not self._points:
            self._speaking = False


class _Signals:
    """The last second of both directions at 8 kHz."""

    _KEPT = 2 * SEARCH
    KEPT_FRAMES = _KEPT // FRAME + 1
    _ALL = 4 * _KEPT // FRAME + 1  # frames

    def __init__(self) -> None:
        self._both = np.zeros((2, 4 * self._KEPT), np.float32)  # filled to the end, then begun again
        self._end = self._KEPT
        self._silent = self._ALL
        self._windows = np.zeros((2, WINDOW), np.float32)

    def store(self, received: Pcm, sent: Pcm | None) -> tuple[float, float]:
        """Returns both frames' power."""
        both, end = self._both, self._end
        if end + FRAME > both.shape[1]:
            both[:, : self._KEPT] = both[:, end - self._KEPT : end]
            end = self._KEPT
        self._end = end + FRAME
        power = self._put(both[0, end : end + FRAME], received)
        if sent is None:
            self._silent += 1
            if self._silent <= self._ALL:  # later it is silent all over
                both[1, end : end + FRAME] = 0.0
            return power, 0.0
        self._silent = 0
        return power, self._put(both[1, end : end + FRAME], sent)

    def _put(self, place: Floats, frame: Pcm) -> float:
        place[:] = frame if len(frame) == FRAME else frame.reshape(FRAME, -1).mean(1)
        return float(np.dot(place, place)) / FRAME

    def received(self, count: int) -> Floats:
        """The last `count` samples."""
        return self._both[0, self._end - count : self._end]

    def sent(self, count: int, delay: int = 0) -> Floats:
        """The `count` samples that ended `delay` samples ago."""
        return self._both[1, self._end - delay - count : self._end - delay]

    def spectra(self, delay: int) -> tuple[Spectra, Spectra]:
        """Of the last window received, and of what was sent `delay` samples before it."""
        np.multiply(self.received(WINDOW), _HANN, out=self._windows[0])
        np.multiply(self.sent(WINDOW, delay), _HANN, out=self._windows[1])
        received, sent = np.fft.rfft(self._windows)[:, BINS].astype(np.complex64)
        return received, sent

    def past_spectra(self, delay: int) -> tuple[Spectra, Spectra]:
        """The same for the last `PAST` windows, a frame apart."""
        count = WINDOW + (PAST - 1) * FRAME
        both = np.stack([_windows(self.received(count)), _windows(self.sent(count, delay))])
        received, sent = np.fft.rfft(both * _HANN)[:, :, BINS].astype(np.complex64)
        return received, sent

    def shift(self, delay: int) -> int:
        """By how much the delay has to change, within `NEAR`, so that the last window fits best."""
        later = min(NEAR, delay)
        sent = np.fft.rfft(self.sent(WINDOW + NEAR + later, delay - later), LOCAL)
        cross = sent * np.fft.rfft(self.received(WINDOW) * _HANN, LOCAL).conj()
        lags = _correlate(cross, slice(LOCAL * 300 // RATE, LOCAL * 3400 // RATE))[0]
        return NEAR - int(np.argmax(np.abs(lags[: 2 * NEAR + 1])))


class _Search:
    """The delay out of all that are possible. Works at 4 kHz on 300 to 1,900 Hz."""

    _BAND = slice(SEARCH * 300 * 2 // RATE, SEARCH * 1900 * 2 // RATE)

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._sum: NDArray[np.float64] = np.zeros(SEARCH)

    def find(self, signals: _Signals) -> int | None:
        """In samples at 8 kHz; None when no delay stands out."""
        sent = _halved(signals.sent(2 * (SEARCH - HEARD)))
        cross = np.fft.rfft(_halved(signals.received(2 * HEARD)), SEARCH) * np.fft.rfft(sent, SEARCH).conj()
        lags, size = _correlate(cross, self._BAND)
        self._sum = MEMORY * self._sum + lags / (size + _TINY)
        possible = np.abs(self._sum[SEARCH - 2 * HEARD :][:FURTHEST])  # a line may turn the signal over
        best = int(np.argmax(possible))
        return 2 * best if possible[best] > CERTAIN * np.sqrt(np.mean(np.square(possible))) else None


class _View(NamedTuple):
    """One window, as the path explains it. Energies in `BINS`."""

    all: float  # of what was received
    echo: float
    remains: float
    expected: float  # of the echo with its reverberation
    points: int


class _Path:
    """What the far end makes of what was sent: a factor for each frequency."""

    def __init__(self) -> None:
        bins = BINS.stop - BINS.start
        self._reset(np.zeros(bins, np.complex64), np.full(bins, _TINY))

    def _reset(self, cross: Spectra, power: Floats) -> None:
        self._cross, self._power = cross, power
        self._expected = 0.0
        self._usual = 0.25  # of the echo, what remained
        self._excess = 2.0  # of the echo, how much more than computed was received

    def adopt(self, signals: _Signals, delay: int) -> bool:
        """Learns the path for a new delay from the past, if the delay explains it."""
        received, sent = signals.past_spectra(delay)
        cross = (_AGES * received * sent.conj()).sum(0)
        power = (_AGES * _squares(sent)).sum(0) + _TINY
        if _energy(received - cross / power * sent) > EXPLAINS * _energy(received):
            return False
        self._reset(cross, power)
        return True

    def learn(self, received: Spectra, sent: Spectra) -> None:
        self._cross = FORGET * self._cross + received * sent.conj()
        self._power = FORGET * self._power + _squares(sent)

    def look(self, received: Spectra, sent: Spectra, noise: float) -> _View:
        estimate = self._cross / self._power * sent
        all_, echo = _energy(received), _energy(estimate)
        remains = min(_energy(received - estimate), all_)
        expected = max(echo, TAIL * self._expected)
        if all_ > LOUDER * self._excess * expected + noise:
            points = LOUDER_POINTS
        elif remains > REMAINS * self._usual * expected + noise:
            points = REMAINS_POINTS
        else:
            points = PURE_POINTS if remains < PURE * all_ else OTHER_POINTS
        return _View(all_, echo, remains, expected, points)

    def expect(self, view: _View) -> None:
        self._expected = view.expected

    def compare(self, view: _View, noise: float) -> None:
        """Learns how well the path does, from a window without the caller."""
        if view.echo > noise:
            self._usual += 0.05 * (min(max(view.remains / view.echo, 0.03), 1.0) - self._usual)
            self._excess += 0.05 * (min(max(view.all / view.echo, 1.0), 8.0) - self._excess)


def _correlate(cross: NDArray[np.complex128], band: slice) -> tuple[NDArray[np.float64], float]:
    """Whitened correlation of two signals by their cross spectrum, and the size of what it was made of."""
    part = cross[band]
    size = np.abs(part)
    part = part / (size**WHITENING + _TINY)
    cross[:] = 0.0
    cross[band] = part
    return np.fft.irfft(cross), float(np.sqrt(np.vdot(part, part).real))


def _halved(samples: Floats) -> Floats:
    return samples[0::2] + samples[1::2]


def _windows(samples: Floats) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::FRAME]


def _squares(spectrum: Spectra) -> Floats:
    squares: Floats = np.square(spectrum.real) + np.square(spectrum.imag)
    return squares


def _energy(spectrum: Spectra) -> float:
    return float(np.vdot(spectrum, spectrum).real)
