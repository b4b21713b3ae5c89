"""The hot path in C, where `build_native` could compile it: `native.c`, called by ctypes on the arrays of `hot`."""

import ctypes
import math
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sipagent.media import levels, native_looks
from sipagent.media.batch import ROW, Batch
from sipagent.media.ducking import RAMPS
from sipagent.media.g711 import ALAW_TO_LINEAR, LINEAR_TO_ALAW, LINEAR_TO_ULAW, ULAW_TO_LINEAR
from sipagent.media.hot import Expected, HotPath, Ints
from sipagent.media.jitter import JitterBuffer
from sipagent.media.looks import Looks
from sipagent.media.mixing import Join, Mixing
from sipagent.media.outgoing import Outgoing
from sipagent.media.reception import SEEN, Reception
from sipagent.media.rings import RX_FRAMES, TX_FRAMES, Counter, Header, Rings, len_of
from sipagent.media.rtp import RATE
from sipagent.media.shared import MAX_STRAYS, SharedPorts
from sipagent.media.sockets import CallSockets

LIBRARY = Path(__file__).with_name("_native.so")
_LAYOUT = 12
_KEPT = 64  # addresses of arrays; slots are grouped anew with every call that begins or ends
_SIZES = ("counter_columns", "seen", "rx_frames", "tx_frames", "ring", "blocks", "ahead", "row")
_ARRAYS = (
    *("header", "ssrc", "timestamp", "highest", "received", "seen_at", "heard_ns", "counters"),
    *("pcm", "arrived", "position", "solid", "end", "hot_in", "hot_out"),
    *("rx_pcm", "rx_flags", "rx_level", "rx_beside", "rx_arrival", "rx_head"),
    *("tx_pcm", "tx_sent", "tx_head", "tx_tail", "tx_ssrc", "tx_sequence", "tx_timestamp"),
    *("tx_mode", "mix_pcm"),
    *("packets", "sending", "alaw", "talking", "marked", "mode", "left"),
    *("from_ulaw", "from_alaw", "to_ulaw", "to_alaw", "ramps"),
)


_RUN_ARRAYS = (
    *(
        "fds",
        "fd_slots",
        "slots",
        "lengths",
        "stamps",
        "ticked",
        "rx_wake",
        "flushes",
        "header",
        "unsent",
        "rest",
        "rows",
    ),
)
_RUN_NUMBERS = (
    *("epoll", "attention", "wake", "room", "tick", "late", "resync", "passes", "drain"),
    *("header_ticks", "header_heartbeat", "header_late", "header_worst", "until"),
    *("flushed", "deadline", "ticks", "now", "lateness", "at"),
    *("kept", "unsent_count", "rest_count", "marked", "phase"),
)


class _Hot(ctypes.Structure):
    """struct Hot of native.c."""

    _fields_ = [(name, ctypes.c_int64) for name in _SIZES] + [(name, ctypes.c_void_p) for name in _ARRAYS]


_GROUP = {
    **{"slots": "count", "plain": "plain_count", "sending": "senders", "alone": "alone_count"},
    **{"joined": "joined_count", "listeners": "listener_count", "speakers": "speaker_count"},
    **{"saying": "saying_count"},
}
_MIXING = (
    *("others", "taken", "played", "told", "silent", "pressed", "muting", "voiced", "waiting"),
    *("frames", "arrival"),
)


class _Group(ctypes.Structure):
    """struct Group of native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _GROUP),
        *((name, ctypes.c_int64) for name in _GROUP.values()),
    ]


class _Mixing(ctypes.Structure):
    """struct Mixing of native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (*_MIXING, "ready", "rest")),
        *((name, ctypes.c_int64) for name in ("nobody", "ready_count", "rest_count")),
    ]


class _Run(ctypes.Structure):
    """struct Run of native.c."""

    _fields_ = [
        ("groups", _Group * 2),
        *((name, ctypes.c_void_p) for name in _RUN_ARRAYS),
        *((name, ctypes.c_int64) for name in _RUN_NUMBERS),
    ]


_SHARED_ARRAYS = (
    *("fds", "starts", "key_slots", "port_of", "keys", "aimed", "targets"),
    *("rows", "senders", "slots", "lengths", "stamps"),
)


