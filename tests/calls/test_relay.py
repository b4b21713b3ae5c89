"""Two calls in different media processes, joined: real engines, real RTP."""

import numpy as np

from sipagent.calls.relay import way_between
from sipagent.media.g711 import decode, encode
from sipagent.media.pool import MediaPool
from sipagent.media.settings import MediaSettings
from tests.media.peer import Events, Listener, Peer
from tests.peers.ports import free_block
from tests.wait import until

EVENT = 101


def loud(phone: Peer) -> int:
    """Packets in which somebody is heard."""
    voices = (packet.payload for packet in phone.received if packet.payload_type == 0)
    return sum(int(np.abs(decode(0, np.frombuffer(voice, np.uint8))).max() > 2000) for voice in voices)


async def test_two_media_processes_hear_each_other_by_a_way_between_them():
    first = free_block(64)
    settings = MediaSettings(host="127.0.0.1", port_min=first, port_max=first + 63, capacity=8, processes=2)
    pool = MediaPool(settings, Events())
    phones = [Peer(ssrc=1), Peer(ssrc=2)]
    await pool.start()
    try:
        ports = [await pool.open() for _ in phones]
        for port, phone in zip(ports, phones, strict=True):
            phone.target = (port.host, port.port)
            port.connect(phone.host, phone.port, 0, EVENT, telephone_event_in=EVENT)
        assert not pool.beside(*ports)
        assert pool.beside(ports[0], ports[0])
        listeners = [Listener(port) for port in ports]
        async with way_between(pool, *ports) as ends:
            for port, end in zip(ports, ends, strict=True):
                assert pool.beside(port, end.port)
                end.port.hear(port)
                port.hear(end.port)
            for listener in listeners:
                await listener.until(lambda: bool(listener.batches), 20)  # noqa: B023
            tone = (8000 * np.sin(2 * np.pi * 400 / 8000 * np.arange(160 * 50))).astype(np.int16)
            for one, other in (phones, reversed(phones)):
                await one.paced([one.packet(encode(0, frame).tobytes(), skip=True) for frame in tone.reshape(-1, 160)])
                await until(lambda: loud(other) > 25, "the other's voice", 20)  # noqa: B023
                one.key(5)
                await until(lambda: any(p.payload_type == EVENT for p in other.received), "a key", 20)  # noqa: B023
            assert all(loud(phone) <= 60 for phone in phones), "nobody hears themselves"
        for client in pool._clients:
            assert client.calls == 1, "nothing is left of the way"
    finally:
        await pool.close()
        for phone in phones:
            phone.close()
