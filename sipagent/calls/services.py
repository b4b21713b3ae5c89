"""What every call of a node shares, and how an agent of the dialplan becomes a conversation."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from sipagent.calls.recording import Recordings
from sipagent.calls.settings import LimitSettings, StreamSettings, WaitingSettings
from sipagent.calls.streams.connection import Connector
from sipagent.conversation.interfaces import Agent, CallControl, MakeDetector, Recogniser, Tts
from sipagent.conversation.prosody import TurnJudge
from sipagent.conversation.providers.fallback import FallbackTts
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.events import EventSink
from sipagent.dialplan.model import AgentSpec
from sipagent.media.pool import MediaPool
from sipagent.sip import sdp
from sipagent.sip.lanes import LanePool
from sipagent.sip.settings import SipSettings, TransferPolicy, TrunkSettings, media_terms
from sipagent.sip.trunks import Trunks
from sipagent.web.client import WebClient
from sipagent.web.settings import WebSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    lane: LanePool
    media: MediaPool
    events: EventSink
    voice_for: Callable[[Sequence[str], Ledger], Tts]  # of texts that no agent says, by the dialplan's `tts`
    speech_for: Callable[[AgentSpec, Ledger], tuple[FallbackTts, Recogniser]]  # of one call
    make_vad: MakeDetector
    turn_judge: TurnJudge
    make_agent: Callable[[str, AgentSpec, CallControl, Ledger], Awaitable[Agent]]  # by dialplan/agent name, of one call
    sip: SipSettings
    trunks: Trunks
    conversation: ConversationSettings
    limits: LimitSettings
    waiting: WaitingSettings = WaitingSettings()
    recordings: Recordings
    web: WebClient  # for every URL that somebody gives
    streams: Connector  # to applications that hear calls
    stream_settings: StreamSettings = StreamSettings()
    web_settings: WebSettings = WebSettings()
    key_of: Callable[[str], bytes]  # signs what an app, "" for none, is asked; raises SipagentError or ValueError
    media_host: Callable[[str], str]  # our address as the SIP peer (host:port) should see it

    def trunk(self, name: str) -> TrunkSettings | None:
        return self.trunks.get(name)

    def transfer_policy(self, trunk: str) -> TransferPolicy:
        """How a caller of this trunk, "" for none, is handed on."""
        named = self.trunk(trunk)
        return (named.transfer if named is not None else "") or self.sip.transfer

    def terms(self, trunk: str) -> sdp.Terms:
        """What a call over this trunk, "" for none, may agree to. Raises ValueError when no codec is left."""
        ready = self.lane.ready
        terms = media_terms(self.sip, self.trunk(trunk), ready.codecs if ready is not None else ())
        return replace(terms, ip_version=0 if self.media.ipv6 else 4)
