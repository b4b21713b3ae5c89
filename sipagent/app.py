"""Composes a node: the only place that knows every plane. `sipagent serve` runs one."""

import asyncio
import fcntl
import hashlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from sipagent.api.backend import Backend
from sipagent.api.keys import hash_key, new_key
from sipagent.api.server import ApiServer
from sipagent.backend.access import LiveAccess
from sipagent.backend.calls import LiveCalls
from sipagent.backend.dialplans import LiveDialplans
from sipagent.backend.erasures import LiveErasures
from sipagent.backend.mutations import LiveMutations
from sipagent.backend.node import LiveNode
from sipagent.backend.nodes import LiveNodes
from sipagent.backend.recordings import LiveRecordings, kept_key
from sipagent.backend.reports import LiveReports
from sipagent.backend.resources import LiveResources
from sipagent.backend.steering import LiveSteering
from sipagent.backend.webhooks import Webhooks
from sipagent.calls import resuming, saved
from sipagent.calls.directory import Directory
from sipagent.calls.hooks import Hooks
from sipagent.calls.inventory import configured
from sipagent.calls.music import sound_of
from sipagent.calls.recording import Recordings
from sipagent.calls.registry import CallRegistry
from sipagent.calls.saved import SavedCall
from sipagent.calls.saver import Saver
from sipagent.calls.services import Services
from sipagent.calls.streams.connection import Connector
from sipagent.calls.transfer import REASONS
from sipagent.config import Config
from sipagent.conversation import chunking
from sipagent.conversation.agents.chat import ChatAgent, ChatPlan
from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.audio import collect
from sipagent.conversation.interfaces import Agent, CallControl, Recogniser, Tts
from sipagent.conversation.knowledge.index import Knowledge
from sipagent.conversation.languages import codes, language
from sipagent.conversation.phrases import NARROW, WIDE, PhraseCache
from sipagent.conversation.providers.catalogue import Catalogue, own_choice
from sipagent.conversation.providers.fallback import Choice, FallbackTts
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.providers.openai_chat import OpenAiChat
from sipagent.conversation.providers.settings import Role
from sipagent.conversation.tools.making import ToolMaker
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.core import clock, doors
from sipagent.core.errors import ConfigError, ProviderError, SetupError, SipagentError, where
from sipagent.core.events import (
    Event,
    EventHub,
    IntentFulfilled,
    PartialTranscript,
    ProcessEnded,
    SipMessages,
    WebhookDue,
    as_fields,
    private_fields,
)
from sipagent.core.ids import CallId
from sipagent.core.ipc import frame
from sipagent.core.kept import kept
from sipagent.core.program import fingerprint
from sipagent.core.resources import shipped_folder
from sipagent.dialplan import tools
from sipagent.dialplan.loader import load_folder
from sipagent.dialplan.model import (
    AgentSpec,
    ChatSpec,
    Dialplan,
    KnowledgeSpec,
    fixed_texts,
    may_transfer,
    said_texts,
    urgent_texts,
)
from sipagent.media import protocol as media_protocol
from sipagent.media.pool import MediaPool
from sipagent.media.stand_in import MUSIC
from sipagent.sip import protocol as lane_protocol
from sipagent.sip import zygote
from sipagent.sip.edge import tls_of
from sipagent.sip.lanes import LanePool
from sipagent.sip.locate import DnsResolver, Locator
from sipagent.sip.names import HostsFile, name_servers
from sipagent.sip.nat import Nat
from sipagent.sip.protocol import LANE_DOOR, AnyFact, LaneReady, OptionsResult, RegistrationResult
from sipagent.sip.registrar import Registrar
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.tls_check import CertificateCheck
from sipagent.sip.trunk_changes import TrunkChanges, check_room, check_trunks, compare
from sipagent.sip.trunk_watch import TrunkWatch
from sipagent.sip.trunks import Trunks
from sipagent.speech import protocol as speech_protocol
from sipagent.speech.client import SpeechClient
from sipagent.speech.protocol import SPEECH_DOOR
from sipagent.speech.vad import make_vad
from sipagent.store import engine as store_engine
from sipagent.store.queries import StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.recording_files import RecordingFiles
from sipagent.store.records import RecordUnavailable
from sipagent.store.redaction import redactor
from sipagent.store.resources import MadeResources
from sipagent.store.retention import Retention
from sipagent.store.sealing import Seal, seal_of
from sipagent.store.writing import StoreWrites
from sipagent.web.client import WebClient
from sipagent.web.guard import Guard
from sipagent.web.signing import key_of, new_secret

log = logging.getLogger(__name__)

