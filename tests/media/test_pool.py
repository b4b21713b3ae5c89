"""Several media processes: how many, which ports each has, and who gets the next call."""

from typing import Any

import pytest

from sipagent.core.errors import CapacityError
from sipagent.media.pool import MediaPool, process_count, split
from sipagent.media.rings import Header
from sipagent.media.settings import MediaSettings

SETTINGS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port_min": 44000,
    "port_max": 44039,
    "capacity": 4,
    "media_timeout_s": 0,
}


class Quiet:
    def emit(self, event):
        pass


@pytest.mark.parametrize(
    ("capacity", "cores", "count"),
    [(64, 2, 1), (64, 64, 1), (1000, 2, 1), (1000, 4, 2), (1000, 64, 3), (400, 8, 1), (401, 8, 2), (64, 1, 1)],
)
def test_auto_wants_a_process_for_every_400_calls_on_half_of_the_cores(capacity, cores, count):
    assert process_count(MediaSettings(capacity=capacity), cores) == count
    assert process_count(MediaSettings(capacity=capacity, processes=5), cores) == 5


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_parts_do_not_overlap_and_hold_all_calls(count):
    settings = MediaSettings(port_min=20001, port_max=22999, capacity=1000)
    parts = split(settings, count)
    ports = [port for part in parts for port in range(part.port_min, part.port_max + 1)]
    assert len(ports) == len(set(ports))
    assert min(ports) >= 20001 and max(ports) <= 22999
    assert sum(part.capacity for part in parts) >= 1000
    assert all(part.port_min % 2 == 0 for part in parts)


async def test_calls_go_to_the_process_with_the_least_to_do():
    pool = MediaPool(MediaSettings(**SETTINGS, processes=2), Quiet())
    await pool.start()
    try:
        assert len(set(pool.pids)) == 2
        ports = [await pool.open() for _ in range(4)]
        low = [port for port in ports if port.port < 44020]
        assert len(low) == 2, "two each"
        with pytest.raises(CapacityError, match="slots are in use"):
            await pool.open()
        await low[0].close()
        assert (await pool.open()).port < 44020, "the only one with room"
    finally:
        await pool.close()


async def test_none_is_accepted_past_the_limit():
    pool = MediaPool(MediaSettings(**SETTINGS, processes=2, max_load=0.5), Quiet())
    await pool.start()
    try:
        first, second = pool._clients
        first._load, second._load = 0.6, 0.4
        port = await pool.open()
        assert port.port >= 44020, "the other one"
        second._load = 0.6
        with pytest.raises(CapacityError, match="60% of a core, and 50% is the limit"):
            await pool.open()
    finally:
        await pool.close()


async def test_the_load_is_the_share_of_a_core_measured_since_the_last_look():
    pool = MediaPool(MediaSettings(**SETTINGS, processes=1), Quiet())
    await pool.start()
    try:
        (client,) = pool._clients
        assert client.load == 0
        await pool.open()
        before = client._cpu
        client._rings.header[Header.CPU_NS] = before[1] + 10**9
        client._watch()
        assert client.load == pytest.approx(1e9 / (client._cpu[0] - before[0]))
    finally:
        await pool.close()


async def test_a_port_beside_another_is_in_its_process_so_that_they_can_be_joined():
    pool = MediaPool(MediaSettings(**SETTINGS | {"capacity": 8}, processes=2), Quiet())
    await pool.start()
    try:
        one = await pool.open()
        others = [await pool.open(beside=one) for _ in range(3)]
        for other in others:
            one.hear(other)
        with pytest.raises(CapacityError):
            await pool.open(beside=one)
        with pytest.raises(ValueError, match="its own media process"):
            one.hear(await pool.open())
        await one.close()
        with pytest.raises(CapacityError, match="is closed"):
            await pool.open(beside=one)
    finally:
        await pool.close()
