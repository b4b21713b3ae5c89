"""The lane: a process that speaks SIP through PJSIP and decides nothing. Commands in, facts out.

One thread, the process's first, owns every pjsua2 object: it starts the library, runs its events and carries out the
commands. A second thread only reads commands from main's socket and wakes the first with a datagram to the lane's
own SIP port (CRLF, which PJSIP drops as a keep-alive, RFC 5626 section 4.4.1): 0.2 ms instead of a polling interval.

When main is gone, calls that are answered stay up while the second thread waits for a new main (`core.doors`), which
is told how things stand; all others are refused or cancelled.
"""

import collections
import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import NoReturn

import msgspec
import pjsua2 as pj

from sipagent.core.clock import mono_ns
from sipagent.core.doors import take_away, try_door, wait_for_main
from sipagent.core.ipc import die_with_parent, frame, read_frame_blocking
from sipagent.sip.edge_script import FINAL
from sipagent.sip.lane_accounts import Accounts
from sipagent.sip.lane_callbacks import LaneAccount, LaneEndpoint, LaneLogWriter
from sipagent.sip.lane_calls import LaneCall
from sipagent.sip.lane_results import options
from sipagent.sip.lane_stack import Stack, TransportError, account_config, call_param, edge_headers, error_text
from sipagent.sip.message_log import MessageLog
from sipagent.sip.names import HostsFile
from sipagent.sip.protocol import (
    LANE_DOOR,
    AddAccount,
    AddressChanged,
    AllowRefer,
    Answer,
    Answered,
    AnyCommand,
    AnyFact,
    CommandFailed,
    EarlyMedia,
    Ended,
    Hangup,
    Hold,
    IncomingCall,
    LaneLog,
    LaneReady,
    MakeCall,
    MediaChanged,
    NotifyTransfer,
    OptionsResult,
    OverLimit,
    Ping,
    Pong,
    Refer,
    Register,
    Registered,
    RegistrationResult,
    Reject,
    RemoveAccount,
    Reoffer,
    Resume,
    Ring,
    SendInfo,
    SendOptions,
    SetMedia,
    Start,
    StartFailed,
    Stop,
    Unregister,
    command_decoder,
    encoder,
)
from sipagent.sip.scrub import scrubbed

_POLL_MS = 100
_BUSY_POLL_MS = 20
_IDLE_POLL_MS = 500  # PJSIP's timers and main's commands are served at their time all the same
_BACKLOG_BYTES = 16 << 20  # facts that main has not read; beyond it, or after so long, main is given up
_BACKLOG_NS = 10_000_000_000
# A BYE goes out four times by then. PJSIP tells of the end at once but would keep the slot, of which a lane may have
# but four, for 32 s.
_BYE_NS = 4_000_000_000
_STOP_NS = 2_000_000_000  # an orderly stop: BYE answered, registrations taken back
_ORPHAN_NS = 500_000_000  # main is gone: BYE sent
_LOG_LINES = 20  # per window
_LOG_WINDOW_NS = 10_000_000_000
_ROUTES = 256  # hosts whose way from here is remembered
_BACK_IN_S = "5"  # when who is refused for want of a main may try again
_MISSED_BYTES = 4 << 20  # facts kept for the next main; beyond, only ends of calls are
_ENDS_KEPT = 256  # told again to a new main, for the one before may not have read them
_ENDS_KEPT_NS = 15_000_000_000
_TOO_MANY_CALLS = "too many calls"  # PJSIP's line, for builds without onRejectedIncomingCall


class _NewMain:
    """In the queue of commands: from here on they are another main's; None where the one we had is gone."""

    def __init__(self, stream: socket.socket | None) -> None:
        self.stream = stream