RETRY_S = 5.0  # after dialplans could not be prepared; doubled up to RETRY_MOST_S
RETRY_MOST_S = 60.0
PROGRAM = "program"  # the file that tells whose processes are behind the doors of the folder `run`
HAD_TRUNKS = "had-trunks"  # a mark in the state folder: callers from anywhere are refused, whoever is main
PARTING_S, LOOK_S = 5.0, 0.05
STORE_WAIT_S = 1.5  # for each thing that a start wants of the database while calls wait

MANNERS = {code: language(code).manners for code in codes()}


def database_url(config: Config, state: Path) -> str:
    return config.store.url or store_engine.default_url(state)


def journal_folder(state: Path) -> Path:
    return state / "journal"


def recordings_folder(config: Config, state: Path) -> Path:
    return Path(config.recordings.folder) if config.recordings.folder else state / "recordings"


def local_key(state: Path) -> tuple[str, str]:
    """The API key of a node for which none is configured, and its hash: made once, kept in the state folder for the
    commands of the same user."""
    plain = kept(state / "api.key", lambda: new_key()[0])
    return plain, hash_key(plain)


def hook_key(secret: str, state: Path) -> bytes:
    """What signs webhooks, and what is asked of flow URLs. Without a secret one is made once, and kept in the state
    folder. Raises ConfigError."""
    if not secret:
        secret = kept(state / "webhook.key", new_secret)
    try:
        return key_of(secret)
    except ValueError as error:
        raise ConfigError(f"[web] secret: {error}") from error


def dismiss(state: Path) -> None:
    """Tells the processes that a dead main has left that no other comes: they end their calls in order, and leave."""
    run = state / "run"
    stream, packets = socket.SOCK_STREAM, socket.SOCK_SEQPACKET
    for prefix, kind, goodbye in (
        (LANE_DOOR, stream, frame(lane_protocol.encoder.encode(lane_protocol.Stop()))),
        ("media-", stream, frame(media_protocol.encoder.encode(media_protocol.Stop()))),
        (SPEECH_DOOR, stream, frame(speech_protocol.encoder.encode(speech_protocol.Cancel(id=speech_protocol.LEAVE)))),
        (zygote.DOOR, packets, zygote.LEAVE),
    ):
        for name in doors.names(run, prefix):
            met = doors.knock(run, name, kind)
            if met is not None:
                with met[0], suppress(OSError):
                    met[0].send(goodbye)


async def part_with_another(state: Path) -> bool:
    """Whether processes are left of a main of another program than this one: what they say, or have in memory, may mean
    something else by now. They are told to end their calls in order, and are gone when this returns."""
    run, mark = state / "run", state / PROGRAM
    known = mark.read_text("utf-8") if mark.exists() else ""
    others = doors.names(run, "")
    another = bool(others) and known != fingerprint()
    if another:
        log.warning("what another version of this program has left is ended", extra={"processes": len(others)})
        await asyncio.to_thread(dismiss, state)
        looks = int(PARTING_S / LOOK_S)
        for _ in range(looks):
            if not any((run / name).exists() for name in others):
                break
            await asyncio.sleep(LOOK_S)
        for name in others:
            doors.take_away(run, name)
    mark.write_text(fingerprint(), "utf-8")
    return another


@dataclass(frozen=True, slots=True)
class Death:
    """How an earlier main of this node ended."""

    pid: int
    reason: str
    at: int  # ns, monotonic
    often: bool = False  # it was not the first in a short while: one of the calls may be the reason


