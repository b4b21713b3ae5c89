import os

import numpy as np
import pytest

from sipagent.media import g711
from sipagent.media.outgoing import Outgoing
from sipagent.media.rings import Rings, create_memory
from sipagent.media.rtp import PCMA, PCMU, RtpPacket

LOUD = np.full(160, 8031, np.int16)  # one of µ-law's and close to one of A-law's values


class Sender:
    def __init__(self, memory):
        self.rings = Rings(memory, 4)
        self.outgoing = Outgoing(self.rings)
        self.slots = np.array([1, 3])
        self.now = 0
        for slot in self.slots.tolist():
            self.outgoing.open(slot)

    def queue(self, slot, frames):
        head = int(self.rings.tx_head[slot])
        self.rings.tx_pcm[slot, head : head + frames] = LOUD
        self.rings.tx_head[slot] = head + frames

    def tick(self):
        """The packets sent by slots 1 and 3, None where none was."""
        self.now += 20_000_000
        sending = self.slots[self.outgoing.sending[self.slots]]
        self.outgoing.prepare(self.slots, sending, self.now)
        packets = {slot: RtpPacket.parse(self.outgoing.packets[slot].tobytes()) for slot in sending.tolist()}
        self.outgoing.sent(sending)
        return packets.get(1), packets.get(3)


@pytest.fixture
def sender():
    memory = create_memory(4)
    yield Sender(memory)
    os.close(memory)


def test_silence_is_sent_when_nothing_is_queued(sender):
    sender.outgoing.configure(1, PCMU, True)
    sender.outgoing.configure(3, PCMA, True)
    ulaw, alaw = sender.tick()
    assert (ulaw.payload_type, ulaw.payload) == (0, b"\xff" * 160)
    assert (alaw.payload_type, alaw.payload) == (8, b"\xd5" * 160)
    assert ulaw.ssrc != alaw.ssrc


def test_sequence_and_timestamp_never_break(sender):
    sender.rings.tx_sequence[1] = 65530
    sender.rings.tx_timestamp[1] = 0xFFFFFF00
    sender.outgoing.configure(1, PCMU, True)
    packets = []
    for n in range(20):
        if n in (3, 9):
            sender.queue(1, 4)
        packets.append(sender.tick()[0])
    assert [p.sequence for p in packets] == [65530 + n & 0xFFFF for n in range(20)]
    assert [p.timestamp for p in packets] == [0xFFFFFF00 + 160 * n & 0xFFFFFFFF for n in range(20)]
    loud = [p.payload == g711.encode(PCMU, LOUD).tobytes() for p in packets]
    assert loud == [n in (3, 4, 5, 6, 9, 10, 11, 12) for n in range(20)]
    assert [n for n, p in enumerate(packets) if p.marker] == [0, 3, 9]


def test_slots_talk_independently(sender):
    sender.outgoing.configure(1, PCMU, True)
    sender.outgoing.configure(3, PCMA, True)
    sender.queue(3, 1)
    ulaw, alaw = sender.tick()
    assert ulaw.payload == b"\xff" * 160
    assert alaw.payload == g711.encode(PCMA, LOUD).tobytes()
    assert sender.rings.tx_tail.tolist() == [0, 0, 0, 1]
    assert sender.rings.tx_sent[3, :2].tolist() == [sender.now, 0]


def test_hold_keeps_what_is_queued_and_time_goes_on(sender):
    sender.outgoing.configure(1, PCMU, True)
    before = sender.tick()[0]
    sender.queue(1, 2)
    sender.outgoing.configure(1, PCMU, False)
    assert [sender.tick()[0] for _ in range(5)] == [None] * 5
    assert sender.rings.tx_tail[1] == 0
    sender.outgoing.configure(1, PCMU, True)
    after = sender.tick()[0]
    assert after.sequence == before.sequence + 1 & 0xFFFF
    assert after.timestamp == before.timestamp + 6 * 160 & 0xFFFFFFFF
    assert after.marker and after.payload != b"\xff" * 160


def test_flush_drops_what_is_queued_and_says_where(sender):
    sender.outgoing.configure(1, PCMU, True)
    sender.queue(1, 10)
    for _ in range(3):
        sender.tick()
    sender.rings.tx_flush[1] = 8
    sender.outgoing.flush(sender.slots)
    assert (sender.rings.tx_cut[1], sender.rings.tx_tail[1]) == (3, 8)
    assert sender.tick()[0].payload != b"\xff" * 160  # queued after what was dropped
    assert sender.rings.tx_sent[1, :10].astype(bool).tolist() == [True] * 3 + [False] * 5 + [True, False]


def test_a_codec_change_in_mid_call_is_heard_at_once(sender):
    sender.outgoing.configure(1, PCMU, True)
    sender.tick()
    sender.outgoing.configure(1, PCMA, True)
    packet = sender.tick()[0]
    assert (packet.payload_type, packet.payload, packet.marker) == (8, b"\xd5" * 160, False)


def test_resume_counts_the_frames_that_were_missed(sender):
    sender.outgoing.configure(1, PCMU, True)
    before = sender.tick()[0]
    successor = Outgoing(sender.rings)
    successor.resume(1, 20_000_000 * 6)
    sender.outgoing = successor
    successor.configure(1, PCMU, True)
    after = sender.tick()[0]
    assert after.sequence == before.sequence + 1 & 0xFFFF
    assert after.timestamp == before.timestamp + 6 * 160 & 0xFFFFFFFF
    assert (after.ssrc, after.marker) == (before.ssrc, True)
