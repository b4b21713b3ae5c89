"""A line's troubles by what the engine sees ten times a second."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from sipagent.media.rings import FLAG_CONCEALED, FLAG_SILENCE, RX_FRAMES, Counter, Rings, create_memory
from sipagent.media.watch import Change, Trouble, Watch

LOOK_NS = 100_000_000
SPEECH, COMFORT_NOISE, A_LAW_SILENCE, DIGITAL_SILENCE = 20, 64, 72, 127  # -dBov


class Line:
    """One slot and time, moved on in looks."""

    def __init__(self, rings: Rings, slot: int = 3, *, wide: bool = False) -> None:
        self.rings, self.slot, self.wide = rings, slot, wide
        self.watch = Watch(rings)
        self.now = 10**12
        self.receiving = self.sending = True
        self.pausing = False
        self.changes: list[tuple[float, Change]] = []
        self.began = self.now
        self.watch.start(slot, self.now)

    def goes_on(self, seconds: float, *, level: int | None = SPEECH, flag: int = 0) -> "Line":
        """`level` of the frames that come; None when no packets do."""
        rings, slot = self.rings, self.slot
        for _ in range(round(seconds * 10)):
            self.now += LOOK_NS
            for _ in range(5):
                place = int(rings.rx_head[slot]) % (RX_FRAMES // 2 if self.wide else RX_FRAMES)
                rings.rx_level[slot, place] = DIGITAL_SILENCE if level is None else level
                rings.rx_flags[slot, place] = FLAG_SILENCE if level is None else flag
                rings.rx_head[slot] += 1
                rings.counters[slot, Counter.PACKETS_IN] += level is not None
                rings.counters[slot, Counter.PACKETS_OUT] += self.sending
            receiving, sending, pausing, wide = np.array(
                [[self.receiving], [self.sending], [self.pausing], [self.wide]]
            )
            for change in self.watch.look(np.array([slot]), receiving, sending, pausing, wide, self.now):
                self.changes.append(((self.now - self.began) / 1e9, change))
        return self

    def peer_reports(self, highest: int) -> "Line":
        self.watch.reported(self.slot, highest, self.now)
        return self

    @property
    def told(self) -> list[tuple[Trouble, bool]]:
        return [(change.trouble, change.active) for _, change in self.changes]


@pytest.fixture
def rings() -> Iterator[Rings]:
    fd = create_memory(8)
    yield Rings(fd, 8)
    os.close(fd)


@pytest.fixture
def line(rings: Rings) -> Line:
    return Line(rings)


def test_a_good_line_has_no_troubles(line: Line):
    assert line.goes_on(30).told == []


def test_no_packet_from_the_start_is_told_within_5_s_and_so_is_its_end(line: Line):
    line.goes_on(8, level=None).goes_on(2)
    (began, first), (ended, last) = line.changes
    assert (first.trouble, first.active, last.trouble, last.active) == (Trouble.NO_MEDIA, True, Trouble.NO_MEDIA, False)
    assert began <= 5.0
    assert 8.0 < ended <= 8.7
    assert last.seconds == pytest.approx(ended)


def test_packets_that_stop_in_mid_call(line: Line):
    line.goes_on(20).goes_on(5, level=None)
    assert line.told == [(Trouble.NO_MEDIA, True)]


def test_a_stray_packet_neither_ends_nor_repeats_a_trouble(line: Line):
    line.goes_on(6, level=None).goes_on(0.1).goes_on(6, level=None)
    assert line.told == [(Trouble.NO_MEDIA, True)]


def test_a_gap_of_4_s_is_no_trouble(line: Line):
    assert line.goes_on(5).goes_on(4, level=None).goes_on(5).told == []


@pytest.mark.parametrize("level", [DIGITAL_SILENCE, A_LAW_SILENCE])
def test_packets_of_silence(line: Line, level: int):
    line.goes_on(6, level=level).goes_on(2)
    assert line.told == [(Trouble.SILENT, True), (Trouble.SILENT, False)]
    assert line.changes[0][0] <= 5.0


def test_comfort_noise_is_not_silence(line: Line):
    assert line.goes_on(30, level=COMFORT_NOISE).told == []


def test_audio_invented_for_lost_packets_is_not_a_voice(line: Line):
    line.goes_on(4, level=DIGITAL_SILENCE).goes_on(0.3, level=SPEECH, flag=FLAG_CONCEALED)
    assert line.goes_on(1, level=DIGITAL_SILENCE).told == [(Trouble.SILENT, True)]


def test_a_wide_line_is_watched_where_its_frames_lie(rings: Rings):
    line = Line(rings, wide=True)
    assert line.goes_on(6, level=DIGITAL_SILENCE).told == [(Trouble.SILENT, True)]


def test_silence_that_stops_is_missing_media_and_no_longer_silence(line: Line):
    line.goes_on(6, level=DIGITAL_SILENCE).goes_on(6, level=None)
    assert line.told == [(Trouble.SILENT, True), (Trouble.SILENT, False), (Trouble.NO_MEDIA, True)]


def test_hold_misses_nothing_and_ends_what_was_wrong(line: Line):
    line.goes_on(6, level=None)
    line.receiving = False
    line.goes_on(20, level=None)
    assert line.told == [(Trouble.NO_MEDIA, True), (Trouble.NO_MEDIA, False)]
    line.receiving = True
    assert line.goes_on(4, level=None).told == [(Trouble.NO_MEDIA, True), (Trouble.NO_MEDIA, False)]
    assert line.goes_on(1, level=None).told[2:] == [(Trouble.NO_MEDIA, True)]


def test_an_announced_pause_may_be_long_but_not_endless(line: Line):
    line.goes_on(5)
    line.pausing = True
    assert line.goes_on(20, level=None).told == []
    assert line.goes_on(15, level=None).told == [(Trouble.NO_MEDIA, True)]


def test_a_peer_whose_reports_do_not_advance_does_not_hear_us(line: Line):
    line.goes_on(5).peer_reports(200).goes_on(5).peer_reports(450).goes_on(5).peer_reports(450).goes_on(0.1)
    assert line.told == [(Trouble.NOT_HEARD, True), (Trouble.ONE_WAY, True)]
    line.goes_on(5).peer_reports(700).goes_on(1)
    assert set(line.told[2:]) == {(Trouble.NOT_HEARD, False), (Trouble.ONE_WAY, False)}


def test_reports_that_follow_too_closely_prove_nothing(line: Line):
    line.goes_on(5).peer_reports(200).goes_on(0.5).peer_reports(200)
    assert line.goes_on(1).told == []


def test_while_nothing_is_sent_nothing_need_be_heard(line: Line):
    line.goes_on(5).peer_reports(200)
    line.sending = False
    assert line.goes_on(10).peer_reports(200).goes_on(1).told == []


def test_missing_media_of_a_peer_that_hears_us_is_one_way(line: Line):
    line.goes_on(5).peer_reports(200).goes_on(5).peer_reports(450)
    assert line.goes_on(5, level=None).told == [(Trouble.NO_MEDIA, True), (Trouble.ONE_WAY, True)]


def test_a_dead_peer_is_not_one_way(line: Line):
    assert line.goes_on(10, level=None).told == [(Trouble.NO_MEDIA, True)]


def test_a_slot_that_is_used_again_begins_without_troubles(line: Line):
    line.goes_on(6, level=None)
    line.watch.start(line.slot, line.now)
    assert line.goes_on(4, level=None).told == [(Trouble.NO_MEDIA, True)]
    assert line.goes_on(1, level=None).told == [(Trouble.NO_MEDIA, True)] * 2


def test_lines_are_watched_each_for_itself(rings: Rings):
    watch = Watch(rings)
    slots = np.arange(8)
    for slot in range(8):
        watch.start(slot, 0)
    yes, no = np.ones(8, np.bool_), np.zeros(8, np.bool_)
    changes: list[Change] = []
    for look in range(1, 50):
        rings.counters[::2, Counter.PACKETS_IN] += 5
        changes += watch.look(slots, yes, yes, no, no, look * LOOK_NS)
    assert [(change.slot, change.trouble) for change in changes] == [(slot, Trouble.NO_MEDIA) for slot in (1, 3, 5, 7)]


def test_one_who_listens_on_a_line_without_noise_is_no_trouble(rings: Rings):
    line = Line(rings)
    assert line.goes_on(2).told == []
    assert line.goes_on(25, level=DIGITAL_SILENCE).told == []
    assert line.goes_on(2).told == []
    assert line.goes_on(31, level=DIGITAL_SILENCE).told == [(Trouble.SILENT, True)]
