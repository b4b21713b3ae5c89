"""Junk at a steady rate to one UDP port, for tests/media/test_flood.py and for trying by hand.

    python -m bench.fuzz_flood 127.0.0.1 20000 --seconds 3
    python -m bench.fuzz_flood 127.0.0.1 20000 --fd 5 --ssrc 0x5eed    from an inherited socket, as that SSRC

Half of the datagrams are random bytes of any length; the others have a valid header, random sequence numbers and
timestamps, and with RTCP's types where `--control` says so. Prints how many were sent and how long it took.
"""

import argparse
import ctypes
import errno
import random
import socket
import struct
import time

BATCH = 64
RATE = 50_000  # a second
_libc = ctypes.CDLL(None, use_errno=True)


class _Part(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [
        *(("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("parts", ctypes.POINTER(_Part))),
        *(("part_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t)),
        *(("flags", ctypes.c_int), ("length", ctypes.c_uint32)),
    ]


def junk(rng: random.Random, ssrc: int, control: bool) -> bytes:
    if rng.random() < 0.5:
        return rng.randbytes(rng.choice((1, 12, 172, 400)))
    if control:
        words = rng.choice((1, 6, 20))
        return struct.pack(">BBHI", 0x80, rng.choice((200, 201)), words, ssrc) + rng.randbytes(4 * words - 4)
    head = struct.pack(">BBHII", 0x80, rng.choice((0, 0, 13, 101)), rng.getrandbits(16), rng.getrandbits(32), ssrc)
    return head + rng.randbytes(rng.choice((4, 80, 160, 160, 480)))


def flood(sock: socket.socket, target: tuple[str, int], seconds: float, rate: int, ssrc: int, control: bool) -> int:
    """Datagrams sent."""
    rng = random.Random(ssrc)
    name = ctypes.create_string_buffer(
        struct.pack("=H", socket.AF_INET) + struct.pack(">H", target[1]) + socket.inet_aton(target[0]) + bytes(8)
    )
    datagrams = [junk(rng, ssrc, control) for _ in range(64 * BATCH)]
    parts = (_Part * len(datagrams))(*(_Part(data, len(data)) for data in datagrams))
    messages = (_Message * len(datagrams))()
    for message, part in zip(messages, parts, strict=True):
        message.name, message.name_size = ctypes.addressof(name), 16
        message.parts, message.part_count = ctypes.pointer(part), 1
    sent, begin = 0, time.monotonic()
    while (elapsed := time.monotonic() - begin) < seconds:
        if sent >= elapsed * rate:
            time.sleep(0.001)
            continue
        at = ctypes.byref(messages, sent // BATCH * BATCH % len(messages) * ctypes.sizeof(_Message))
        done = _libc.sendmmsg(sock.fileno(), at, BATCH, 0)
        if done < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.ECONNREFUSED):
            raise OSError(ctypes.get_errno(), "sendmmsg")
        sent += max(done, 0)
    return sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--ssrc", type=lambda text: int(text, 0), default=0xBAD)
    parser.add_argument("--fd", type=int, default=-1, help="descriptor of the socket to send from")
    parser.add_argument("--control", action="store_true", help="RTCP")
    options = parser.parse_args()
    sock = socket.socket(fileno=options.fd) if options.fd >= 0 else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    target = options.host, options.port
    print("begin", flush=True)
    begin = time.monotonic()
    sent = flood(sock, target, options.seconds, options.rate, options.ssrc, options.control)
    print(f"{sent} {time.monotonic() - begin:.2f}", flush=True)


if __name__ == "__main__":
    main()
