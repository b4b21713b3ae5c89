"""Free ports on 127.0.0.1, outside the range the kernel hands out by itself."""

import os
import random
import socket

_FIRST, _LAST = 15000, 31000
_next = _FIRST + (os.getpid() * 97 + random.randrange(1000)) % (_LAST - _FIRST)


def free_port() -> int:
    """A port that is free for UDP and TCP, and not given twice in this process."""
    return free_block(1)


def free_block(count: int) -> int:
    """The first of so many ports in a row, even, as RTP likes it."""
    global _next
    for _ in range(2000):
        first = _next + _next % 2
        if first + count > _LAST:
            first = _FIRST
        _next = first + count
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise RuntimeError("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
