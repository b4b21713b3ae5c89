"""Composes a node: the only place that knows every plane. `sipagent serve` runs one."""

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from sipagent.api.backend import Backend
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
from sipagent.brains import Brains
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
from sipagent.conversation.audio import collect
from sipagent.conversation.interfaces import Tts
from sipagent.conversation.languages import codes, language
from sipagent.conversation.phrases import NARROW, WIDE, PhraseCache
from sipagent.conversation.providers.catalogue import Catalogue
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.core import clock
from sipagent.core.errors import ConfigError, ProviderError, SetupError, SipagentError, where
from sipagent.core.events import (
    Event,
    EventHub,
    ProcessEnded,
    WebhookDue,
)
from sipagent.core.resources import shipped_folder
from sipagent.dialplan.loader import load_folder
from sipagent.dialplan.model import (
    AgentSpec,
    Dialplan,
    fixed_texts,
    may_transfer,
    said_texts,
    urgent_texts,
)
from sipagent.logs import log_event
from sipagent.media.pool import MediaPool
from sipagent.media.stand_in import MUSIC
from sipagent.predecessor import Death, part_with_another
from sipagent.sip.edge import tls_of
from sipagent.sip.lanes import LanePool
from sipagent.sip.locate import DnsResolver, Locator
from sipagent.sip.names import HostsFile, name_servers
from sipagent.sip.nat import Nat
from sipagent.sip.protocol import AnyFact, LaneReady, OptionsResult, RegistrationResult
from sipagent.sip.registrar import Registrar
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.tls_check import CertificateCheck
from sipagent.sip.trunk_changes import TrunkChanges, check_room, check_trunks, compare
from sipagent.sip.trunk_watch import TrunkWatch
from sipagent.sip.trunks import Trunks
from sipagent.speech.client import SpeechClient
from sipagent.speech.vad import make_vad
from sipagent.state_folder import database_url, hook_key, journal_folder, local_key, recordings_folder
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
from sipagent.web.signing import key_of

log = logging.getLogger(__name__)

RETRY_S = 5.0  # after dialplans could not be prepared; doubled up to RETRY_MOST_S
RETRY_MOST_S = 60.0
HAD_TRUNKS = "had-trunks"  # a mark in the state folder: callers from anywhere are refused, whoever is main
STORE_WAIT_S = 1.5  # for each thing that a start wants of the database while calls wait

MANNERS = {code: language(code).manners for code in codes()}


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
