"""An Asterisk set up as a PBX or carrier that sipagent has several trunks to: one endpoint for each habit a trunk has.

Every call's channel notes our Call-ID in its call record, so that its view of a call can be laid beside ours.
"""

import csv
import re
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.peers.ami import SECRET, USER, Ami, Block
from tests.peers.asterisk import PASSWORD, Asterisk, Installation
from tests.peers.papers import Papers
from tests.peers.ports import free_port
from tests.wait import until

TONE_HZ = 620  # what Asterisk plays; its level is -15 dBFS
TONE_S = 30

# By name: what the endpoint has beside the template's settings. A lane has room for seven trunks that register.
ENDPOINTS = {
    "plain": "",
    "info": "dtmf_mode=info",
    "secure": "media_encryption=sdes",
    "timed": "timers=always\ntimers_min_se=90\ntimers_sess_expires=90",
    "norefer": "allow_transfer=no",
    "follow": "",
    "inband": "dtmf_mode=inband",
}
# Endpoints that do not register here by UDP.
OTHERS = {
    "safe": "media_encryption=sdes",  # registers by TLS
    "proven": "outbound_auth=proven",  # proves who it is when it calls
    "broken": "context=broken",  # every call over it fails with 503
}
PHONE = "phone"  # an endpoint for another user agent; its password is the trunks'
_MODULES = """
app_mixmonitor app_userevent app_transfer res_cdrel_custom cdr_custom func_strings func_cut res_srtp res_crypto
res_musiconhold
""".split()


@dataclass(frozen=True, slots=True)
class Cdr:
    """Asterisk's record of one channel. Times are seconds of the wall clock, 0 for what never happened."""

    sip_call_id: str  # "" when the channel never came to the dialplan
    channel: str
    exten: str
    disposition: str
    start: float
    answer: float
    end: float
    application: str
    peer_channel: str
    unique_id: str
    linked_id: str

    @property
    def endpoint(self) -> str:
        """`plain` of PJSIP/plain-00000001."""
        return self.channel.partition("/")[2].rpartition("-")[0]


