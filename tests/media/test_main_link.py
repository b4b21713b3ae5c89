"""How the engine greets a new main."""

import os
import select
import socket
from pathlib import Path

from sipagent.core.doors import knock, make_door
from sipagent.core.ipc import FrameBuffer
from sipagent.media.main_link import MainLink
from sipagent.media.protocol import OpenLine, Ready, notice_decoder
from sipagent.media.rings import Rings, create_memory
from sipagent.media.settings import MediaSettings


def test_a_greeting_longer_than_a_socket_holds_comes_whole(tmp_path: Path):
    memory = create_memory(4)
    control, first = socket.socketpair()
    door, attention = make_door(tmp_path, "media-0"), select.epoll()
    link = MainLink(control, door, attention, Rings(memory, 4), [memory, attention.fileno()])
    first.close()
    assert link.commands() == [] and link.alone

    greeting = Ready(
        pid=os.getpid(),
        scheduling="other",
        accelerated=False,
        settings=MediaSettings(),
        lines=[OpenLine(slot=slot, port=20000, connect=None, source=("192.0.2.1", 4000)) for slot in range(40_000)],
    )
    met = knock(tmp_path, "media-0")
    assert met is not None
    assert link.look_out(lambda: greeting)
    second = met[0]
    second.settimeout(5)
    buffer = FrameBuffer()
    messages: list[bytes] = []
    fds: list[int] = []
    while not messages:
        data, more, _, _ = socket.recv_fds(second, 1 << 18, 2)
        fds += more
        messages += buffer.feed(data)
        link.flush()
    assert notice_decoder.decode(messages[0]) == greeting
    assert len(fds) == 2 and not link.waiting
    for fd in (*fds, memory):
        os.close(fd)
    for one in (second, door, attention, link):
        one.close()
