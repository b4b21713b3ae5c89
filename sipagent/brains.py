"""The agents of a node: one for each call, and what those of one kind share."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from sipagent.conversation.agents.chat import ChatAgent, ChatPlan
from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.interfaces import Agent, CallControl, Recogniser
from sipagent.conversation.knowledge.index import Knowledge
from sipagent.conversation.providers.catalogue import Catalogue, own_choice
from sipagent.conversation.providers.fallback import Choice, FallbackTts
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.openai_chat import OpenAiChat
from sipagent.conversation.providers.settings import Role
from sipagent.conversation.tools.making import ToolMaker
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.core import clock
from sipagent.core.errors import ConfigError
from sipagent.core.events import IntentFulfilled
from sipagent.core.ids import CallId
from sipagent.dialplan import tools
from sipagent.dialplan.model import AgentSpec, ChatSpec, Dialplan, KnowledgeSpec
from sipagent.speech.client import SpeechClient


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
