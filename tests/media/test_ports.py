from sipagent.media.ports import PortAllocator

S = 1_000_000_000


def test_even_ports_in_turn():
    ports = PortAllocator(20001, 20007, 30.0)
    assert [ports.take(0) for _ in range(4)] == [20002, 20004, 20006, None]


def test_a_used_port_rests():
    ports = PortAllocator(20000, 20003, 30.0)
    assert ports.take(0) == 20000
    ports.release(20000, 10 * S)
    assert [ports.take(11 * S), ports.take(11 * S)] == [20002, None]
    assert ports.take(40 * S - 1) is None
    assert ports.take(40 * S) == 20000


def test_the_turn_goes_on_after_a_free_port():
    ports = PortAllocator(20000, 20009, 0.0)
    assert ports.take(0) == 20000
    ports.release(20000, 0)
    assert ports.take(1) == 20002  # though 20000 is free again


def test_bind_failures_are_counted_and_rest_too():
    ports = PortAllocator(20000, 20003, 30.0, start=1)
    assert ports.take(0) == 20002
    ports.failed(20002, 0)
    assert [ports.take(1), ports.take(1), ports.bind_failures] == [20000, None, 1]
    assert ports.take(30 * S) == 20002


def test_a_resumed_call_keeps_its_port():
    ports = PortAllocator(20000, 20003, 30.0)
    ports.take(0)
    ports.release(20000, 0)
    ports.take_exactly(20000)
    assert [ports.take(60 * S), ports.take(60 * S)] == [20002, None]
