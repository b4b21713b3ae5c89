"""What is done about silence while the caller waits."""

from sipagent.conversation.dead_air import Act, DeadAir

MS = 1_000_000
ORDER = (Act.PROVIDER, Act.FILLER, Act.SORRY, Act.TRANSFER, Act.GOODBYE)


class Line:
    """Ticks of 20 ms; whatever is said lasts a second."""

    def __init__(self, dead_air: DeadAir) -> None:
        self.dead_air = dead_air
        self.now = 1_000_000 * MS
        self.since = 0
        self.speaks_until = 0
        self.done: list[tuple[int, Act]] = []
        self.longest_ms = 0
        self._silent_since = 0

    def caller_has_finished(self) -> None:
        self.since = self.began = self.now
        self._silent_since = self.now

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.now += 20 * MS
            audible = self.now < self.speaks_until
            for act in self.dead_air.tick(self.now, waiting_since=self.since, audible=audible):
                self.done.append(((self.now - self.began) // MS, act))
                if act is not Act.PROVIDER:
                    self.speaks_until = self.now + 1000 * MS
            if audible or not self.since:
                self._silent_since = self.now
            self.longest_ms = max(self.longest_ms, (self.now - self._silent_since) // MS)


def test_one_thing_after_another_and_never_silence_beyond_the_bound():
    line = Line(DeadAir(ORDER, 1800, fillers=2))
    line.caller_has_finished()
    line.run(20)
    assert [act for _, act in line.done] == [
        *(Act.PROVIDER, Act.FILLER, Act.FILLER, Act.SORRY, Act.TRANSFER, Act.GOODBYE)
    ]
    assert [at for at, _ in line.done[:3]] == [1800, 1800, 4580]
    line = Line(DeadAir(ORDER, 1800, fillers=2))
    line.caller_has_finished()
    line.run(13)
    assert line.longest_ms <= 1820


def test_the_callers_silence_is_no_dead_air():
    line = Line(DeadAir(ORDER, 1800))
    line.run(30)
    assert line.done == []


def test_a_gap_in_the_middle_of_an_answer_counts_from_the_last_word():
    line = Line(DeadAir(ORDER, 1800))
    line.caller_has_finished()
    line.run(1)
    line.speaks_until = line.now + 2000 * MS
    line.dead_air.answered()
    line.run(3.5)
    assert line.done == []
    line.run(0.5)
    assert [act for _, act in line.done] == [Act.PROVIDER, Act.FILLER]


def test_an_answer_starts_the_order_over():
    line = Line(DeadAir(ORDER, 1800))
    for _ in range(2):
        line.caller_has_finished()
        line.run(2)
        line.dead_air.answered()
        line.since = 0
        line.run(2)
    assert [act for _, act in line.done] == [Act.PROVIDER, Act.FILLER] * 2


def test_turns_that_fail_in_a_row_lead_to_the_last_resort():
    dead_air = DeadAir(ORDER, 1800)
    assert dead_air.failed() == []
    assert dead_air.failed() == [Act.TRANSFER]
    dead_air.used(Act.TRANSFER)  # it led back to the agent
    assert dead_air.failed() == []
    assert dead_air.failed() == [Act.GOODBYE]


def test_an_answer_between_two_failures_is_forgiven():
    dead_air = DeadAir(ORDER, 1800)
    assert dead_air.failed() == []
    dead_air.answered()
    assert dead_air.failed() == []


def test_an_empty_order_does_nothing():
    dead_air = DeadAir((), 1800)
    assert dead_air.tick(9_000 * MS, waiting_since=1, audible=False) == []
    assert dead_air.failed() == dead_air.failed() == []