class Brains:
    """Makes an agent for each call; what agents of one kind share is made once."""

    def __init__(
        self,
        speech: SpeechClient,
        http: aiohttp.ClientSession,
        catalogue: Catalogue,
        settings: ToolSettings,
        state: Path,
    ) -> None:
        self._speech = speech
        self._http = http
        self._catalogue = catalogue
        self._own: dict[str, tuple[ChatSpec, Choice]] = {}  # language models that stand in dialplans
        self._rounds = settings.rounds
        self._tool_maker = ToolMaker(settings, os.environ)
        self._plans: dict[str, tuple[AgentSpec, ChatPlan]] = {}
        self._state = state
        self._knowledge: dict[str, Knowledge] = {}  # by agent
        self._unread: dict[tuple[str, KnowledgeSpec], Knowledge] = {}  # what calls have that came before the reading
        self._matchers: dict[str, tuple[AgentSpec, IntentMatcher]] = {}

    async def make(self, name: str, spec: AgentSpec, control: CallControl, ledger: Ledger) -> Agent:
        """An agent of this name for one call. Raises ProviderError or ConfigError."""
        if spec.chat is not None:
            model = self._catalogue.llm(spec.llm, ledger, self._own_model(name, spec.chat))
            return ChatAgent(model, await self._plan(name, spec, spec.chat, away=set()), control)
        manners = IntentManners(
            unknown=spec.unknown,
            unknown_limit=spec.unknown_limit,
            give_up=spec.give_up,
            language=spec.language,
            start=spec.start,
        )

        def fulfilled(intent: str, values: dict[str, str]) -> None:
            control.events.emit(
                IntentFulfilled(at=clock.now(), call_id=CallId(control.facts.call_id), intent=intent, values=values)
            )

        knowledge = self._known(name, spec)
        return IntentAgent(await self._matcher(name, spec), spec.intents, manners, fulfilled, knowledge=knowledge)

    async def prepare(self, dialplans: Sequence[Dialplan]) -> None:
        """Does the work of the first call beforehand, for all the dialplans there are: what others had is let go, such
        as their servers of tools once no call has them. Raises and changes nothing."""
        before = dict(self._plans), dict(self._knowledge)
        try:
            for dialplan in dialplans:
                await self._prepare(dialplan)
        except BaseException:
            self._plans, self._knowledge = before
            raise
        there = {f"{dialplan.name}/{agent}" for dialplan in dialplans for agent in dialplan.agents}
        kept: tuple[dict[str, Any], ...] = (self._plans, self._knowledge, self._matchers, self._own)
        for agents in kept:
            for gone in agents.keys() - there:
                del agents[gone]

    async def _prepare(self, dialplan: Dialplan) -> None:
        self._catalogue.check(f"dialplan {dialplan.name}", "tts", dialplan.tts)
        for name, spec in dialplan.agents.items():
            named: dict[Role, tuple[str, ...]] = {"stt": spec.stt, "llm": spec.llm, "tts": spec.tts}
            for role, names in named.items():
                self._catalogue.check(f"agent {name} of dialplan {dialplan.name}", role, names)
            if spec.knowledge is not None:
                await self._read(f"{dialplan.name}/{name}", Path(dialplan.folder), spec.knowledge)
            if spec.chat is None:
                await self._matcher(f"{dialplan.name}/{name}", spec)
                continue
            needed = {spec.chat.api_key_env} - {""} | tools.environment(spec.chat.tools, spec.chat.mcp)
            for variable in sorted(needed - os.environ.keys()):
                raise ConfigError(
                    f"agent {name} of dialplan {dialplan.name}: the environment variable {variable} is not set"
                )
            await self._plan(f"{dialplan.name}/{name}", spec, spec.chat)

    def speech(self, spec: AgentSpec, ledger: Ledger) -> tuple[FallbackTts, Recogniser]:
        """How one call's agent speaks and hears."""
        return self._catalogue.tts(spec.tts, ledger), self._catalogue.recogniser(spec.stt, ledger)

    def _own_model(self, name: str, chat: ChatSpec) -> Choice | None:
        """None where the agent's `llm` says it all."""
        if not chat.base_url:
            return None
        known = self._own.get(name)
        if known is None or known[0] != chat:  # calls share it, and how it has done
            key = chat.api_key or (os.environ.get(chat.api_key_env, "") if chat.api_key_env else "")
            model = OpenAiChat(
                self._http,
                chat.base_url,
                chat.model,
                api_key=key,
                temperature=chat.temperature,
                max_tokens=chat.max_tokens,
            )
            known = self._own[name] = (chat, own_choice(model, name))
        return known[1]

    async def close(self) -> None:
        await self._tool_maker.close()

    def _known(self, name: str, spec: AgentSpec) -> Knowledge | None:
        """That of a call which is taken up before the documents are read is filled when they are."""
        if spec.knowledge is None or name in self._knowledge:
            return self._knowledge.get(name)
        knowledge = Knowledge(self._speech, spec.knowledge.top, spec.knowledge.threshold)
        return self._unread.setdefault((name, spec.knowledge), knowledge)

    async def _read(self, name: str, beside: Path, spec: KnowledgeSpec) -> None:
        """Documents that have changed since are read anew; calls that are up keep what they know."""
        folder = (beside / spec.folder).resolve()
        kept = self._state / "knowledge" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        knowledge = self._unread.get((name, spec)) or Knowledge(self._speech, spec.top, spec.threshold)
        await knowledge.read(folder, kept)
        self._unread.pop((name, spec), None)
        self._knowledge[name] = knowledge
        self._plans.pop(name, None)

    async def _plan(self, name: str, spec: AgentSpec, chat: ChatSpec, away: set[str] | None = None) -> ChatPlan:
        """With ``away``, one without the tools of servers that do not answer, for one call."""
        known = self._plans.get(name)
        if known is not None and known[0] == spec:
            return known[1]
        plan = ChatPlan(
            prompt=chat.prompt,
            greeting=spec.greeting,
            transfer_targets=chat.transfer_targets,
            tools=await self._tool_maker.make(name, chat.tools, chat.mcp, away),
            rounds=self._rounds,
            knowledge=self._known(name, spec),
        )
        if not away:
            self._plans[name] = (spec, plan)
        return plan

    async def _matcher(self, name: str, spec: AgentSpec) -> IntentMatcher:
        known = self._matchers.get(name)
        if known is not None and known[0] == spec:  # a reloaded dialplan may say something else
            return known[1]
        matcher = IntentMatcher(self._speech, spec.intents)
        await matcher.prepare()
        self._matchers[name] = (spec, matcher)
        return matcher


