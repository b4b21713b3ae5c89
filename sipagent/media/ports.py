"""Which UDP port the next call gets. Plain decisions: binding is the caller's business, time is an argument."""

from collections import deque


class PortAllocator:
    """Even ports of a range (RFC 3550 section 11: RTP takes the even one), in turn, each resting after use.

    ``start`` is where the turn begins: a random one keeps a restarted process away from ports used just before.
    """

    def __init__(self, port_min: int, port_max: int, quarantine_s: float, start: int = 0) -> None:
        first = port_min + port_min % 2
        self._ports = range(first, port_max + 1, 2)
        self._next = start % len(self._ports) if self._ports else 0
        self._quarantine_ns = int(quarantine_s * 1e9)
        self._used: set[int] = set()
        self._resting: deque[tuple[int, int]] = deque()  # (when free, port), oldest first; bounded by the range
        self.bind_failures = 0

    def take(self, now_ns: int) -> int | None:
        """The next free port, now in use; None when every port is used or resting."""
        self._wake(now_ns)
        for step in range(len(self._ports)):
            port = self._ports[(self._next + step) % len(self._ports)]
            if port not in self._used:
                self._next = (self._next + step + 1) % len(self._ports)
                self._used.add(port)
                return port
        return None

    def take_exactly(self, port: int) -> None:
        """Marks a port as used whatever its state: a call that goes on after a restart keeps its own."""
        self._used.add(port)
        self._resting = deque(entry for entry in self._resting if entry[1] != port)

    def release(self, port: int, now_ns: int) -> None:
        """The call is over; the port rests before it is given out again."""
        self._resting.append((now_ns + self._quarantine_ns, port))

    def failed(self, port: int, now_ns: int) -> None:
        """Somebody else holds the port: counted, and tried again after the same rest."""
        self.bind_failures += 1
        self.release(port, now_ns)

    def _wake(self, now_ns: int) -> None:
        while self._resting and self._resting[0][0] <= now_ns:
            self._used.discard(self._resting.popleft()[1])
