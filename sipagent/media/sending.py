"""What leaves on a line whose packets are made one by one: keys, tones, G.722, SRTP.

All other lines' packets are made in arrays (`outgoing`).
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sipagent.media.line import Line
from sipagent.media.mixing import Mixing
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import DigitsSent, Notice, SendDigits
from sipagent.media.rates import saturated
from sipagent.media.rings import Counter, Rings
from sipagent.media.rtp import RATE
from sipagent.media.sockets import CallSockets
from sipagent.media.srtp import Refused
from sipagent.media.telephone_event import PAUSE, QUEUED, EventSender
from sipagent.media.tones import tones

NOTED = 63  # of the sequence: how far an encrypted call has come is written down every 64 packets, 1.3 s


class Sending:
    """`by_packet` [C] says which slots these are; `changed` is called when that may be others."""

    def __init__(
        self,
        rings: Rings,
        sockets: CallSockets,
        outgoing: Outgoing,
        mixing: Mixing,
        notify: Callable[[Notice], None],
        changed: Callable[[], None],
    ) -> None:
        self._rings = rings
        self._counters = rings.counters
        self._sockets = sockets
        self._outgoing = outgoing
        self._mixing = mixing
        self._notify = notify
        self._changed = changed
        self.by_packet = np.zeros(rings.capacity, np.bool_)

    def connect(self, slot: int, line: Line) -> None:
        """After every change of what the peer understands."""
        assert line.connect is not None
        if line.connect.telephone_event < 0 and line.keypad.active:
            line.keypad = EventSender()  # the peer would not understand the keys that wait
            self._pressed_all(slot, line)
        self._serve(slot, line)

    def press(self, line: Line, command: SendDigits) -> None:
        """Queues keys; more than `QUEUED` are not taken."""
        assert line.connect is not None
        if line.connect.telephone_event >= 0:
            with suppress(ValueError):
                line.keypad.queue(command.digits, command.duration_ms, command.gap_ms)
        elif len(line.tone_keys) + len(command.digits) <= QUEUED:
            line.tone_keys.extend((key, command.duration_ms, command.gap_ms) for key in command.digits)
        self._serve(command.slot, line)

    def transmit(self, slot: int, line: Line, now_ns: int) -> None:
        """The next packet; time passes for the line."""
        outgoing = self._outgoing
        assert line.connect is not None
        outgoing.left[slot] = -1
        if outgoing.sending[slot] and self._sockets.aimed(slot):
            timestamp, pressing = int(self._rings.tx_timestamp[slot]), line.keypad.active
            pressed = line.keypad.packets(timestamp, line.connect.telephone_event) if pressing else None
            if pressed is not None:
                for event in pressed:
                    self._send(
                        slot,
                        line,
                        outgoing.packet(slot, event.payload_type, event.payload, event.marker, event.timestamp),
                    )
            else:
                marker, payload = self._frame(slot, line, now_ns)
                self._send(slot, line, outgoing.packet(slot, line.codec.payload_type, payload, marker))
            if pressing and not line.keypad.active:
                self._pressed_all(slot, line)
        outgoing.advance(slot)

    def _serve(self, slot: int, line: Line) -> None:
        """Who makes this slot's outgoing packets."""
        pressing = line.keypad.active or line.toning
        self.by_packet[slot] = line.codec.rate != RATE or line.srtp is not None or pressing
        if pressing:
            self._outgoing.silence(slot)  # the packet that waits in the array holds a frame that has been sent
        self._changed()

    def _frame(self, slot: int, line: Line, now_ns: int) -> tuple[bool, bytes]:
        """Whether it begins a talkspurt, and 20 ms of what this line sends.

        That is keys as tones, else what is queued and what others say, else silence.
        """
        samples, outgoing, mixing = line.codec.frame, self._outgoing, self._mixing
        if line.toning:
            pcm, heard = self._tone(slot, line), None
        else:
            # What is queued does not leave between two keys either.
            pcm = outgoing.take(slot, samples, now_ns) if not line.keypad.active else None
            heard = mixing.heard_by(slot, samples)
        marker = outgoing.begins(slot, pcm is not None or (heard is not None and bool(mixing.voiced[slot])))
        if heard is not None:
            pcm = heard if pcm is None else saturated(pcm.astype(np.int32) + heard)
            outgoing.note(slot, pcm)
        if pcm is None:
            # An encoder with state has to hear the silence too.
            pcm = np.zeros(samples, np.int16)
        return marker, line.encoder.encode(pcm)

    def _tone(self, slot: int, line: Line) -> NDArray[np.int16] | None:
        """The next 20 ms of the keys that are sent as tones."""
        frame = line.codec.frame
        if not len(line.tone):
            key, duration_ms, gap_ms = line.tone_keys.popleft()
            made = tones(key, duration_ms, gap_ms, line.codec.rate)
            line.tone = np.pad(made, (0, -len(made) % frame))
            self._counters[slot, Counter.DIGITS_OUT] += key != PAUSE
        pcm, line.tone = line.tone[:frame], line.tone[frame:]
        if not line.toning:
            self._pressed_all(slot, line)
        return pcm

    def _send(self, slot: int, line: Line, packet: bytes) -> None:
        if line.srtp is not None:
            try:
                packet = line.srtp.protect(packet)
            except Refused:
                self._counters[slot, Counter.SEND_ERRORS] += 1
                return
            if not packet[3] & NOTED:
                self._rings.srtp[slot] = line.srtp.progress
        self._sockets.send_one(slot, packet)

    def _pressed_all(self, slot: int, line: Line) -> None:
        self._counters[slot, Counter.DIGITS_OUT] += line.keypad.completed
        line.keypad.completed = 0
        if line.asked:
            line.asked = False
            self._notify(DigitsSent(slot=slot))
        self._serve(slot, line)
