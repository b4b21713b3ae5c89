"""What is on the wire: RTP packets on the loopback interface, captured with the kernel's time stamps."""

import ctypes
import socket
import struct
import threading
import time
from dataclasses import dataclass

import numpy as np

from sipagent.media import g711

ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
SO_ATTACH_FILTER = 26


@dataclass(frozen=True, slots=True)
class Packet:
    at: float  # seconds, wall clock of the kernel
    source: int  # UDP ports
    target: int
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    @property
    def loud(self) -> bool:
        """Speech rather than silence: RMS of the decoded payload above -45 dBFS."""
        pcm = g711.decode(self.payload_type, np.frombuffer(self.payload, np.uint8)).astype(np.float64)
        return bool(len(pcm)) and float(np.sqrt(np.mean(pcm**2))) > 184.0


class Capture:
    """``with Capture(low, high) as wire:`` collects RTP whose source or target port is within the range. Needs root."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        self.packets: list[Packet] = []
        self._stop = threading.Event()
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        except PermissionError as error:
            raise AssertionError("capturing packets needs root (CAP_NET_RAW): run the tests as root") from error
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, self._filter(low, high))
        self._socket.bind(("lo", ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._run, name="capture")

    def __enter__(self) -> "Capture":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.1)
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _filter(self, low: int, high: int) -> bytes:
        """A classic BPF program: UDP with a port within the range, so that other tests' floods do not push ours out."""
        program = [
            (0x30, 0, 0, 9),  # protocol
            (0x15, 0, 8, socket.IPPROTO_UDP),
            (0xB1, 0, 0, 0),  # X = length of the IP header
            (0x48, 0, 0, 0),  # source port
            (0x35, 0, 1, low),
            (0x25, 0, 3, high),
            (0x48, 0, 0, 2),  # target port
            (0x35, 0, 2, low),
            (0x25, 1, 0, high),
            (0x06, 0, 0, 0xFFFF),  # take it
            (0x06, 0, 0, 0),  # leave it
        ]
        code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
        self._program = ctypes.create_string_buffer(code, len(code))  # the kernel reads it during setsockopt
        return struct.pack("HL", len(program), ctypes.addressof(self._program))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                data, ancillary, _, address = self._socket.recvmsg(4096, 128)
            except TimeoutError:
                continue
            if address[2] == socket.PACKET_OUTGOING:  # loopback shows each packet twice
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
            packet = self._parse(data, seconds + nanoseconds / 1e9)
            if packet is not None:
                self.packets.append(packet)

    def _parse(self, data: bytes, at: float) -> Packet | None:
        if len(data) < 40 or data[0] >> 4 != 4 or data[9] != socket.IPPROTO_UDP:
            return None
        udp = data[(data[0] & 15) * 4 :]
        source, target = struct.unpack_from(">HH", udp)
        rtp = udp[8:]
        if not (self._low <= source <= self._high or self._low <= target <= self._high):
            return None
        if len(rtp) < 12 or rtp[0] >> 6 != 2 or 192 <= rtp[1] <= 223:  # the last is RTCP (RFC 5761 section 4)
            return None
        sequence, timestamp, ssrc = struct.unpack_from(">HII", rtp, 2)
        return Packet(at, source, target, rtp[1] & 127, sequence, timestamp, ssrc, rtp[12:])