class Node:
    """One node. `start` brings everything up in order or raises; `close` ends calls in order, whatever is up."""

    def __init__(self, config: Config, state: Path, before: Death | None = None, *, survives: bool = False) -> None:
        """``survives``: somebody starts another main when this one dies, to go on with its calls; `before` is how the
        one before this ended."""
        self.config = config
        self.state = state
        self._before = before
        run = state / "run" if survives else None
        self.hub = EventHub()
        self.started = clock.now()
        self._dialplan_folder = Path(config.node.dialplans) if config.node.dialplans else shipped_folder("dialplans")
        self._exit = AsyncExitStack()
        media = msgspec.structs.replace(config.media, host6=config.media.host6 or config.sip.host6)
        self.media = MediaPool(media, self.hub, run)
        self.nat = Nat(
            public_host=config.media.public_host or config.sip.public_host,
            bound=next((h for h in (config.media.host, config.sip.host) if h not in ("", "0.0.0.0")), ""),
            bound6=media.host6,
            stun_servers=config.sip.stun_servers,
            every_s=config.sip.stun_every_s,
            events=self.hub,
        )
        self.lane = LanePool(
            config.sip,
            self.hub,
            max_calls=config.limits.max_calls,
            folder=state / "edge",
            run=run,
        )
        self.speech = SpeechClient(config.speech, self.hub, run)
        self._saver = Saver(state / "calls") if survives else None
        self.recorder: Recorder
        self.registry: CallRegistry
        self.registrar: Registrar
        self.trunks: TrunkWatch
        self.recordings: Recordings
        self.web: WebClient
        self.resources: LiveResources
        self._reports: LiveReports
        self.seal: Seal
        self._files: RecordingFiles
        self._reads: StoreReads
        self._writes: StoreWrites
        self._access: LiveAccess
        self.api: ApiServer | None = None
        self._phrases = PhraseCache(self.speech)
        self._preparing: asyncio.Task[int | None] | None = None
        self._brains: Brains
        self._catalogue: Catalogue
        self._taken_up = False
        self._calls_wait = False  # until they are taken up
        self.more_trunks: Callable[[], Sequence[TrunkSettings]] = tuple  # those that are not of the configuration
        self._applying: set[asyncio.Task[TrunkChanges]] = set()
        self._one_after_another = asyncio.Lock()

    async def start(self) -> None:
        """Raises ConfigError or SetupError with the sentence for the operator; nothing is left running then."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        self._lock()
        another = self._saver is not None and await part_with_another(self.state)
        check_trunks(self.config.trunks, self.config.sip)
        wanted, slots = self.config.limits.max_calls, self.config.media.capacity
        if wanted > slots:
            raise ConfigError(f"[limits] max_calls is {wanted}, but [media] capacity has slots for {slots}: raise it")
        dialplans = load_folder(self._dialplan_folder, MANNERS)
        url = database_url(self.config, self.state)
        left = saved.read_all(self.state / "calls")
        self._calls_wait = bool(left) and self._before is not None and not another
        await self._of_the_database(asyncio.to_thread(store_engine.upgrade, url))
        self.recorder = Recorder(
            url,
            folder=journal_folder(self.state),
            spill_bytes=self.config.store.spill_mb << 20,
            backlog=self.config.store.backlog,
            node=self.config.node.name,
            redact=redactor(self.config.redaction),
        )
        self.recorder.start(frozenset(call.id for call in left))
        self._exit.push_async_callback(self._close_recorder)
        self.hub.subscribe(self.recorder.emit)
        self.hub.subscribe(log_event)
        folder = recordings_folder(self.config, self.state)
        self.recordings = Recordings(self.config.recordings, folder, self.hub)
        self._files = RecordingFiles(folder, self.config.node.name)
        self._exit.push_async_callback(self.recordings.close)
        if self._saver is not None:
            self._exit.push_async_callback(self._saver.close)
            self._saver.start()
            self.hub.subscribe(self._saver.emit)

        vad = make_vad(self.config.speech)
        self._hook_key = hook_key(self.config.web.secret, self.state)
        self.web = WebClient(Guard(self.config.web.allow, "[web] allow"))
        self._exit.push_async_callback(self.web.close)
        directory = Directory()
        await self._load_resources(url, directory)
        trunks = [*self.config.trunks, *self.more_trunks()]
        if self._before is None:
            (self.state / HAD_TRUNKS).unlink(missing_ok=True)
        self._note_trunks(trunks)
        streams = Connector(self.web.guard, self.config.streams.connect_s)
        self._exit.push_async_callback(streams.close)
        http = await self._exit.enter_async_context(aiohttp.ClientSession())
        catalogue = self._catalogue = Catalogue(
            self.config.providers,
            http,
            self._phrases,
            LocalRecogniser(self.speech, self.config.conversation),
            self.config.conversation,
        )
        self._brains = Brains(self.speech, http, catalogue, self.config.tools, self.state)
        self._exit.push_async_callback(self._brains.close)
        services = Services(
            lane=self.lane,
            media=self.media,
            events=self.hub,
            voice_for=self._voice_for,
            speech_for=self._brains.speech,
            make_vad=vad,
            turn_judge=self.speech,
            make_agent=self._brains.make,
            sip=self.config.sip,
            trunks=Trunks(trunks, closed=(self.state / HAD_TRUNKS).exists()),
            conversation=self.config.conversation,
            limits=self.config.limits,
            waiting=self.config.waiting,
            recordings=self.recordings,
            web=self.web,
            streams=streams,
            stream_settings=self.config.streams,
            web_settings=self.config.web,
            key_of=self._key_of,
            media_host=self.nat.media_towards,
        )
        self.registry = CallRegistry(services, dialplans, self._saver, directory)
        to_receivers = WebClient(Guard(self.config.web.allow, "[web] allow"))  # calls wait for the other one's threads
        self._exit.push_async_callback(to_receivers.close)
        self.webhooks = Webhooks(self._reads, self._writes, to_receivers, self._key_of)
        self._exit.push_async_callback(self.webhooks.close)
        self._hooks = Hooks(self._webhook_of, self._due, redactor(self.config.redaction))
        self.hub.subscribe(self._hooks.take)
        self.webhooks.start()
        self.registrar = Registrar(trunks, self.lane, self.hub)
        locator = Locator(
            DnsResolver(self.config.sip.name_servers or name_servers()), HostsFile(), ipv6=bool(self.config.sip.host6)
        )
        tls = tls_of(self.config.sip)
        certificates = CertificateCheck(tls) if tls is not None else None
        self.trunks = TrunkWatch(self.registry.trunks, self.lane, self.hub, locator, certificates=certificates)
        self.trunks.on_trusted = self.lane.trust
        self._connect_lane()
        self.lane.public_towards = self.nat.public_towards
        self.nat.on_public = self.lane.learned_address
        self._exit.push_async_callback(self.speech.close)
        self._exit.push_async_callback(self.media.close)
        if left or self._before is not None:
            await self._take_up(left)
        await self.trunks.prepare()
        self._exit.push_async_callback(self.nat.close)
        await self.nat.start()
        # The lane comes last: from its first moment on, calls may come in.
        if not self._taken_up:
            await asyncio.gather(self.speech.start(), self.media.start())
            self.media.close_unclaimed()  # also of an earlier main that has left no call
        self._exit.push_async_callback(self._stop_preparing)
        if self._taken_up:  # the caller waits; texts are spoken all the same, and made when they are
            self._prepare(until_prepared(lambda: self._prepare_dialplans(dialplans)))
        else:
            await self._prepare_dialplans(dialplans)
            await self._start_lane()
        self.registry.draining = False
        watch = asyncio.create_task(self.registry.watch(), name="watchdog")
        self._exit.callback(watch.cancel)
        self._exit.push_async_callback(self.registrar.close)
        self.registrar.start()
        self._exit.push_async_callback(self.trunks.close)
        self.trunks.start()
        self.resources.follow_trunks = self.apply_trunks
        self.resources.follow()  # what was read since, or is read at last
        self._exit.push_async_callback(self._end_applying)
        self._reports = LiveReports(database_url(self.config, self.state), self.config.reports, self.config.prices)
        self._exit.push_async_callback(self._reports.close)
        self._reports.start()
        if self.config.api.enabled:
            await self._start_api()
        self._exit.callback(self.registry.refuse_new)
        self._exit.push_async_callback(self.lane.drain)

    async def _start_lane(self) -> None:
        self._exit.push_async_callback(self.lane.close)
        self._exit.push_async_callback(self.registry.drain)
        await self.lane.start()
        check_room(self.registry.trunks.settings, self.lane.registrations)
        self.lane.go_on()

    async def _take_up(self, left: Sequence[SavedCall]) -> None:
        """Goes on with what an earlier main has left, before anything else that takes time; new calls have to wait."""
        self._taken_up = True
        self.registry.draining = True
        await asyncio.gather(self.speech.start(), self.media.start())
        self._exit.push_async_callback(self.lane.close)
        self._exit.push_async_callback(self.registry.drain)
        await self.lane.start()
        before = self._before
        lost_at, often = (before.at, before.often) if before is not None else (0, False)
        going_on = resuming.take_up(self.registry, left, lost_at, self._replay, to_end=often)
        self.media.close_unclaimed()
        self.lane.go_on()
        if before is not None:
            self.hub.emit(
                ProcessEnded(
                    at=clock.now(), process="main", pid=before.pid, reason=before.reason, calls_affected=len(left)
                )
            )
        log.warning("calls of an earlier main are taken up", extra={"calls": len(left), "going_on": going_on})

    def _webhook_of(self, app_id: str) -> str:
        app = self.registry.directory.app(app_id)
        return app.webhook_url if app is not None else ""

    def _key_of(self, app_id: str) -> bytes:
        """What signs for this app, "" for none. Raises NotSealedByUs, or ValueError for what is no signing secret."""
        inventory = self.registry.directory.inventory
        app = inventory.apps.get(app_id)
        secret = inventory.secrets.get(app.secret_id) if app is not None and app.secret_id else None
        if secret is None:
            return self._hook_key
        try:
            return key_of(self.seal.open(secret.value))
        except ValueError as error:
            raise ValueError(f"the app's secret: {error}") from error

    def _due(self, event: WebhookDue) -> None:
        self.recorder.emit(event)
        self.webhooks.due()

    def _replay(self, event: Event) -> None:
        self.recorder.emit(event)  # which knows those that it has
        self._hooks.take(event)
        if self._saver is not None:
            self._saver.replay(event)

    async def _load_resources(self, url: str, directory: Directory) -> None:
        """Before any call comes in: they say who takes it."""
        self._reads, self._writes = StoreReads(url), StoreWrites(url)
        self._exit.push_async_callback(self._reads.close)
        self._exit.push_async_callback(self._writes.close)
        retention = Retention(self.config.retention, self._writes, self._files)
        self._exit.push_async_callback(retention.close)
        retention.start()
        config = self.config
        self.seal = seal_of(self.state, config.store.seal_key)
        self.resources = LiveResources(
            self._configured(),
            self._reads,
            self._writes,
            directory,
            self.seal,
            lambda: self.registry.dialplans,
            self.web.guard,
        )
        self.resources.check_trunks = lambda made: check_trunks([*self.config.trunks, *made], self.config.sip)
        self._exit.push_async_callback(self.resources.close)
        await self._of_the_database(self.resources.start())
        self.more_trunks = lambda: self.resources.made_trunks
        self._access = LiveAccess(self._reads, self._writes, config.node.name)
        self._exit.push_async_callback(self._access.close)
        await self._of_the_database(self._access.start())

    async def _of_the_database(self, work: Awaitable[None]) -> None:
        """Where calls wait for us it is not waited for long, and what it raises is logged: LiveResources and LiveAccess
        look again, and whoever made those calls had the schema."""
        if not self._calls_wait:
            return await work
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await work
        except (SetupError, RecordUnavailable, TimeoutError) as error:
            log.error(
                "the database does not answer: calls go on, with what the configuration says",
                extra={"error": str(error)},
            )

    def _configured(self) -> MadeResources:
        config = self.config
        return configured(config.apps, config.numbers, config.trunks, config.ip_acls, self.seal)

    async def _start_api(self) -> None:
        settings = self.config.api
        if not settings.key_hashes:
            settings = msgspec.structs.replace(settings, key_hashes=[local_key(self.state)[1]])
        node = LiveNode(self.registry, self.registrar, self.recorder, lambda: self.processes)
        nodes = LiveNodes(
            self.config.node.name,
            self._reads,
            self._writes,
            node,
            lambda: self.api.url if self.api is not None else "",
            self.registry.drain_only,
        )
        backend = Backend(
            calls=LiveCalls(self.registry, self._reads),
            steering=LiveSteering(self.registry),
            mutations=LiveMutations(self.registry),
            recordings=LiveRecordings(self.registry, self._reads, self.recordings.folder, kept_key(self.state)),
            node=node,
            nodes=nodes,
            dialplans=LiveDialplans(self._dialplan_folder, MANNERS, lambda: self.registry.dialplans, self.reload),
            resources=self.resources,
            webhooks=self.webhooks,
            access=self._access,
            reports=self._reports,
            erasures=LiveErasures(self._reads, self._writes, self.recorder, self._files),
        )
        self.api = ApiServer(settings, backend, self.hub)
        self._exit.push_async_callback(self.api.close)
        await self.api.start()
        self._exit.push_async_callback(nodes.close)
        nodes.start()

    async def close(self) -> None:
        """Calls are ended and written down first, then the processes, the record last. Idempotent."""
        await self._exit.aclose()

    async def reload(self, config: Config | None = None) -> None:
        """Reads the dialplans again, and takes the trunks of the configuration, where one is given; what else it says
        waits for the next start. Calls that are up keep what they have. Raises ConfigError and changes nothing."""
        if config is not None:
            self._check_trunks([*config.trunks, *self.more_trunks()])
        dialplans = load_folder(self._dialplan_folder, MANNERS)
        await self._prepare_dialplans(dialplans)  # takes its time, in which trunks are made over the API
        if config is not None:
            before, self.config = self.config, msgspec.structs.replace(self.config, trunks=config.trunks)
            try:
                await self.apply_trunks()
            except ConfigError:
                self.config = before
                raise
        self.registry.dialplans = dialplans
        if config is not None:
            await self.resources.configure(self._configured())

    def waits_for_a_start(self, config: Config) -> list[str]:
        """The tables of this configuration, other than trunks, that are not as we are."""
        ours, theirs = (msgspec.structs.asdict(each) for each in (self.config, config))
        return [table for table in ours if table != "trunks" and ours[table] != theirs[table]]

    async def apply_trunks(self) -> TrunkChanges:
        """Those of the configuration and of the API, and no others, are the node's trunks from now on. Who is the same
        notices nothing; calls of a trunk that is gone go on to their end. Returns when new ones have been looked up in
        DNS, as far as that gives them within some seconds. Raises ConfigError and changes nothing.
        """
        work = asyncio.create_task(self._follow_trunks(), name="apply-trunks")
        self._applying.add(work)
        work.add_done_callback(self._applying.discard)
        return await asyncio.shield(work)  # whoever asked may leave

    def _check_trunks(self, trunks: Sequence[TrunkSettings]) -> None:
        check_trunks(trunks, self.config.sip)
        check_room(trunks, self.lane.registrations)

    async def _follow_trunks(self) -> TrunkChanges:
        async with self._one_after_another:
            trunks = (*self.config.trunks, *self.more_trunks())  # as they are when it is our turn
            self._check_trunks(trunks)
            self._note_trunks(trunks)
            changes = compare(self.registry.trunks.settings, trunks)
            if not changes and trunks == self.registry.trunks.settings:
                return changes
            self.registry.trunks.apply(trunks)
            for name in changes.removed:
                self.nat.forget(name)
            self.registrar.leave(trunks)
            try:
                await self.trunks.follow(changes)
            finally:  # trying again finds nothing that has changed
                await self.registrar.follow(trunks)
            names = {kind: sorted(getattr(changes, kind)) for kind in ("added", "changed", "removed")}
            log.info("trunks are others now", extra=names)
            return changes

    def _note_trunks(self, trunks: Sequence[TrunkSettings]) -> None:
        """For the main after us, which may find none left."""
        with suppress(OSError):  # the mark matters only where the last trunk goes
            if trunks:
                (self.state / HAD_TRUNKS).touch()

    async def _end_applying(self) -> None:
        for work in self._applying:
            work.cancel()
        await asyncio.gather(*self._applying, return_exceptions=True)

    @property
    def processes(self) -> dict[str, int]:
        """Process ids by role."""
        found = {"main": os.getpid(), **self.lane.pids}
        found |= {"media" if i == 0 else f"media-{i}": pid for i, pid in enumerate(self.media.pids)}
        return found | {f"speech-{i}": pid for i, pid in enumerate(self.speech.pids)}

    def _lock(self) -> None:
        """One node per state folder: a second one would take the first one's live calls for leftovers of a crash."""
        descriptor = os.open(self.state / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._exit.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                f"another node runs with the state folder {self.state}: end it, or set another [node] state_dir"
            ) from None

    def _connect_lane(self) -> None:
        self.lane.on_incoming = self.registry.on_incoming
        self.lane.on_fact = self._fact
        self.lane.on_over_limit = self.registry.on_over_limit
        self.lane.on_lost = self.registry.on_lane_lost
        self.lane.on_ready = self._lane_ready
        self.lane.on_registration = self._registration
        self.lane.on_tls_trouble = self.trunks.suspect
        self.lane.on_homeless = self.registrar.homeless
        self.registrar.servers = self.trunks.servers
        self.registrar.distrust = self.trunks.distrust
        self.trunks.registrations = lambda: self.registrar.states
        self.trunks.on_moved = self.registrar.address_changed

    def _fact(self, fact: AnyFact) -> None:
        if isinstance(fact, OptionsResult):
            self.trunks.on_fact(fact)
        else:
            self.registry.on_fact(fact)

    def _lane_ready(self, _ready: LaneReady) -> None:
        if not (self._taken_up and self.registry.draining):  # then its accounts wait until trunks are located
            self.registrar.lane_ready()

    def _registration(self, fact: RegistrationResult) -> None:
        if fact.status // 100 == 2:
            self.nat.seen_by_registrar(fact.account, fact.server, fact.seen)
        self.registrar.result(fact)

    async def _prepare_dialplans(self, dialplans: Sequence[Dialplan]) -> None:
        await self._brains.prepare(dialplans)
        await self._prepare_phrases(dialplans)

    def _voice_for(self, names: Sequence[str], ledger: Ledger) -> Tts:
        """Of what the steps of a dialplan say."""
        return self._catalogue.tts(names, ledger) if names else self._phrases

    async def _prepare_phrases(self, dialplans: Sequence[Dialplan]) -> None:
        """Synthesises what must be at hand now, and the other fixed texts while the node is already at work."""
        agents = [agent for plan in dialplans for agent in plan.agents.values()]
        failed = await self._phrases.prepare(_clauses(text for agent in agents for text in urgent_texts(agent)))
        if failed:
            raise ProviderError(f"{failed} fixed texts of the dialplans cannot be spoken", retryable=False)
        await self._leave_sounds(agents)
        rest = []
        for plan in dialplans:
            said = [text for steps in plan.steps.values() for text in said_texts(steps)]
            rest.append((self._catalogue.phrases(plan.tts), _clauses(said)))
        for agent in agents:
            back = [agent.transfer_failed.format(reason=why) for why in REASONS] if may_transfer(agent) else []
            rest.append((self._catalogue.phrases(agent.tts), _clauses([*fixed_texts(agent), *back])))
        self._prepare(_prepare(rest))

    def _prepare(self, work: Coroutine[Any, Any, int | None]) -> None:
        """In place of what is being prepared already."""
        if self._preparing is not None and self._preparing is not asyncio.current_task():
            self._preparing.cancel()
        self._preparing = asyncio.create_task(work, name="phrases")
        self._preparing.add_done_callback(_phrases_prepared)

    async def _leave_sounds(self, agents: Sequence[AgentSpec]) -> None:
        """With the media process, for the time that there is no main."""
        for text in dict.fromkeys(agent.away for agent in agents if agent.away):
            narrow, wide = [
                np.concatenate([await collect(self._phrases.speak(clause, rate)) for clause in _clauses([text])])
                for rate in (NARROW, WIDE)
            ]
            self.media.leave_sound(text, narrow, wide)
        music = sound_of("", self.config.waiting, "")
        narrow, wide = [await asyncio.to_thread(music, rate) for rate in (NARROW, WIDE)]
        self.media.leave_sound(MUSIC, narrow, wide)

    async def _stop_preparing(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait({self._preparing})

    async def _close_recorder(self) -> None:
        lost = await self.recorder.close()
        if lost:
            log.error("events could not be written to the record", extra={"lost": lost})


async def until_prepared(prepare: Callable[[], Awaitable[None]]) -> None:
    """For a node that has calls already, while what it needs may be away."""
    pause = RETRY_S
    while True:
        try:
            return await prepare()
        except Exception as error:
            why = str(error) if isinstance(error, SipagentError) else where(error)
            log.error(
                "the dialplans could not be prepared; agents may lack documents and tools",
                extra={"again_in_s": pause, "error": why},
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, RETRY_MOST_S)


def _clauses(texts: Iterable[str]) -> list[str]:
    """As the conversation will ask for them."""
    return [clause for text in texts for clause in chunking.split(text)]


async def _prepare(texts: Sequence[tuple[PhraseCache, Sequence[str]]]) -> int:
    """By the voice that shall speak them; how many could not be made."""
    return sum([await phrases.prepare(clauses) for phrases, clauses in texts])


def _phrases_prepared(task: "asyncio.Task[int | None]") -> None:
    if task.cancelled():
        return
    if error := task.exception():
        log.error("fixed texts could not be prepared; they are made when needed", exc_info=error)
    elif task.result():
        log.error("fixed texts could not be prepared; they are made when needed", extra={"failed": task.result()})


def log_event(event: Event) -> None:
    """Every event as a log line, without what is private."""
    if isinstance(event, PartialTranscript | SipMessages):
        return
    private = private_fields(event)
    fields = as_fields(event)
    fields.pop("at")
    log.info(
        "event",
        extra={
            "event": type(event).__name__,
            "data": {key: value for key, value in fields.items() if key not in private},
            "pii": {key: fields[key] for key in private},
        },
    )