class Lane:
    """One started library and its calls. Lives on the PJSIP thread; ``commands`` is the only thing shared."""

    def __init__(self, main: socket.socket) -> None:
        self.main = main
        self.commands: collections.deque[AnyCommand | _NewMain | None] = collections.deque()
        self.calls: dict[int, LaneCall] = {}
        self.graveyard: list[LaneCall] = []
        self.accounts: Accounts
        self._abandoned: list[tuple[LaneCall, int, dict[str, str]]] = []
        self._alone = False  # main is gone, and another may come
        self._missed = bytearray()  # by main
        self._registered: dict[str, Registered] = {}
        self._ends: collections.deque[tuple[int, Ended]] = collections.deque(maxlen=_ENDS_KEPT)
        self._attended: set[LaneCall] = set()  # those that have something to send as soon as it may be sent
        # Our BYEs: when they shall have been answered, and in which dialog.
        self._farewells: collections.deque[tuple[int, tuple[str, str, str]]] = collections.deque()
        self._unsent = bytearray()
        self._unsent_since = 0
        self._stop_at = 0  # ns; 0 while we go on
        self._log_window = 0
        self._log_lines = 0
        self._next_handle = 1
        self._hosts = HostsFile()
        self._messages = MessageLog(self._local_address)
        self._routes: dict[str, str] = {}

    def run(self) -> NoReturn:
        """Returns never: leaves the process, by os._exit because pjsua2's destructors may abort."""
        first = read_frame_blocking(self.main)
        start = command_decoder.decode(first) if first else None
        if not isinstance(start, Start):
            os._exit(1)
        try:
            self._start(start)
        except TransportError as error:
            self._give_up(StartFailed(what=error.what, reason=str(error), port_taken=error.taken))
        except Exception as error:
            self._give_up(StartFailed(what="PJSIP", reason=error_text(error)))
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        while not self._finished():
            self.stack.endpoint.libHandleEvents(self._patience_ms)
            while self.commands:
                self._carry_out(self.commands.popleft())
            self._housekeeping()
        self._tell_messages(everything=True)
        self._flush()
        if self.start.run:
            take_away(Path(self.start.run), self._door_name)
        os._exit(0)

    def _start(self, start: Start) -> None:
        self.start = start
        self._next_handle = start.first_call
        self.endpoint = LaneEndpoint(self)
        self.stack = Stack(start, self.endpoint, LaneLogWriter(self.log_line, self._saw_message))
        self.pjsip = self.stack.pjsip
        self.pjsip.watch_requests(self.problem)
        identity = AddAccount(account="", id_uri=self.stack.identity())
        self.accounts = Accounts(self, identity, lambda account: account_config(account, start, self.stack.port))
        self._wake_address = ("127.0.0.1" if start.host in ("", "0.0.0.0") else start.host, self.stack.port)
        self._wake_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.pjsip.probe(
                lambda probe: self._wake_socket.sendto(probe, self._wake_address),
                lambda: self.endpoint.libHandleEvents(20),
            )
        except RuntimeError as error:
            self.problem("the lane's own request", error)
        self._door = try_door(Path(start.run), self._door_name) if start.run else None
        self.emit(self._ready())

    def _ready(self) -> LaneReady:
        return LaneReady(
            pid=os.getpid(),
            max_calls=self.stack.max_calls,
            codecs=tuple(self.stack.codecs),
            host=self.start.host,
            port=self.stack.port,
        )

    @property
    def _door_name(self) -> str:
        return f"{LANE_DOOR}{os.getpid()}"

    def _give_up(self, fact: StartFailed) -> NoReturn:
        self.emit(fact)
        self._flush()
        os._exit(2)

    # --- the command thread ---------------------------------------------------------------------------------

    def _read_commands(self) -> None:
        stream = self.main
        while True:
            data = read_frame_blocking(stream)
            command: AnyCommand | _NewMain | None = None
            if data is not None:
                with contextlib.suppress(Exception):  # a message we cannot read: main is not the one we know
                    command = command_decoder.decode(data)
            if command is None and self._door is not None:
                self._command(_NewMain(None))
                comer = wait_for_main(self._door)
                if comer is not None:
                    stream, command = comer, _NewMain(comer)
            self._command(command)
            if command is None:
                return

    def _command(self, command: "AnyCommand | _NewMain | None") -> None:
        self.commands.append(command)
        with contextlib.suppress(OSError):
            self._wake_socket.sendto(b"\r\n\r\n", self._wake_address)

    @property
    def trusted(self) -> list[str]:
        return self.start.trusted

    # --- facts ----------------------------------------------------------------------------------------------

    def emit(self, fact: AnyFact) -> None:
        self._note(fact)
        if self._alone:
            self._keep(fact)
            return
        if not self._unsent:
            self._unsent_since = mono_ns()
        self._unsent += frame(encoder.encode(fact))
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self.main.send(self._unsent, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                del self._unsent[:sent]
                self._unsent_since = mono_ns()
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # the reader sees the end of the stream and stops the lane

    def _note(self, fact: AnyFact) -> None:
        """What a new main will want to know."""
        if isinstance(fact, Ended):
            self._ends.append((mono_ns(), fact))
        elif isinstance(fact, RegistrationResult):
            self._registered[fact.account] = Registered(at=mono_ns(), result=fact)
        elif isinstance(fact, Answered | MediaChanged) and fact.call in self.calls:
            standing = self.calls[fact.call].standing
            if isinstance(fact, Answered):
                standing.answered = fact
            else:
                standing.changed = fact

    def _keep(self, fact: AnyFact) -> None:
        """There is no main to tell."""
        if isinstance(fact, IncomingCall):
            call = self.calls[fact.call]
            self._abandoned.append((call, 503, self._refusal({"Retry-After": _BACK_IN_S, FINAL: "node"})))
        elif not isinstance(fact, Ended | LaneLog) and len(self._missed) < _MISSED_BYTES:
            self._missed += frame(encoder.encode(fact))  # ends are told from `_ends`, all again

    def _left_alone(self) -> None:
        """Whoever talks goes on talking; who waits for an answer waits for nobody."""
        self._alone = True
        self._unsent.clear()
        for call in list(self.calls.values()):
            if not call.answered and not call.accepted:
                headers = {"Retry-After": _BACK_IN_S, FINAL: "node"} if call.inbound else {}
                self._abandoned.append((call, 503, self._refusal(headers) if call.inbound else headers))

    def _take_on(self, main: socket.socket) -> None:
        """Another main: it is told how things stand, then what happened since there was one."""
        self.main.close()
        self.main, self._alone = main, False
        standing = [call.standing for call in self.calls.values()]
        start = msgspec.structs.replace(self.start, first_call=self._next_handle)
        registered = list(self._registered.values())
        self.emit(msgspec.structs.replace(self._ready(), start=start, standing=standing, registered=registered))
        self._unsent += self._missed
        self._missed.clear()
        for at, end in list(self._ends):
            if mono_ns() - at < _ENDS_KEPT_NS:
                self._unsent += frame(encoder.encode(end))
        self._flush()

    def problem(self, where: str, error: BaseException) -> None:
        self.emit(LaneLog(level=1, text=f"{where}: {type(error).__name__}: {scrubbed(error_text(error))}"))

    def log_line(self, level: int, text: str) -> None:
        """A line of PJSIP's log: its first line only (bodies follow), without numbers and addresses, rate-limited."""
        if _TOO_MANY_CALLS in text and not hasattr(pj.Endpoint, "onRejectedIncomingCall"):
            self.emit(OverLimit(status=486))
        now = mono_ns()
        if now - self._log_window > _LOG_WINDOW_NS:
            self._log_window, self._log_lines = now, 0
        self._log_lines += 1
        if self._log_lines < _LOG_LINES:
            self.emit(LaneLog(level=level, text=scrubbed(text)))
        elif self._log_lines == _LOG_LINES:
            self.emit(LaneLog(level=level, text="more PJSIP log lines are left out for a while"))

    # --- messages -------------------------------------------------------------------------------------------

    def _saw_message(self, text: str) -> None:
        self._messages.take(text, mono_ns())

    def known_as(self, call: LaneCall, sip_call_id: str) -> None:
        self._messages.bind(sip_call_id, call.handle)
        call.standing.sip_call_id = sip_call_id

    def _local_address(self, host: str) -> str:
        """Ours of a packet to or from this host."""
        if host not in self._routes:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[host] = _route_to(host) if self.start.host in ("", "0.0.0.0") else self.start.host
        return f"{self._routes[host]}:{self.stack.port}"

    def _tell_messages(self, *, everything: bool = False) -> None:
        for fact in self._messages.due(mono_ns(), everything=everything):
            self.emit(fact)

    # --- calls ----------------------------------------------------------------------------------------------

    def adopt(self, account: LaneAccount, call_id: int) -> LaneCall:
        call = LaneCall(self, account, self._next_handle, call_id)
        self.calls[call.handle] = call
        self._next_handle += 1
        return call

    def bury(self, call: LaneCall) -> None:
        if self.calls.pop(call.handle, None) is not None:
            self._attended.discard(call)  # the graveyard's is to be the last reference
            self.graveyard.append(call)
            self._messages.end(call.handle, mono_ns())

    def abandon(self, call: LaneCall) -> None:
        """End it soon: not from inside a callback."""
        self._abandoned.append((call, 500, {}))

    def attend(self, call: LaneCall) -> None:
        """Let it send what waits, soon: not from inside a callback."""
        self._attended.add(call)

    def _housekeeping(self) -> None:
        self._tell_messages()
        self._flush()
        for call in list(self._attended):
            try:
                waits = call.attended(mono_ns())
            except Exception as error:
                waits = False
                self.problem("a request inside a call could not be sent", error)
            if not waits:
                self._attended.discard(call)
        while self._farewells and mono_ns() > self._farewells[0][0]:
            self.pjsip.give_up(*self._farewells.popleft()[1])
        while self._abandoned:
            self._end(*self._abandoned.pop())
        if self.graveyard:
            self.stack.clock_bridge()
            # ~Call() hangs up whatever call has its slot by now, so a dead one goes only while the slot is free.
            self.graveyard = [call for call in self.graveyard if call.isActive()]

    def _end(self, call: LaneCall, status: int, headers: dict[str, str]) -> None:
        """BYE, CANCEL, or this final status for an inbound call that has no answer yet."""
        if call.ended or not call.isActive():
            return
        call.closing = True
        if call.inbound and not call.accepted:
            call.answer(call_param(status, headers=headers))  # hangup() would leave the headers out
        else:
            call.hangup(call_param(headers=headers))
            if call.named is not None:
                self._farewells.append((mono_ns() + _BYE_NS, call.named))

    # --- commands -------------------------------------------------------------------------------------------

    def _carry_out(self, command: "AnyCommand | _NewMain | None") -> None:
        handle = int(getattr(command, "call", 0))
        try:
            if command is None:
                self._begin_stop(_ORPHAN_NS)
            elif isinstance(command, _NewMain):
                self._take_on(command.stream) if command.stream is not None else self._left_alone()
            elif isinstance(command, Stop):
                self._begin_stop(_STOP_NS)
            elif isinstance(command, Ping):
                self.emit(Pong())
            elif isinstance(command, MakeCall):
                self._make_call(command)
            elif isinstance(command, AddAccount):
                self._add_account(command)
            elif isinstance(command, RemoveAccount):
                self._registered.pop(command.account, None)
                self.accounts.remove(command.account)
            elif isinstance(command, Register | Unregister):
                self._register(self.accounts.registering(command.account), isinstance(command, Register))
            elif isinstance(command, SendOptions):
                self._send_options(command)
            elif isinstance(command, AddressChanged):
                self._address_changed()
            elif handle in self.calls:
                self._on_call(self.calls[handle], command)
            # A command for a call that has just ended crossed its Ended on the way: nothing to do.
        except Exception as error:
            self.emit(
                CommandFailed(
                    command=type(command).__name__,
                    call=handle,
                    account=str(getattr(command, "account", "")),
                    reason=scrubbed(error_text(error)),
                )
            )
            call = self.calls.get(handle)
            if call is not None and isinstance(command, Answer):
                self.abandon(call)

    def _on_call(self, call: LaneCall, command: AnyCommand) -> None:
        if isinstance(command, SetMedia):
            call.sdp.media = command
        elif not call.isActive():
            return  # its Ended is on the way
        elif isinstance(command, Ring):
            # Without call settings: with them PJSIP makes its offer to an INVITE without one right now.
            call.answer(call_param(180, media=False))
        elif isinstance(command, EarlyMedia):
            call.begin_early_media(command.sdp)
        elif isinstance(command, Answer):
            call.accept(command.sdp)
        elif isinstance(command, Reject):
            if call.inbound and not call.accepted:
                call.closing = True
                headers = self._refusal(command.headers)
                call.answer(call_param(command.status, command.reason, headers, command.challenges))
            else:  # our 200 is out already, or it is we who call: what can be refused no more is ended
                self._end(call, command.status, command.headers)
        elif isinstance(command, Hangup):
            self._end(call, 480, command.headers)
        else:
            self._inside_call(call, command)

    def _inside_call(self, call: LaneCall, command: AnyCommand) -> None:
        if isinstance(command, Hold | Resume):
            call.sdp.hold = isinstance(command, Hold)
            call.make_offer()
        elif isinstance(command, Reoffer):
            call.make_offer(update=command.update)
        elif isinstance(command, SendInfo):
            call.send_info(command)
        elif isinstance(command, Refer):
            call.refer(command)
        elif isinstance(command, AllowRefer):
            call.referral.allowed = True
        elif isinstance(command, NotifyTransfer):
            call.notify(command)

    def _refusal(self, headers: dict[str, str]) -> dict[str, str]:
        """For the edges before us: that this was decided, not that a lane is full (edge_script.py)."""
        marked = {FINAL: "call"} | headers if self.start.trusted else dict(headers)
        if not self.start.trusted:
            marked.pop(FINAL, None)
        return marked

    def _make_call(self, command: MakeCall) -> None:
        if self._stop_at:
            raise RuntimeError("the lane is stopping")
        call = LaneCall(self, self.accounts.find(command.account, command.route or None), command.call)
        call.sdp.next = command.sdp
        self.calls[command.call] = call
        param = call_param(headers=command.headers | edge_headers(self.start, command.route))
        if command.from_uri:
            param.txOption.localUri = command.from_uri
        target = self._hosts.substitute(command.target)
        if target != command.target:
            param.txOption.targetUri = target  # the request URI; To keeps the name
        try:
            call.makeCall(command.target, param)
        except pj.Error:
            self.bury(call)
            raise
        finally:
            self.accounts.settle()

    def _add_account(self, command: AddAccount) -> None:
        # The address of record keeps the name; only the request URI of REGISTER gets the address.
        self.accounts.add(msgspec.structs.replace(command, registrar=self._hosts.substitute(command.registrar)))

    def _register(self, account: LaneAccount, renew: bool) -> None:
        told = account.results
        try:
            account.setRegistration(renew)
        except pj.Error:
            if account.results == told:  # else the failure (a name known not to exist) has been reported on the way
                raise

    def _send_options(self, command: SendOptions) -> None:
        account = self.accounts.find(command.account, command.route)
        try:
            headers = edge_headers(self.start, command.route)
            account.sendRequest(options(command.token, self._hosts.substitute(command.target), headers))
        except pj.Error:
            self.emit(OptionsResult(token=command.token, status=0, answered=False))
        finally:
            self.accounts.settle()

    def _address_changed(self) -> None:
        """Connections from the old address are given up. Registering anew and moving calls is main's to ask for."""
        param = pj.IpChangeParam()
        param.restartListener = False
        self.stack.endpoint.handleIpChange(param)

    # --- the end --------------------------------------------------------------------------------------------

    def _begin_stop(self, patience_ns: int) -> None:
        deadline = mono_ns() + patience_ns
        if self._stop_at:
            self._stop_at = min(self._stop_at, deadline)
            return
        self._stop_at = deadline
        for call in list(self.calls.values()):
            with contextlib.suppress(pj.Error):
                self._end(call, 503, {})
        for account in self.accounts:
            if account.registered:
                with contextlib.suppress(pj.Error):
                    account.setRegistration(False)

    @property
    def _patience_ms(self) -> int:
        """How long to wait for the network before looking after our own affairs."""
        if self._unsent or self._stop_at:
            return _BUSY_POLL_MS
        return _POLL_MS if self.calls or self.graveyard else _IDLE_POLL_MS

    def _finished(self) -> bool:
        now = mono_ns()
        if (
            not self._alone
            and self._unsent
            and (len(self._unsent) > _BACKLOG_BYTES or now - self._unsent_since > _BACKLOG_NS)
        ):
            self._unsent.clear()  # main does not read: as good as gone
            self._begin_stop(_ORPHAN_NS)
        if not self._stop_at:
            return False
        busy = bool(self.calls) or any(account.registered for account in self.accounts)
        return now >= self._stop_at or not busy


def _route_to(host: str) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host.strip("[]"), 9))  # no packet is sent: the kernel only picks the route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def serve(main: socket.socket) -> NoReturn:
    """The forked child's whole life. Leaves when main's end of the socket closes."""
    die_with_parent()
    # Ctrl-C, a service manager's stop and a closed terminal reach every process of the group; a lane ends when main
    # says so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("sipagent-lane")
    main.setblocking(True)
    Lane(main).run()
