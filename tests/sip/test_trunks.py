"""Whose call it is, how many a trunk may have, and what a configuration cannot be."""

from typing import Any

import msgspec
import pytest

from sipagent.core.errors import ConfigError
from sipagent.core.states import Direction
from sipagent.sip.network import AddressWatch
from sipagent.sip.protocol import IncomingCall
from sipagent.sip.servers import Server
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.trunk_changes import check_room, check_trunks
from sipagent.sip.trunk_watch import learn_peers
from sipagent.sip.trunks import Known, Refusal, Trunks, Unproven, out_of_reach
from tests.sip.test_digest import Caller

IN, OUT = Direction.INBOUND, Direction.OUTBOUND


def rings(source: str = "192.0.2.7:5060", called: str = "100", authorization: list[str] | None = None) -> IncomingCall:
    return IncomingCall(
        call=1,
        from_uri="sip:a@b",
        from_user="a",
        to_user=called,
        sip_call_id="x",
        source=source,
        request_uri=f"sip:{called}@node.example",
        authorization=authorization or [],
    )


def name(found: Known | Unproven | Refusal) -> str:
    assert isinstance(found, Known) and found.trunk is not None, found
    return found.trunk.name


def test_by_address_network_and_server() -> None:
    trunks = Trunks(
        [
            TrunkSettings(name="net", peers=["192.0.2.0/24", "2001:db8::/32"]),
            TrunkSettings(name="host", peers=["198.51.100.7"]),
            TrunkSettings(name="srv", domain="carrier.example"),
        ]
    )
    trunks.health["srv"].located([Server("203.0.113.9", 5060, "udp")], "", 0.0)
    assert name(trunks.identify(rings(), 0.0)) == "net"
    assert name(trunks.identify(rings("[2001:db8::7]:5060"), 0.0)) == "net"
    assert name(trunks.identify(rings("198.51.100.7:9999"), 0.0)) == "host"
    assert name(trunks.identify(rings("203.0.113.9:5060"), 0.0)) == "srv"
    assert trunks.identify(rings("198.51.100.8:5060"), 0.0) == Refusal(403, "address is no trunk's")
    assert trunks.identify(rings("nonsense"), 0.0) == Refusal(403, "address is no trunk's")
    assert Trunks([]).identify(rings(), 0.0) == Known(None)


def test_of_several_at_one_address_the_one_whose_user_is_called() -> None:
    shared = {"peers": ["192.0.2.7"]}
    trunks = Trunks([TrunkSettings(name=n, username=n, **shared) for n in ("100", "200")])  # type: ignore[arg-type]
    assert name(trunks.identify(rings(called="200"), 0.0)) == "200"
    assert name(trunks.identify(rings(called="300"), 0.0)) == "100"


def guarded(accept: str) -> Trunks:
    settings = {"name": "road", "accept": accept, "inbound_username": "ann", "inbound_password": "secret"}
    return Trunks([msgspec.convert(settings | {"peers": ["192.0.2.0/24"]}, TrunkSettings)])


def proves(trunks: Trunks, source: str, password: str = "secret", now: float = 0.0) -> Known | Unproven | Refusal:
    challenge = trunks.identify(rings(source), now)
    assert isinstance(challenge, Unproven)
    caller = Caller(uri="sip:100@node.example")
    caller.account = type(caller.account)("ann", password)
    return trunks.identify(rings(source, authorization=[caller.answers(challenge.challenges[0])]), now)


@pytest.mark.parametrize(
    ("accept", "source", "expected"),
    [
        ("address", "192.0.2.7:1", "at once"),
        ("address", "198.51.100.1:1", "refused"),
        ("digest", "192.0.2.7:1", "password"),
        ("digest", "198.51.100.1:1", "password"),
        ("both", "192.0.2.7:1", "password"),
        ("both", "198.51.100.1:1", "refused"),
        ("either", "192.0.2.7:1", "at once"),
        ("either", "198.51.100.1:1", "password"),
    ],
)
def test_what_a_trunk_accepts(accept: str, source: str, expected: str) -> None:
    trunks = guarded(accept)
    if expected == "password":
        assert name(proves(trunks, source)) == "road"
    elif expected == "refused":
        assert isinstance(trunks.identify(rings(source), 0.0), Refusal)
    else:
        assert name(trunks.identify(rings(source), 0.0)) == "road"


