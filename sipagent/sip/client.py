"""Main's side of the lane: starts the zygote and a lane, carries commands and facts, replaces what dies."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from sipagent.core.clock import mono_ns, now
from sipagent.core.errors import ProcessDied, SetupError
from sipagent.core.events import CallRefused, EventSink, ProcessEnded, ProcessStarted
from sipagent.core.ipc import frame, read_frame
from sipagent.core.rate import RateLimit
from sipagent.sip import names, zygote
from sipagent.sip.protocol import (
    AnyCommand,
    AnyFact,
    CommandFailed,
    Ended,
    IncomingCall,
    InviteRefused,
    LaneLog,
    LaneReady,
    MakeCall,
    OverLimit,
    Ping,
    Pong,
    RegistrationResult,
    Start,
    StartFailed,
    Stop,
    encoder,
    fact_decoder,
)
from sipagent.sip.settings import SipSettings

log = logging.getLogger("sipagent.sip")

_START_S = 15.0
_CLOSE_S = 3.0
_LAST_FACTS_S = 0.5  # what a lane says as it leaves
_PING_S = 2.0
_SILENT_PINGS = 4  # a lane that has answered none of so many is stuck, and is replaced
_BACKLOG_BYTES = 8 << 20  # commands the lane has not read: further ones are dropped
_FIRST_PAUSE_S = 0.1  # before a new lane, doubled while lanes die young
_LONGEST_PAUSE_S = 5.0
_YOUNG_S = 5.0
_HANDLES_PER_LANE = 1 << 32


class LaneClient:
    """One lane, kept alive. Callbacks run in the event loop, in the order of the facts, and must not block.

    >>> client = LaneClient(SipSettings(host="127.0.0.1", port=5080), events)  # doctest: +SKIP
    >>> client.on_incoming = lambda call: client.send(Ring(call=call.call))  # doctest: +SKIP
    >>> ready = await client.start()  # doctest: +SKIP
    """

    def __init__(self, settings: SipSettings, events: EventSink) -> None:
        self.settings = settings
        self.on_incoming: Callable[[IncomingCall], None] | None = None
        self.on_fact: Callable[[AnyFact], None] | None = None
        self.on_registration: Callable[[RegistrationResult], None] | None = None
        self.on_over_limit: Callable[[OverLimit], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.on_ready: Callable[[LaneReady], None] | None = None
        self._events = events
        self._ready: LaneReady | None = None
        self._zygote: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._lane_pid = 0
        self._lane_writer: asyncio.StreamWriter | None = None
        self._exits: dict[int, int] = {}  # lanes that have ended, pid to status
        self._exited = asyncio.Event()
        self._forked: asyncio.Queue[int] = asyncio.Queue(maxsize=8)  # one fork is asked for at a time
        self._open_calls: set[int] = set()
        self._last_handle = 0
        self._generation = 0
        self._unanswered = 0  # pings
        self._refusals = RateLimit(per_second=5)  # strangers must not fill the record
        self._stopping = False
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None

    # --- what main uses -------------------------------------------------------------------------------------

    @property
    def ready(self) -> LaneReady | None:
        """None while no lane is up."""
        return self._ready

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that are up."""
        found: dict[str, int] = {}
        if self._zygote is not None and self._zygote.returncode is None:
            found["zygote"] = self._zygote.pid
        if self._lane_pid:
            found["lane"] = self._lane_pid
        return found

    def next_handle(self) -> int:
        """A handle for MakeCall: negative, never given twice."""
        self._last_handle -= 1
        return self._last_handle

    def send(self, command: AnyCommand) -> None:
        """Never blocks and never raises; without a lane, or with one that does not read, the command is dropped."""
        writer = self._lane_writer
        if writer is None or self._ready is None or writer.is_closing():
            log.warning("command dropped: no lane is up", extra={"command": type(command).__name__})
            return
        if writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            log.error("command dropped: the lane does not read", extra={"command": type(command).__name__})
            return
        if isinstance(command, MakeCall):
            self._open_calls.add(command.call)
        writer.write(frame(encoder.encode(command)))

    async def start(self) -> LaneReady:
        """Returns when the lane is up. Raises SetupError when it cannot be: a taken port, PJSIP missing."""
        try:
            async with asyncio.timeout(_START_S):
                reader = await self._bring_up(first=True)
        except TimeoutError as error:
            await self.close()
            raise SetupError(f"the SIP lane was not up within {_START_S:.0f} s") from error
        except BaseException:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep(reader), name="sip-lane")
        assert self._ready is not None
        return self._ready

    async def close(self) -> None:
        """Ends every call, takes registrations back, ends the processes. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._ready is not None:
            self.send(Stop())
        self._stopping = True
        lane_pid = self._lane_pid
        if lane_pid:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._lane_exit(lane_pid)
            self._kill_lane(lane_pid)
        if self._keeper is not None:
            await asyncio.wait({self._keeper}, timeout=_LAST_FACTS_S)
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._drop_lane()
        await self._end_zygote()

    # --- keeping it alive -----------------------------------------------------------------------------------

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        """Serves the lane until it ends, then makes another, for as long as the client is open."""
        pause = _FIRST_PAUSE_S
        while True:
            born = mono_ns()
            await self._serve(reader)
            if self._stopping:
                return
            pause = _FIRST_PAUSE_S if (mono_ns() - born) / 1e9 > _YOUNG_S else min(pause * 2, _LONGEST_PAUSE_S)
            while True:
                await asyncio.sleep(pause)
                try:
                    async with asyncio.timeout(_START_S):
                        reader = await self._bring_up(first=False)
                    break
                except (SetupError, ProcessDied, TimeoutError, OSError) as error:
                    log.error("no new lane yet", extra={"reason": str(error), "again_in_s": pause})
                    self._kill_lane(self._lane_pid)  # one that hangs while it starts would keep the port
                    self._drop_lane()
                    pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        pinger = asyncio.create_task(self._ping(), name="sip-lane-ping")
        try:
            while True:
                self._take(fact_decoder.decode(await read_frame(reader)))
        except ProcessDied:
            pass
        except msgspec.DecodeError:
            log.exception("the lane sent what cannot be read: replacing it")
        finally:
            pinger.cancel()
            await asyncio.gather(pinger, return_exceptions=True)
        if not self._stopping:
            await self._lost()

    async def _ping(self) -> None:
        """Kills a lane whose PJSIP thread does not turn: its end is then noticed like any other."""
        self._unanswered = 0
        while True:
            # Counted, not timed: when main itself has stood still (a paused machine), the lane is not to blame.
            self._unanswered += 1
            self.send(Ping())
            await asyncio.sleep(_PING_S)
            if self._unanswered > _SILENT_PINGS and self._lane_pid:
                log.error("lane does not answer: replacing it", extra={"pid": self._lane_pid})
                self._kill_lane(self._lane_pid)
                return

    async def _lost(self) -> None:
        pid, affected = self._lane_pid, len(self._open_calls)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._lane_exit(pid)
        self._kill_lane(pid)  # in case it closed its socket and stayed
        reason = _exit_text(self._exits.get(pid))
        self._drop_lane()
        log.error("lane ended", extra={"pid": pid, "reason": reason, "calls_affected": affected})
        self._events.emit(ProcessEnded(at=now(), process="lane", pid=pid, reason=reason, calls_affected=affected))
        if self.on_lost is not None:
            self._guard(self.on_lost)

    def _kill_lane(self, pid: int) -> None:
        """Only while the zygote vouches for the pid: reaped, it may be anybody's. Lanes do not outlive the zygote."""
        self._hear_zygote()
        if pid and pid not in self._exits and self._zygote_up:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _drop_lane(self) -> None:
        self._ready = None
        self._lane_pid = 0
        self._open_calls.clear()
        if self._lane_writer is not None:
            self._lane_writer.close()
            self._lane_writer = None

    # --- starting -------------------------------------------------------------------------------------------

    async def _bring_up(self, *, first: bool) -> asyncio.StreamReader:
        if not self._zygote_up:
            await self._start_zygote()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            assert self._control is not None
            while not self._forked.empty():
                self._forked.get_nowait()
            socket.send_fds(self._control, [zygote.FORK], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ProcessDied("the zygote is gone") from error
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        self._lane_writer = writer
        pid = await self._forked.get()
        if pid == 0:
            raise ProcessDied("the lanes' parent process ended")
        self._lane_pid = pid
        self._generation += 1
        settings = self.settings
        start = Start(
            host=settings.host,
            port=settings.port,
            public_host=settings.public_host,
            tcp=settings.tcp,
            user_agent=settings.user_agent,
            record_messages=settings.record_messages,
            name_servers=names.name_servers(),
            first_call=(self._generation - 1) * _HANDLES_PER_LANE + 1,
        )
        writer.write(frame(encoder.encode(start)))
        while True:
            try:
                fact = fact_decoder.decode(await read_frame(reader))
            except ProcessDied as error:
                raise SetupError("the SIP lane ended while it was starting") from error
            if isinstance(fact, StartFailed):
                raise SetupError(_start_failure(fact, settings))
            if isinstance(fact, LaneReady):
                break
            self._take(fact)
        self._ready = fact
        log.info("lane is up", extra={"pid": fact.pid, "max_calls": fact.max_calls, "port": fact.port})
        self._events.emit(ProcessStarted(at=now(), process="lane", pid=fact.pid))
        if self.on_ready is not None:
            on_ready, ready = self.on_ready, fact
            self._guard(lambda: on_ready(ready))
        return reader

    @property
    def _zygote_up(self) -> bool:
        return self._zygote is not None and self._zygote.returncode is None and self._control is not None

    async def _start_zygote(self) -> None:
        self._close_control()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sipagent.sip.zygote",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            raise SetupError("the SIP lane's parent process could not be started") from error
        finally:
            theirs.close()
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear_zygote)

    def _hear_zygote(self) -> None:
        control = self._control
        while control is not None:
            try:
                data = control.recv(zygote.MAX_NOTICE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                if not self._stopping:
                    log.error("the lanes' parent process ended")
                self._close_control()
                self._forked.put_nowait(0)
                return
            notice = zygote.notice_decoder.decode(data)
            if isinstance(notice, zygote.Forked):
                self._exits.pop(notice.pid, None)  # of an earlier lane with this number
                self._forked.put_nowait(notice.pid)
            else:
                self._exits[notice.pid] = notice.status
                if len(self._exits) > 64:
                    del self._exits[next(iter(self._exits))]
                self._exited.set()

    def _close_control(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        self._exited.set()

    async def _lane_exit(self, pid: int) -> None:
        """Returns when the lane has ended, or when nobody is left who could tell."""
        while pid not in self._exits and self._zygote_up:
            self._exited.clear()
            await self._exited.wait()

    async def _end_zygote(self) -> None:
        self._close_control()
        process = self._zygote
        if process is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # --- facts ----------------------------------------------------------------------------------------------

    def _take(self, fact: AnyFact) -> None:
        self._unanswered = 0
        self._guard(lambda: self._hand_on(fact))

    def _guard(self, handler: Callable[[], None]) -> None:
        """A mistake in one call's handling must not cost the others their lane."""
        try:
            handler()
        except Exception:
            log.exception("a fact of the lane could not be handled")

    def _hand_on(self, fact: AnyFact) -> None:
        match fact:
            case LaneLog():
                log.log(logging.WARNING if fact.level <= 2 else logging.INFO, "pjsip", extra={"line": fact.text})
            case RegistrationResult():
                if self.on_registration is not None:
                    self.on_registration(fact)
            case OverLimit():
                if self.on_over_limit is not None:
                    self.on_over_limit(fact)
            case InviteRefused():
                reason = f"the SIP library answered {fact.status} {fact.reason}".rstrip()
                at = now()
                if self._refusals.admit(at.mono):
                    others = self._refusals.take_suppressed()
                    self._events.emit(CallRefused(at=at, reason=reason, sip_status=fact.status, others=others))
            case IncomingCall():
                self._open_calls.add(fact.call)
                if self.on_incoming is not None:
                    self.on_incoming(fact)
            case Pong() | LaneReady() | StartFailed():
                pass
            case CommandFailed(command="AddAccount" | "Register" as command) if self.on_registration is not None:
                self.on_registration(
                    RegistrationResult(
                        account=fact.account,
                        status=0,
                        reason=f"{command} failed: {fact.reason}",
                        expires_s=0,
                        answered=False,
                    )
                )
            case CommandFailed(call=0):
                log.warning(
                    "lane could not carry out a command",
                    extra={"command": fact.command, "account": fact.account, "reason": fact.reason},
                )
            case _:
                if isinstance(fact, Ended) or (isinstance(fact, CommandFailed) and fact.command == "MakeCall"):
                    self._open_calls.discard(fact.call)
                if self.on_fact is not None:
                    self.on_fact(fact)


def _exit_text(status: int | None) -> str:
    if status is None:
        return "its parent process died"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _start_failure(fact: StartFailed, settings: SipSettings) -> str:
    where = f"{fact.what} port {settings.port} on {settings.host}"
    if fact.port_taken:
        return (
            f"{where} is taken by another program: stop it (find it with `ss -lntup 'sport = :{settings.port}'`) "
            "or set another port in [sip]"
        )
    if fact.what in ("UDP", "TCP"):
        return f"{where} cannot be bound: {fact.reason}; check `host` in [sip]"
    return f"PJSIP did not start: {fact.reason}"