class Pbx(Asterisk):
    """``async with Pbx() as pbx:`` with ``pbx.manager`` connected.

    Extensions, with any letters behind their name: ``tone...`` (plays TONE_HZ), ``short...`` (hangs up after 1 s),
    ``digits...`` (reads digits and tells them in a user event), ``press<DIGITS>`` (presses them), ``echo...``; all of
    these record what they hear under their full name. ``cause<NUMBER>`` hangs up with that Q.850 cause, ``ring`` rings,
    ``early...`` plays 0.8 s of early media and is busy then.

    ``phone`` rings the contact of PHONE, a user of the PBX, whose *2 is an attended transfer; 77 is ``tonehandover``.
    ``to_ENDPOINT_NUMBER`` rings sipagent by that trunk, as NUMBER; ``refer<EXTENSION>`` asks us by REFER to call that
    extension.
    """

    def __init__(self) -> None:
        super().__init__()
        self.manager_port = free_port()
        self.tls_port = free_port()
        self.papers = Papers(self.folder)
        self.manager: Ami

    async def __aenter__(self) -> "Pbx":
        await self.start()
        self.manager = await Ami(self.manager_port).__aenter__()
        return self

    async def __aexit__(self, *arguments: object) -> None:
        await self.manager.__aexit__(*arguments)
        await super().__aexit__(*arguments)

    async def call(
        self, endpoint: str, extension: str, *, caller: str = "1001", to: str = "", within_s: float = 30.0
    ) -> str:
        """Rings the contact that the endpoint's owner registered, or a URI, and takes it to the extension.

        Returns the channel's unique id.
        """
        since = len(self.manager.events)
        await self.manager.action(
            "Originate",
            Channel=f"PJSIP/{endpoint}/{to}" if to else f"PJSIP/{endpoint}",
            Context="sipagent",
            Exten=extension,
            Priority="1",
            CallerID=f"Caller <{caller}>",
            Timeout=str(int(within_s * 1000)),
            Async="true",
        )
        mine = f"PJSIP/{endpoint}-"

        def made() -> list[str]:
            new = [event for event in self.manager.events[since:] if event["Event"] == "Newchannel"]
            return [event["Uniqueid"] for event in new if event["Channel"].startswith(mine)]

        return (await until(made, f"channel of {endpoint}"))[0]

    async def channels(self, *, but: str = "timed") -> list[Block]:
        """What is up, as Asterisk sees it, but for the channels of one endpoint."""
        return [each for each in await self.manager.channels() if not each["Channel"].startswith(f"PJSIP/{but}-")]

    async def cdr(self, sip_call_id: str) -> Cdr:
        """Its record of the call with this Call-ID, once it is written."""
        return await self._record(lambda cdr: cdr.sip_call_id == sip_call_id)

    async def cdr_of(self, unique_id: str) -> Cdr:
        return await self._record(lambda cdr: cdr.unique_id == unique_id)

    async def _record(self, wanted: Callable[[Cdr], bool]) -> Cdr:
        return await until(lambda: next(filter(wanted, self.records()), None), "call record of Asterisk", 5)

    def records(self) -> list[Cdr]:
        path = self.folder / "log/cdr-custom/calls.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 11]
        return [Cdr(*row[:4], *(float(text or 0) for text in row[4:7]), *row[7:]) for row in rows]  # type: ignore[arg-type]

    def sip(self, sip_call_id: str, *, received: bool = False) -> list[str]:
        """Start lines of the requests and responses of one dialog, as they came and went, oldest first.

        ``received``: of those that came alone.
        """
        text = (self.folder / "log/full.log").read_text(errors="replace")
        ways = "Received" if received else "Received|Transmitting"
        messages = re.findall(rf"<--- (?:{ways}) SIP [^>]*--->\n((?:(?!<--- ).)*)", text, re.DOTALL)
        return [message.split("\n")[0].strip() for message in messages if f"Call-ID: {sip_call_id}" in message]

    def heard(self, name: str) -> NDArray[np.int16]:
        """What the extension of this full name heard of us, at 8 kHz."""
        return read_wav(self.folder / f"spool/{name}-heard.wav")

    def _configure(self, found: Installation) -> None:
        super()._configure(found)
        etc = self.folder / "etc"
        tone = self.folder / "data/tone"
        short = tone.with_name("short")
        write_wav(tone.with_suffix(".wav"), sine(TONE_HZ, TONE_S, -15))
        write_wav(short.with_suffix(".wav"), sine(TONE_HZ, 0.8, -15))
        (self.folder / "log/cdr-custom").mkdir()
        with (etc / "modules.conf").open("a") as modules:
            modules.write("".join(f"load={name}.so\n" for name in _MODULES if (found.modules / f"{name}.so").exists()))
        endpoints = "".join(
            _ENDPOINT.format(name=name, more=more) for name, more in {**ENDPOINTS, **OTHERS, PHONE: ""}.items()
        )
        ports = {"port": self.port, "tls_port": self.tls_port}
        files = {"certificate": self.papers.certificate("pbx"), "key": self.papers.key("pbx")}
        files["authority"] = self.papers.certificate("authority")
        (etc / "pjsip.conf").write_text(_PJSIP.format(**ports, password=PASSWORD, **files) + endpoints)
        (etc / "extensions.conf").write_text(
            _EXTENSIONS.format(port=self.port, tone=tone, short=short, spool=self.folder / "spool")
        )
        (etc / "features.conf").write_text(_FEATURES)
        (etc / "manager.conf").write_text(_MANAGER.format(port=self.manager_port, user=USER, secret=SECRET))
        columns = ["userfield", "channel", "dst", "disposition", "start,u", "answer,u", "end,u"]
        columns += ["lastapp", "dstchannel", "uniqueid", "linkedid"]
        row = ",".join(f"${{CSV_QUOTE(${{CDR({column})}})}}" for column in columns)
        (etc / "cdr_custom.conf").write_text(f"[mappings]\ncalls.csv => {row}\n")


def sine(hz: float, seconds: float, dbfs: float) -> NDArray[np.int16]:
    """A tone at 8 kHz; its RMS is so far below that of a full-scale sine."""
    at = np.arange(int(8000 * seconds)) / 8000
    return (32767 * 10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * at)).astype(np.int16)


