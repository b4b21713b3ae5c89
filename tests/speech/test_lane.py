"""Who goes first, who is dropped, and that nothing ends the thread."""

import queue
import threading

import pytest

from sipagent.core.ipc import MAX_MESSAGE, frame
from sipagent.speech.lane import INTERIMS, QUEUE, Lane
from sipagent.speech.protocol import AnyReply, Dropped, Embed, Embedded, Failed, Request


class Scripted:
    """A lane whose first request (id 0) holds until `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.holding = threading.Event()
        self.replies: queue.Queue[AnyReply] = queue.Queue()
        self.lane = Lane("test", self._handle, self._send)
        self.lane.put(Embed(id=0, texts=[]))
        assert self.holding.wait(5)

    def _handle(self, request: Request) -> AnyReply:
        if request.id == 0:
            self.holding.set()
            assert self.go.wait(5)
        if request.id == 13:
            raise RuntimeError("the model fell over")
        vectors = bytes(MAX_MESSAGE + 1) if request.id == 14 else b""
        return Embedded(id=request.id, vectors=vectors, dimension=1)

    def _send(self, reply: AnyReply) -> None:
        if isinstance(reply, Embedded):
            frame(reply.vectors)
        self.replies.put(reply)

    def put(self, *ids: int, droppable: bool = False) -> None:
        for request_id in ids:
            self.lane.put(Embed(id=request_id, texts=[]), droppable=droppable)

    def answers(self, count: int) -> list[AnyReply]:
        return [self.replies.get(timeout=5) for _ in range(count)]


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


def test_what_must_be_answered_goes_first(scripted: Scripted) -> None:
    scripted.put(1, 2, droppable=True)
    scripted.put(3, 4)
    scripted.go.set()
    assert [reply.id for reply in scripted.answers(5)] == [0, 3, 4, 1, 2]


def test_the_newest_interim_is_dropped_when_too_many_wait(scripted: Scripted) -> None:
    scripted.put(*range(1, INTERIMS + 2), droppable=True)
    assert scripted.answers(1) == [Dropped(id=INTERIMS + 1)]
    scripted.go.set()
    assert [reply.id for reply in scripted.answers(INTERIMS + 1)] == list(range(INTERIMS + 1))


def test_a_full_queue_refuses(scripted: Scripted) -> None:
    scripted.put(*range(100, 100 + QUEUE + 1))
    (refusal,) = scripted.answers(1)
    assert isinstance(refusal, Failed) and refusal.id == 100 + QUEUE and refusal.retryable


def test_a_cancelled_request_is_not_begun(scripted: Scripted) -> None:
    scripted.put(1, 2)
    scripted.lane.cancel(1)
    scripted.lane.cancel(77)  # unknown: nothing happens
    scripted.go.set()
    assert [reply.id for reply in scripted.answers(2)] == [0, 2]


def test_a_failing_request_is_answered_and_the_next_one_served(scripted: Scripted) -> None:
    scripted.put(13, 2)
    scripted.go.set()
    _, failed, served = scripted.answers(3)
    assert isinstance(failed, Failed) and "RuntimeError" in failed.reason
    assert served.id == 2


def test_an_answer_too_large_to_send_is_answered_and_the_next_one_served(scripted: Scripted) -> None:
    scripted.put(14, 2)
    scripted.go.set()
    _, failed, served = scripted.answers(3)
    assert isinstance(failed, Failed) and failed.id == 14 and "ValueError" in failed.reason
    assert served.id == 2
