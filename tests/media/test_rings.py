import os

import numpy as np
import pytest

from sipagent.media.rings import RX_FRAMES, TX_FRAMES, Rings, create_memory


@pytest.fixture
def memory():
    fd = create_memory(3)
    yield fd
    os.close(fd)


def used_bytes(fd):
    return os.fstat(fd).st_blocks * 512


def test_two_views_see_one_another(memory):
    main, media = Rings(memory, 3), Rings(memory, 3)
    main.tx_pcm[2, 7] = np.arange(160)
    main.tx_head[2] = 8
    assert media.tx_head.tolist() == [0, 0, 8]
    assert media.tx_pcm[2, 7].tolist() == list(range(160))
    assert not media.tx_pcm[1].any() and not media.rx_pcm.any()


def test_fields_do_not_overlap(memory):
    rings = Rings(memory, 3)
    names = [name for name in Rings.__annotations__ if name != "header"]
    for value, name in enumerate(names, start=1):
        getattr(rings, name)[:] = value
    assert [int(getattr(rings, name).max()) for name in names] == list(range(1, len(names) + 1))
    assert [int(getattr(rings, name).min()) for name in names] == list(range(1, len(names) + 1))
    Rings(memory, 3)  # the header is untouched


def test_untouched_slots_cost_nothing_and_used_ones_are_given_back(memory):
    before = used_bytes(memory)
    assert before < 50_000
    rings = Rings(memory, 3)
    rings.tx_pcm[1] = 1
    rings.rx_pcm[1] = 1
    rings.rx_pcm[0, 0] = 1
    assert used_bytes(memory) - before >= (TX_FRAMES + RX_FRAMES) * 320
    rings.forget(1)
    assert used_bytes(memory) - before < 50_000  # looked at first: reading a page brings it back, empty
    assert not rings.tx_pcm[1].any() and not rings.rx_pcm[1].any() and rings.rx_pcm[0, 0].all()


def test_another_layout_is_refused(memory):
    with pytest.raises(ValueError, match="4 slots need"):
        Rings(memory, 4)
    os.pwrite(memory, b"other", 0)
    with pytest.raises(ValueError, match="not laid out"):
        Rings(memory, 3)
