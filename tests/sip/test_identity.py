"""Who calls: what our INVITE says, and what we make of others'."""

import random

import pytest

from sipagent.sip.identity import ANONYMOUS, MAX_DIVERSIONS, incoming, outgoing, permitted, settable
from sipagent.sip.settings import TrunkSettings

ALL = ("P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID")


def trunk(**settings) -> TrunkSettings:
    return TrunkSettings(name="t", domain="carrier.example", username="acct", **settings)


def test_the_caller_stands_in_from_and_in_the_headers_that_the_provider_wants() -> None:
    shown = outgoing(trunk(identity_headers=ALL, caller_name='Ann "A"'), "+4930123456")
    who = '"Ann \\"A\\"" <sip:+4930123456@carrier.example>'
    assert shown.from_value == who
    assert shown.headers == {
        "P-Asserted-Identity": who,
        "P-Preferred-Identity": who,
        "Remote-Party-ID": f"{who};party=calling;screen=yes;privacy=off",
    }


def test_the_account_stays_in_from_where_the_provider_wants_that() -> None:
    shown = outgoing(trunk(from_shows="account", identity_headers=ALL[1:2]), "+4930123456")
    assert shown.from_value == ""
    assert shown.headers == {"P-Preferred-Identity": "<sip:+4930123456@carrier.example>"}
    assert outgoing(trunk(), "").from_value == "" and outgoing(trunk(), "").headers == {}


@pytest.mark.parametrize("always", [False, True])
def test_a_withheld_number_is_told_to_the_trunk_alone(always: bool) -> None:
    shown = outgoing(trunk(identity_headers=ALL, withhold=always), "+4930123456", withhold=not always)
    assert shown.from_value == ANONYMOUS
    assert shown.headers["Privacy"] == "id"
    assert "+4930123456" in shown.headers["P-Asserted-Identity"]
    assert shown.headers["Remote-Party-ID"].endswith("privacy=full")


def test_the_number_is_written_as_the_trunk_wants_it() -> None:
    shown = outgoing(trunk(country_code="49", number_format="national"), "+4930123456")
    assert shown.from_value == "<sip:030123456@carrier.example>"


def test_what_could_end_the_header_does_not() -> None:
    shown = outgoing(trunk(caller_name="Ann\r\nX-Evil: 1"), '1>;tag=x\r\nX: y"@evil')
    assert "\r" not in shown.from_value and "\n" not in shown.from_value
    assert shown.from_value.count(">") == 1 and "@carrier.example>" in shown.from_value


def test_an_asserted_identity_is_believed_where_the_trunk_is_trusted() -> None:
    headers = {"P-Asserted-Identity": '<tel:+4930999>, "Ann" <sip:+4930123456@carrier.example>'}
    assert incoming(trunk(), headers, "777").number == "+4930999"
    caller = incoming(trunk(trust_identity=False), headers, "777", "Bob")
    assert (caller.number, caller.name, caller.asserted) == ("777", "Bob", False)
    remote = {"Remote-Party-ID": '"Ann" <sip:+4930123456@x>;party=calling;privacy=full'}
    caller = incoming(trunk(), remote, "777")
    assert (caller.number, caller.name, caller.asserted, caller.withheld) == ("+4930123456", "Ann", True, True)


@pytest.mark.parametrize(
    ("headers", "user", "withheld"),
    [
        ({"Privacy": "id"}, "+49", True),
        ({"Privacy": "none"}, "+49", False),
        ({"Privacy": "header;user"}, "+49", True),
        ({}, "anonymous", True),
        ({}, "+49", False),
    ],
)
def test_privacy(headers: dict[str, str], user: str, withheld: bool) -> None:
    assert incoming(trunk(), headers, user).withheld is withheld


def test_diversions_come_newest_first_in_e164() -> None:
    settings = trunk(country_code="49")
    headers = {
        "Diversion": '"Boss, Big" <sip:030111111@pbx>;reason=no-answer;counter=1;privacy=off, '
        "<sip:030222222@pbx>;reason=User-Busy;privacy=full"
    }
    first, second = incoming(settings, headers, "x").diversions
    assert (first.number, first.reason, first.withheld) == ("+4930111111", "no-answer", False)
    assert (second.number, second.reason, second.withheld) == ("+4930222222", "user-busy", True)


def test_history_info_tells_the_same() -> None:
    headers = {
        "History-Info": "<sip:+4930111111@a?Reason=SIP%3Bcause%3D302>;index=1, "
        "<sip:+4930222222@a?Privacy=history>;index=1.1, <sip:+4930333333@us;cause=408>;index=1.1.1"
    }
    newest, oldest = incoming(trunk(), headers, "x").diversions
    assert (newest.number, newest.reason, newest.withheld) == ("+4930222222", "no-answer", True)
    assert (oldest.number, oldest.reason) == ("+4930111111", "unconditional")


def test_headers_pass_by_the_list_alone() -> None:
    headers = {"X-Campaign": "a", "x-other": "b", "P-Charging-Vector": "c", "Subject": "d"}
    assert permitted(headers, ("X-*",)) == {"X-Campaign": "a", "x-other": "b"}
    assert permitted(headers, ("subject", "p-charging-vector")) == {"P-Charging-Vector": "c", "Subject": "d"}
    assert permitted(headers, ()) == {}
    assert permitted(headers, ("*",)) == headers


@pytest.mark.parametrize(
    ("name", "value", "may"),
    [
        ("X-Campaign", "spring", True),
        ("Subject", "hello", True),
        ("Via", "x", False),
        ("CONTACT", "x", False),
        ("v", "x", False),
        ("X-Sipagent-Source", "1.2.3.4:5", False),
        ("x-sipagent-route", "sip:evil.example", False),
        ("X-A", "b\r\nVia: c", False),
        ("X A", "b", False),
        ("", "b", False),
        ("X-A", "b" * 2000, False),
    ],
)
def test_what_others_may_set(name: str, value: str, may: bool) -> None:
    assert settable(name, value) is may


def test_rubbish_is_survived_and_bounded() -> None:
    chance = random.Random(7)
    pieces = ["<sip:", "@", ">", ";", ",", '"', "?", "cause=", "%", "+49", "\\", "privacy=", "index=1", " ", "ä"]
    for _ in range(3000):
        value = "".join(chance.choice(pieces) for _ in range(chance.randrange(60)))
        names = ("P-Asserted-Identity", "Remote-Party-ID", "Diversion", "History-Info", "Privacy")
        caller = incoming(trunk(country_code="49"), dict.fromkeys(names, value), value, value)
        assert len(caller.diversions) <= MAX_DIVERSIONS and len(caller.name) <= 128
