"""PJMEDIA's own stream with simulated time, by ctypes into the library inside the pjsua2 wheel.

A `pjmedia_stream` (jitter buffer with its defaults, adaptive with progressive discard; PCMU decoder with PLC) is
attached to PJMEDIA's loop transport. Packets go in through the transport's `send_rtp`, frames come out of the stream's
port, both when the simulation says so: neither the jitter buffer nor the concealment reads a clock, they count frames.
"""

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={}\r\n"
)
_SEND_RTP = 3  # index in pjmedia_transport_op
_OP_OFFSET = 40  # of `op` in pjmedia_transport: name[32], type


class _Frame(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("buf", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("timestamp", ctypes.c_uint64),
        ("bit_info", ctypes.c_uint32),
    ]


class Pjmedia:
    """The library, once per process."""

    def __init__(self) -> None:
        import pjsua2

        package = Path(pjsua2.__file__).parent
        self.lib = ctypes.CDLL(str(next(package.glob("_pjsua2*.so"))))
        self._buffer = ctypes.create_string_buffer(1 << 16)
        self._check(self.lib.pj_init())
        self.lib.pj_log_set_level(0)
        policy = ctypes.c_char.in_dll(self.lib, "pj_pool_factory_default_policy")
        self.lib.pj_caching_pool_init(self._buffer, ctypes.byref(policy), ctypes.c_size_t(0))
        self.lib.pj_pool_create.restype = ctypes.c_void_p
        self.endpoint = ctypes.c_void_p()
        self._check(self.lib.pjmedia_endpt_create2(self._buffer, None, 0, ctypes.byref(self.endpoint)))
        self._check(self.lib.pjmedia_codec_g711_init(self.endpoint))
        self._check(self.lib.pjmedia_event_mgr_create(self.pool(), 1, None))  # 1: without a thread

    def pool(self) -> ctypes.c_void_p:
        size = ctypes.c_size_t
        return ctypes.c_void_p(self.lib.pj_pool_create(self._buffer, b"bench", size(64000), size(64000), None))

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"PJMEDIA refused: status {status}")


class Stream:
    """One receiving stream; `receive` a packet, `play` a frame."""

    def __init__(self, media: Pjmedia) -> None:
        lib = self._lib = media.lib
        self._pool = media.pool()
        sdps = []
        for direction in ("recvonly", "sendonly"):
            text = ctypes.create_string_buffer(_SDP.format(direction).encode())
            parsed = ctypes.c_void_p()
            media._check(
                lib.pjmedia_sdp_parse(self._pool, text, ctypes.c_size_t(len(text.value)), ctypes.byref(parsed))
            )
            sdps.append((text, parsed))
        info = ctypes.create_string_buffer(1 << 16)
        media._check(lib.pjmedia_stream_info_from_sdp(info, self._pool, media.endpoint, sdps[0][1], sdps[1][1], 0))
        self._transport = ctypes.c_void_p()
        media._check(lib.pjmedia_transport_loop_create(media.endpoint, ctypes.byref(self._transport)))
        self._stream = ctypes.c_void_p()
        media._check(
            lib.pjmedia_stream_create(
                media.endpoint, self._pool, info, self._transport, None, ctypes.byref(self._stream)
            )
        )
        media._check(lib.pjmedia_stream_start(self._stream))
        self._port = ctypes.c_void_p()
        media._check(lib.pjmedia_stream_get_port(self._stream, ctypes.byref(self._port)))
        operations = _pointer_at((self._transport.value or 0) + _OP_OFFSET)
        address = _pointer_at(operations + _SEND_RTP * ctypes.sizeof(ctypes.c_void_p))
        self._send = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)(address)
        self._frame_buffer = np.zeros(160, np.int16)
        self._frame = _Frame()
        self._timestamp = 0

    def receive(self, packet: bytes) -> None:
        self._send(self._transport, packet, len(packet))

    def play(self) -> NDArray[np.int16]:
        self._frame_buffer[:] = 0
        self._frame.type = 1
        self._frame.buf = self._frame_buffer.ctypes.data
        self._frame.size = 320
        self._frame.timestamp = self._timestamp
        self._timestamp += 160
        self._lib.pjmedia_port_get_frame(self._port, ctypes.byref(self._frame))
        if self._frame.type != 1:
            return np.zeros(160, np.int16)
        return self._frame_buffer.copy()

    def concealed(self) -> int:
        """Frames for which the jitter buffer had nothing: lost or empty, by its own count."""
        state = (ctypes.c_uint * 64)()
        self._lib.pjmedia_stream_get_stat_jbuf(self._stream, state)
        lost, _, empty = state[12:15]
        return lost + empty

    def close(self) -> None:
        self._lib.pjmedia_stream_destroy(self._stream)
        self._lib.pj_pool_release(self._pool)


def _pointer_at(address: int) -> int:
    return ctypes.c_void_p.from_address(address).value or 0