def test_who_guesses_passwords_is_soon_refused_without_a_look() -> None:
    trunks = guarded("digest")
    for attempt in range(10):
        assert proves(trunks, "198.51.100.1:1", f"guess{attempt}") == Refusal(403, "wrong user or password")
    assert isinstance(trunks.identify(rings("198.51.100.1:1"), 30.0), Refusal)
    assert name(proves(trunks, "198.51.100.2:1", now=30.0)) == "road", "others are not concerned"
    assert name(proves(trunks, "198.51.100.1:1", now=61.0)) == "road"
    assert trunks.counters["road"].refused_password == 10


def test_channels_are_counted_both_ways_and_given_back() -> None:
    trunks = Trunks([TrunkSettings(name="t", peers=["192.0.2.7"], max_calls=3, max_calls_in=2)])
    assert [trunks.admit("t", IN, 0.0), trunks.admit("t", IN, 0.0)] == [None, None]
    assert trunks.admit("t", IN, 0.0) == Refusal(486, "all channels of trunk t in use")
    assert trunks.admit("t", OUT, 0.0) is None
    assert trunks.admit("t", OUT, 0.0) == Refusal(486, "all channels of trunk t in use")
    trunks.release("t", IN)
    assert trunks.admit("t", OUT, 0.0) is None
    assert (trunks.counters["t"].refused_channels, trunks.in_use("t")) == (2, {IN: 1, OUT: 2})
    assert trunks.admit("", IN, 0.0) is None  # no trunk, no limit
    trunks.release("", IN)


def test_calls_per_second() -> None:
    trunks = Trunks([TrunkSettings(name="t", calls_per_second_in=2.0, calls_per_second_out=0.5)])
    taken = [trunks.admit("t", IN, 100.0 + second / 10) is None for second in range(20)]
    assert sum(taken) == 2 + 3  # what was saved up, and 2 a second for 1.9 s
    assert trunks.admit("t", IN, 102.0) in (None, Refusal(503, "calls of trunk t come too fast", retry_after_s=1))
    assert trunks.admit("t", OUT, 100.0) is None
    assert trunks.admit("t", OUT, 101.0) == Refusal(503, "calls of trunk t come too fast", retry_after_s=1)
    assert trunks.admit("t", OUT, 102.0) is None
    assert trunks.counters["t"].refused_rate >= 15


def test_other_trunks_from_now_on() -> None:
    kept, old = TrunkSettings(name="kept", peers=["192.0.2.7"]), TrunkSettings(name="old", peers=["pbx.test"])
    trunks = Trunks([kept, old])
    trunks.learn({"192.0.2.8": ["old"], "192.0.2.9": ["kept"]})
    health = trunks.health["kept"]
    for name_ in ("kept", "old"):
        assert trunks.admit(name_, IN, 0.0) is None
    new = TrunkSettings(name="new", peers=["198.51.100.0/24"], max_calls=1)
    trunks.apply([msgspec.structs.replace(kept, max_calls=1), new])
    assert trunks.health["kept"] is health and trunks.in_use("kept") == {IN: 1, OUT: 0}
    assert trunks.admit("kept", OUT, 0.0) == Refusal(486, "all channels of trunk kept in use")
    assert name(trunks.identify(rings("198.51.100.3:5060"), 0.0)) == "new"
    assert trunks.identify(rings("192.0.2.8:5060"), 0.0) == Refusal(403, "address is no trunk's")
    assert trunks.get("old") is None and list(trunks.counters) == ["kept", "new"]

    # The call of the trunk that is gone counts where the trunk comes back, and is given back once.
    trunks.apply([kept, old])
    assert trunks.in_use("old") == {IN: 1, OUT: 0}
    assert trunks.identify(rings("192.0.2.8:5060"), 0.0) == Refusal(403, "address is no trunk's"), "looked up anew"
    trunks.apply([])
    trunks.release("old", IN)
    trunks.apply([old])
    assert trunks.in_use("old") == {IN: 0, OUT: 0}


