"""One kind of work of a speech worker: a thread, its bounded queues, and the rule of who goes first."""

import threading
from collections import deque
from collections.abc import Callable

from sipagent.core import errors
from sipagent.speech.protocol import AnyReply, Dropped, Failed, Request

QUEUE = 64  # requests that must be answered; more are refused (retryable), main has other workers or another voice
INTERIMS = 4  # interim transcripts waiting; the newest is dropped, its caller will ask again within the second


class Lane:
    """Answers requests one after another by `handle`; what must be answered goes before what may be dropped.

    A request that fails is answered by Failed: the thread never ends by an error.
    """

    def __init__(self, name: str, handle: Callable[[Request], AnyReply], send: Callable[[AnyReply], None]) -> None:
        self._handle = handle
        self._send = send
        self._must: deque[Request] = deque()
        self._may: deque[Request] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, request: Request, *, droppable: bool = False) -> None:
        queue, bound = (self._may, INTERIMS) if droppable else (self._must, QUEUE)
        with self._changed:
            accepted = len(queue) < bound
            if accepted:
                queue.append(request)
                self._changed.notify()
        if not accepted and droppable:
            self._send(Dropped(id=request.id))
        elif not accepted:
            self._send(Failed(id=request.id, reason=f"more than {QUEUE} requests are waiting", retryable=True))

    def cancel(self, request_id: int) -> None:
        with self._changed:
            for queue in (self._must, self._may):
                for request in queue:
                    if request.id == request_id:
                        queue.remove(request)
                        return

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._must or self._may)
                request = (self._must or self._may).popleft()
            try:
                reply = self._handle(request)
            except Exception as error:  # whatever a model library raises, the next request deserves its answer
                reply = Failed(id=request.id, reason=errors.where(error))
            try:
                self._send(reply)
            except Exception as error:  # it is larger than a message may be
                self._send(Failed(id=request.id, reason=errors.where(error)))