def write_wav(path: Path, pcm: NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(pcm.astype("<i2").tobytes())


def read_wav(path: Path) -> NDArray[np.int16]:
    """8 kHz mono, as Asterisk records; the header of a file that is being written may lie about its length."""
    return np.frombuffer(path.read_bytes()[44:], "<i2")


_PJSIP = """
[global]
type=global
user_agent=Asterisk
debug=yes

[udp]
type=transport
protocol=udp
bind=127.0.0.1:{port}

[tcp]
type=transport
protocol=tcp
bind=127.0.0.1:{port}

[tls]
type=transport
protocol=tls
bind=127.0.0.1:{tls_port}
method=tlsv1_2
cert_file={certificate}
priv_key_file={key}
ca_list_file={authority}
verify_server=yes

[trunk](!)
type=endpoint
context=sipagent
disallow=all
allow=ulaw,alaw
direct_media=no
dtmf_mode=rfc4733
moh_passthrough=yes
trust_id_inbound=yes
send_pai=yes

[login](!)
type=auth
auth_type=userpass
password={password}

[contact](!)
type=aor
max_contacts=1
remove_existing=yes
default_expiration=120
"""

_ENDPOINT = """
[{name}](trunk)
auth={name}
aors={name}
{more}

[{name}](login)
username={name}

[{name}](contact)
"""

_EXTENSIONS = """
[sipagent]
exten => _to[n]e.,1,Gosub(hear,${{EXTEN}},1)
 same => n,Playback({tone})
 same => n,Hangup()
exten => _short.,1,Gosub(hear,${{EXTEN}},1)
 same => n,Wait(1)
 same => n,Hangup()
exten => _digits.,1,Gosub(hear,${{EXTEN}},1)
 same => n,Read(GOT,,8,,1,8)
 same => n,UserEvent(Digits,Name:${{EXTEN:6}},Got:${{GOT}})
 same => n,Hangup()
exten => _early.,1,Set(CDR(userfield)=${{CHANNEL(pjsip,call-id)}})
 same => n,Progress()
 same => n,MixMonitor({spool}/${{EXTEN}}.wav,r({spool}/${{EXTEN}}-heard.wav))
 same => n,Playback({short},noanswer)
 same => n,Hangup(17)
exten => _replace_.,1,Set(CALLERID(num)=9001)
 same => n,Dial(PJSIP/${{CUT(EXTEN,_,2)}},20,b(replacing^add^1(${{REPLACES}})))
exten => 77,1,Goto(tonehandover,1)
exten => _press.,1,Gosub(hear,${{EXTEN}},1)
 same => n,Wait(0.3)
 same => n,SendDTMF(${{EXTEN:5}},80,120)
 same => n,Wait(0.5)
 same => n,Hangup()
exten => _cause.,1,Set(CDR(userfield)=${{CHANNEL(pjsip,call-id)}})
 same => n,Hangup(${{EXTEN:5}})
exten => ring,1,Set(CDR(userfield)=${{CHANNEL(pjsip,call-id)}})
 same => n,Ringing()
 same => n,Wait(60)
exten => phone,1,Set(CDR(userfield)=${{CHANNEL(pjsip,call-id)}})
 same => n,Set(__TRANSFER_CONTEXT=sipagent)
 same => n,Dial(PJSIP/phone,20,t)
exten => _to_.,1,Set(CALLERID(num)=${{CUT(EXTEN,_,3)}})
 same => n,Dial(PJSIP/${{CUT(EXTEN,_,2)}},20)
exten => _refer.,1,Gosub(hear,${{EXTEN}},1)
 same => n,Wait(0.5)
 same => n,Transfer(PJSIP/sip:${{EXTEN:5}}@127.0.0.1:{port})
 same => n,UserEvent(Transferred,Target:${{EXTEN:5}},Status:${{TRANSFERSTATUS}})
 same => n,Wait(2)
 same => n,Hangup()
exten => _echo.,1,Gosub(hear,${{EXTEN}},1)
 same => n,Echo()

[broken]
exten => _[a-z].,1,Set(CDR(userfield)=${{CHANNEL(pjsip,call-id)}})
 same => n,Hangup(34)

[replacing]
exten => add,1,Set(PJSIP_HEADER(add,Replaces)=${{ARG1}})
 same => n,Return()

[hear]
exten => _[a-z].,1,Set(CDR(userfield)=${{CHANNEL(pjsip,call-id)}})
 same => n,Answer()
 same => n,MixMonitor({spool}/${{EXTEN}}.wav,r({spool}/${{EXTEN}}-heard.wav))
 same => n,Return()
"""

_FEATURES = """
[general]
transferdigittimeout=1

[featuremap]
atxfer=*2
"""

_MANAGER = """
[general]
enabled=yes
bindaddr=127.0.0.1
port={port}

[{user}]
secret={secret}
read=all
write=all
"""
