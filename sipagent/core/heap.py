"""How the C library keeps memory."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE = 64 * 1024  # bytes
_TOP = 128 * 1024


def give_large_blocks_back() -> None:
    """Large blocks go back to the system when they are freed.

    Left to itself glibc raises the size from which it does that with every large block it sees, and the audio arrays of
    calls long over would stay in the heap: 80 kB a call, for some hundred calls. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _TOP)