class _Shared(ctypes.Structure):
    """struct Shared of native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _SHARED_ARRAYS),
        *((name, ctypes.c_int64) for name in ("ports", "room", "stray_room", "kept", "strays", "foreign")),
    ]


class Needed(IntEnum):
    """Why `NativePath.run` has come back; see native.c."""

    DUE = 0
    RECEIVED = 1
    PLAYED = 2
    BEHIND = 3
    ASKED = 4


def load() -> ctypes.CDLL | None:
    """The library; None when it was not built, or for another version of this module."""
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.hot_layout.restype = ctypes.c_int64
        structures = (_Hot, _Run, _Mixing, _Shared, native_looks.Structure)
        fits = library.hot_layout() == _LAYOUT * 100000 + sum(map(ctypes.sizeof, structures))
    except (OSError, AttributeError):
        return None
    if not fits:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name, arguments in (
        ("hot_ingest", [pointer] * 5 + [number, pointer]),
        ("hot_receive", [pointer, ctypes.c_int, *[pointer] * 5, number, pointer]),
        ("hot_receive_shared", [pointer, pointer]),
        ("hot_run", [pointer] * 5),
        ("hot_say", [pointer] * 3 + [number]),
        ("hot_join", [pointer] * 3 + [number]),
        ("hot_mix", [pointer] * 3 + [number] * 2),
        ("hot_hand_over", [pointer] * 2),
        ("hot_play", [pointer, pointer, number, pointer]),
        ("hot_prepare", [pointer, pointer, number, number]),
        ("hot_send", [pointer, pointer, number, *[pointer] * 3]),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, number
    library.hot_look.argtypes, library.hot_look.restype = [*[pointer] * 4, *[number] * 3], None
    library.hot_levels.argtypes, library.hot_levels.restype = [pointer, *[number] * 6, pointer], None
    return library


class NativePath(HotPath):
    """Takes over from `HotPath` all that is as expected."""

    def __init__(
        self,
        library: ctypes.CDLL,
        rings: Rings,
        expected: Expected,
        reception: Reception,
        buffer: JitterBuffer,
        outgoing: Outgoing,
        heard_ns: Ints,
        mixing: Mixing,
    ) -> None:
        super().__init__(rings, expected, reception, buffer, outgoing, heard_ns, mixing)
        self._library = library
        self._rest = np.zeros(max(rings.capacity, 4096), np.int64)
        self._read = ctypes.c_int64()
        arrays: dict[str, NDArray[np.generic]] = {
            **{"header": expected.header, "ssrc": expected.ssrc, "timestamp": expected.timestamp},
            **{"highest": reception.highest, "received": reception.received, "seen_at": reception.seen},
            **{name: getattr(buffer, name) for name in _ARRAYS[8:15]},
            **{name: getattr(rings, name) for name in _ARRAYS[15:30]},
            **{name: getattr(outgoing, name) for name in _ARRAYS[30:37]},
            **{"heard_ns": heard_ns, "counters": rings.counters},
            **{"from_ulaw": ULAW_TO_LINEAR, "from_alaw": ALAW_TO_LINEAR},
            **{"to_ulaw": LINEAR_TO_ULAW, "to_alaw": LINEAR_TO_ALAW, "ramps": RAMPS},
        }
        for name, array in arrays.items():
            if not array.flags.c_contiguous:
                raise ValueError(f"the array {name} is not in one piece")
        self._arrays = arrays  # they must live as long as the pointers to them
        sizes = (
            *(len_of(Counter), SEEN, RX_FRAMES, TX_FRAMES),
            *(buffer.ring, buffer.arrived.shape[1], buffer.AHEAD, ROW),
        )
        self._hot = _Hot(*sizes, *(arrays[name].ctypes.data for name in _ARRAYS))
        self._pointer = ctypes.addressof(self._hot)
        # Asking numpy for an address costs as much as ten packets: the arrays in use are asked once.
        self._addresses: dict[int, tuple[NDArray[np.generic], int]] = {}
        self._rest_at = self._rest.ctypes.data
        self._read_at = ctypes.addressof(self._read)
        self._unsent = np.zeros(len(self._rest), np.int64)
        self._mix = _Mixing()
        self._arrays |= self._describe(mixing)
        self._mix_at = ctypes.addressof(self._mix)
        self._levels = (ctypes.c_double * 2)()
        self.state = _Run()  # of `run`
        self._run_at = ctypes.addressof(self.state)
        self._shared = _Shared()  # without ports until there are some
        self._shared_at = ctypes.addressof(self._shared)
        self._shared_changes = -1
        self._shared_arrays: dict[str, NDArray[np.generic]] = {}

    def receive(self, sockets: CallSockets) -> tuple[Batch, list[int]] | None:
        batch, at = sockets.batch, self._at
        batch.count = kept = self._library.hot_receive(
            *(self._pointer, sockets.busy_fd, at(sockets.fd_slots), at(batch.rows), at(batch.slots)),
            *(at(batch.lengths), at(batch.stamps), len(batch.slots), self._read_at),
        )
        return (batch, list(range(kept))) if self._read.value else None

    def receive_shared(self, sockets: CallSockets) -> tuple[Batch, list[int]] | None:
        if sockets.shared is None or not sockets.shared.busy:
            return None
        self._look_up(sockets.shared)
        self._library.hot_receive_shared(self._pointer, self._shared_at)
        return self.left_of_shared(sockets)

    def left_of_shared(self, sockets: CallSockets) -> tuple[Batch, list[int]] | None:
        """What `run` has read from the shared ports and left."""
        found = self._shared
        if sockets.shared is None or not found.ports or not (found.kept or found.foreign):
            return None
        batch = sockets.shared.sort_out(found.kept, found.foreign)
        return batch, list(range(batch.count))

    def _look_up(self, shared: SharedPorts) -> None:
        """Lets the library know who is on the shared ports now."""
        if shared.changes == self._shared_changes:
            return
        self._shared_changes = shared.changes
        fds, starts, keys, slots, port_of = shared.tables()
        batch = shared.batch
        arrays: dict[str, NDArray[np.generic]] = {
            **{"fds": fds, "starts": starts, "keys": keys, "key_slots": slots, "port_of": port_of},
            **{"aimed": shared.is_aimed, "targets": shared.targets, "rows": batch.rows, "senders": shared.senders},
            **{"slots": batch.slots, "lengths": batch.lengths, "stamps": batch.stamps},
        }
        for name in _SHARED_ARRAYS:
            setattr(self._shared, name, arrays[name].ctypes.data)
        self._shared_arrays = arrays  # they must live as long as the pointers to them
        self._shared.room, self._shared.stray_room = len(batch.slots), MAX_STRAYS
        self._shared.ports = len(fds) if shared.busy else 0

    def ingest(self, batch: Batch) -> list[int]:
        at = self._at
        kept = self._library.hot_ingest(
            *(self._pointer, at(batch.rows), at(batch.slots), at(batch.lengths), at(batch.stamps)),
            *(batch.count, self._rest_at),
        )
        left: list[int] = self._rest[:kept].tolist()
        return left

    def play(self, slots: Ints, now_ns: int) -> None:
        kept = self._library.hot_play(self._pointer, self._at(slots), len(slots), self._rest_at)
        if kept:
            rest = self._rest[:kept].copy()
            self.deliver(rest, *self._buffer.play(rest, now_ns))

    def send(self, slots: Ints, sending: Ints, sockets: CallSockets, now_ns: int) -> None:
        if self._library.hot_prepare(self._pointer, self._at(slots), len(slots), now_ns):
            self._outgoing.some_marked = True
        self.dispatch(sending, sockets)

    def dispatch(self, sending: Ints, sockets: CallSockets) -> None:
        at = self._at
        if sockets.shared is not None:
            self._look_up(sockets.shared)
        kept = self._library.hot_send(
            *(self._pointer, at(sending), len(sending), at(sockets.fds), self._rest_at, self._shared_at)
        )
        if kept:
            sockets.send(self._rest[:kept].copy(), self._packets)
        self._outgoing.sent(sending)

    def converse(self, join: Join, sockets: CallSockets, now_ns: int) -> None:
        self._library.hot_join(self._pointer, self._mix_at, self._at(join.narrow), len(join.narrow))
        self._converse(join, sockets, now_ns)

    def _converse(self, join: Join, sockets: CallSockets, now_ns: int) -> None:
        """Goes on after `hot_join`."""
        library, at, mix = self._library, self._at, self._mix
        rest = self._join_rest[: mix.rest_count].copy()
        if len(rest):
            played = self._buffer.play(rest, now_ns)
            self._mixing.played(rest, played)
        if library.hot_mix(self._pointer, self._mix_at, at(join.plain), len(join.plain), now_ns):
            self._outgoing.some_marked = True
        self.dispatch(join.sending, sockets)
        library.hot_hand_over(self._pointer, self._mix_at)
        if len(rest):
            self.deliver(rest, *played)

    def _describe(self, mixing: Mixing) -> dict[str, NDArray[np.generic]]:
        """Fills in what the library knows of the mixing; the arrays must live as long."""
        capacity = self._rings.capacity
        self._join_rest = np.zeros(capacity, np.int64)
        arrays: dict[str, NDArray[np.generic]] = {
            **{"others": mixing.others, "taken": mixing.taken, "played": mixing.count, "silent": mixing.silent},
            **{"told": mixing.told, "pressed": mixing.pressed, "muting": mixing.muting, "voiced": mixing.voiced},
            **{"waiting": self._outgoing.waiting, "frames": mixing.narrow},
            **{"arrival": np.zeros(capacity, np.int64), "ready": np.zeros(capacity, np.int64)},
            **{"rest": self._join_rest},
        }
        for name, array in arrays.items():
            setattr(self._mix, name, array.ctypes.data)
        self._mix.nobody = capacity
        return {f"mixing.{name}": array for name, array in arrays.items()}

    def settle(
        self,
        groups: list[dict[str, Ints]],
        joins: list[Join | None],
        slots: Ints,
        sockets: CallSockets,
        limits: dict[str, int],
    ) -> None:
        """The calls that `run` serves, all and by phase. `groups` and `limits`: fields of Group and of Run."""
        self._looks.settle(slots)
        run, rings, batch = self.state, self._rings, sockets.batch
        self._joins = joins
        for group, lists in zip(run.groups, groups, strict=True):
            for name, count in _GROUP.items():
                setattr(group, name, self._at(lists[name]))
                setattr(group, count, len(lists[name]))
        arrays: dict[str, NDArray[np.generic]] = {
            **{"fds": sockets.fds, "fd_slots": sockets.fd_slots, "ticked": rings.ticked_ns, "rows": batch.rows},
            "rx_wake": rings.rx_wake,
            **{"slots": batch.slots, "lengths": batch.lengths, "stamps": batch.stamps, "rest": self._rest},
            **{"flushes": rings.flushes, "header": rings.header, "unsent": self._unsent},
        }
        self._running = (groups, arrays)  # they must live as long as the pointers to them
        for name, array in arrays.items():
            setattr(run, name, array.ctypes.data)
        for name, number in (limits | {"epoll": sockets.busy_fd, "room": len(batch.slots)}).items():
            setattr(run, name, number)
        run.header_ticks, run.header_heartbeat = Header.TICKS, Header.HEARTBEAT_NS
        run.header_late, run.header_worst = Header.LATE_TICKS, Header.WORST_LATENESS_NS

    def run(self, sockets: CallSockets) -> Needed:
        """Ticks until something is needed that only the engine can do."""
        if sockets.shared is not None:
            self._look_up(sockets.shared)
        return Needed(self._library.hot_run(self._pointer, self._run_at, self._mix_at, self._shared_at, self._looks.at))

    def look_for(self, looks: Looks) -> None:
        """From now on these looks are taken here."""
        self._looks = native_looks.NativeLooks(self._library, self._pointer, looks)
        looks.learn = self._looks.learn

    def finish(self, sockets: CallSockets, now_ns: int) -> None:
        """After `PLAYED`: those of the tick that were not simply to be sent, or played."""
        self.finish_sending(sockets)
        if self.state.rest_count:
            rest = self._rest[: self.state.rest_count].copy()
            self.deliver(rest, *self._buffer.play(rest, now_ns))
        if self._mix.rest_count:
            join = self._joins[self.state.phase]
            assert join is not None
            self._converse(join, sockets, now_ns)

    def left_of_looks(self) -> Ints:
        """After `DUE`: slots of which something follows from the last look."""
        return self._looks.rest

    def finish_sending(self, sockets: CallSockets) -> None:
        """After `RECEIVED` too."""
        run = self.state
        if run.unsent_count:
            unsent = self._unsent[: run.unsent_count].copy()
            sockets.send(unsent, self._packets)
            if run.marked:
                self._outgoing.some_marked = True
                self._outgoing.sent(unsent)

    def levels(self, slot: int) -> tuple[float | None, float | None]:
        if self._rings.rate[slot] != RATE:
            return super().levels(slot)
        self._library.hot_levels(
            *(self._pointer, slot, levels.WINDOW, levels.EVERY),
            *(levels.INVENTED, levels.PAUSE_DB, levels.SILENCE),
            ctypes.addressof(self._levels),
        )
        came, left = self._levels
        return (None if math.isnan(came) else came), (None if math.isnan(left) else left)

    def _at(self, array: NDArray[np.generic]) -> int:
        """The address of an array that is used tick after tick."""
        known = self._addresses.get(id(array))
        if known is None or known[0] is not array:
            if len(self._addresses) >= _KEPT:
                self._addresses.clear()
            known = self._addresses[id(array)] = (array, array.ctypes.data)
        return known[1]