def test_without_its_last_trunk_a_node_is_not_open_to_everybody() -> None:
    trunks = Trunks([])
    assert trunks.identify(rings(), 0.0) == Known(None)
    trunks.apply([TrunkSettings(name="pbx", peers=["192.0.2.7"])])
    trunks.apply([])
    assert trunks.identify(rings(), 0.0) == Refusal(403, "address is no trunk's")
    assert isinstance(Trunks([], closed=True).identify(rings(), 0.0), Refusal)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([{"name": "a"}, {"name": "b"}, {"name": "a"}], "2 trunks are named `a`"),
        ([{"name": "a", "registrar": "sip:pbx.test;transport=tls"}], "tls_certificate"),
        ([{"name": f"t{i}"} for i in range(1001)], "1001 trunks are more than"),
    ],
)
def test_trunks_that_cannot_be(settings: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_trunks(msgspec.convert(settings, list[TrunkSettings]), SipSettings())


async def test_a_name_that_cannot_be_looked_up_does_not_keep_others_from_it() -> None:
    odd = TrunkSettings(name="odd")
    msgspec.structs.force_setattr(odd, "registrar", "sip..provider.example")  # one kept from before such were refused
    trunks = Trunks([odd, TrunkSettings(name="good", registrar="localhost")])
    assert not await learn_peers(trunks)
    assert trunks.addresses_of("good") and not trunks.addresses_of("odd")


def test_there_is_room_for_so_many_registrations() -> None:
    trunks = [TrunkSettings(name=f"t{i}", registrar="pbx.test") for i in range(8)]
    check_room(trunks[:7], 7)
    with pytest.raises(ConfigError, match="8 trunks register, and this node's lanes have room for 7"):
        check_room(trunks, 7)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"number_format": "national"}, "needs `country_code`"),
        ({"country_code": "+49"}, "one to three digits"),
        ({"failover_on": ["6x"]}, "failover_on"),
        ({"rates": {"49": 1.0}}, "rates"),
        ({"accept": "digest"}, "inbound_password"),
        ({"extra_headers": {"X A": "b"}}, "no SIP header"),
        ({"max_calls": -1}, "cannot be negative"),
        ({"expires_s": 1}, "expires_s"),
        ({"transport": "sctp"}, "Invalid enum value"),
        ({"registrar": "sip..provider.example"}, "`registrar` has a host name with an empty label"),
        ({"domain": ".provider.example:5060"}, "`domain` has a host name"),
        ({"outbound_proxy": "sip:" + 64 * "a" + ".example;lr"}, "`outbound_proxy` has a host name"),
        ({"peers": ["192.0.2.0/24", "a..example"]}, "`peers` has a host name"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(settings: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"name": "t"} | settings, TrunkSettings)


@pytest.mark.parametrize(
    ("trunk", "words"),
    [
        (TrunkSettings(name="t", domain="x", transport="tls"), "`tls_certificate`"),
        (TrunkSettings(name="t", registrar="sips:x"), "`tls_certificate`"),
        (TrunkSettings(name="t", domain="[2001:db8::1]"), "`host6`"),
        (TrunkSettings(name="t", domain="x", transport="tcp"), ""),
    ],
)
def test_what_needs_the_edge_says_so(trunk: TrunkSettings, words: str) -> None:
    problem = out_of_reach(trunk, SipSettings())
    assert words in problem and bool(words) is bool(problem)
    assert out_of_reach(trunk, SipSettings(host6="::1", tls_certificate="a", tls_key="b")) == ""


def test_uris_of_a_trunk() -> None:
    trunk = TrunkSettings(name="t", registrar="sip:carrier.example:5070", transport="tcp", outbound_proxy="sbc.example")
    assert trunk.registrar_uri == "sip:carrier.example:5070;transport=tcp"
    assert trunk.target_uri("+49#1") == "sip:+49%231@carrier.example:5070;transport=tcp"
    assert trunk.first_hop == "sip:sbc.example;transport=tcp"
    assert TrunkSettings(name="t", domain="a;transport=udp", transport="tcp").first_hop == "sip:a;transport=udp"
    assert TrunkSettings(name="t", registrar="sips:a").target_uri("1") == "sip:1@a;transport=tls"
    assert trunk.target_uri("sips:x%23@elsewhere;maddr=b") == "sip:x%23@carrier.example:5070;transport=tcp"
    assert "secret" not in repr(TrunkSettings(name="t", password="secret", inbound_password="secret"))


def test_an_address_that_changes_or_comes_back_is_noticed() -> None:
    watch = AddressWatch()
    seen = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "", "", "192.0.2.2", "192.0.2.2"]
    assert [watch.changed("t", address) for address in seen] == [False, False, True, False, False, True, False]
    assert not AddressWatch().changed("u", "")
