"""Digest of callers: what is granted, what is challenged again, and what a stranger can cost us."""

import hashlib
import random

import pytest

from sipagent.sip.digest import Account, Authenticator, Verdict, parse_credentials, response

REALM, URI = "sipagent", "sip:100@node.example"
ANN = Account("ann", "secret")
HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


class Caller:
    """Answers challenges as a telephone does."""

    def __init__(self, account: Account = ANN, uri: str = URI, method: str = "INVITE") -> None:
        self.account, self.uri, self.method = account, uri, method
        self.count = 0

    def answers(self, challenge: str, **changes: str) -> str:
        fields = parse_credentials(challenge)
        assert fields is not None
        self.count += 1
        told = {
            "username": self.account.username,
            "realm": fields["realm"],
            "nonce": fields["nonce"],
            "uri": self.uri,
            "algorithm": fields["algorithm"],
            "qop": "auth",
            "nc": f"{self.count:08x}",
            "cnonce": "abc",
        } | changes
        told["response"] = response(HASHES[fields["algorithm"]], told, self.account, self.method, fields["realm"])
        quoted = {"algorithm", "qop", "nc"}
        return "Digest " + ", ".join(f"{k}={v}" if k in quoted else f'{k}="{v}"' for k, v in told.items() if v)


def judge(guard: Authenticator, value: str, now: float = 1.0, uri: str = URI) -> Verdict:
    return guard.check([value], "INVITE", uri, REALM, [Account("bob", "other"), ANN], now)[0]


@pytest.mark.parametrize("algorithm", list(HASHES))
def test_the_right_password_is_granted_once_for_each_count(algorithm: str) -> None:
    guard, caller = Authenticator(), Caller()
    (challenge,) = guard.challenges(REALM, (algorithm,), now=0.0)
    first = caller.answers(challenge)
    assert guard.check([first], "INVITE", URI, REALM, [ANN], now=1.0) == (Verdict.GRANTED, "ann")
    assert judge(guard, first) is Verdict.STALE, "a replay"
    assert judge(guard, caller.answers(challenge)) is Verdict.GRANTED, "the next count"
    assert judge(guard, first) is Verdict.STALE
    assert judge(guard, caller.answers(challenge), now=100.0) is Verdict.STALE, "too old"


def test_the_example_of_rfc_7616() -> None:
    fields = {
        "uri": "/dir/index.html",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "nc": "00000001",
        "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        "qop": "auth",
    }
    account = Account("Mufasa", "Circle of Life")
    expected = {
        "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        "MD5": "8ca523f5e9506fed4657c9700eebdbec",
    }
    for algorithm, digest in expected.items():
        assert response(HASHES[algorithm], fields, account, "GET", "http-auth@example.org") == digest


def test_what_is_not_right_is_not_granted() -> None:
    guard = Authenticator()
    (challenge,) = guard.challenges(REALM, ("MD5",), now=0.0)
    assert judge(guard, Caller(Account("ann", "guess")).answers(challenge)) is Verdict.WRONG
    assert judge(guard, Caller(Account("eve", "secret")).answers(challenge)) is Verdict.WRONG
    assert judge(guard, Caller(Account("bob", "secret")).answers(challenge)) is Verdict.WRONG
    assert judge(guard, Caller(method="REGISTER").answers(challenge)) is Verdict.WRONG
    assert judge(guard, Caller(uri="sip:999@node.example").answers(challenge)) is Verdict.MISSING, "for another number"
    assert judge(guard, Caller(uri="sip:100@edge.example").answers(challenge)) is Verdict.GRANTED, "a proxy's host"
    (another,) = guard.challenges(REALM, ("MD5",), now=0.0)
    assert judge(guard, Caller(uri="sip:node.example").answers(another)) is Verdict.GRANTED, "without the number"
    assert judge(guard, Caller().answers(challenge, nonce="AAAA")) is Verdict.MISSING
    assert judge(Authenticator(), Caller().answers(challenge)) is Verdict.MISSING, "another node's nonce"
    (elsewhere,) = guard.challenges("elsewhere", ("MD5",), now=0.0)
    assert judge(guard, Caller().answers(elsewhere).replace("elsewhere", REALM)) is Verdict.MISSING
    assert guard.check([], "INVITE", URI, REALM, [ANN], now=1.0) == (Verdict.MISSING, "")
    assert guard.check(["Basic YWJj"], "INVITE", URI, REALM, [ANN], now=1.0)[0] is Verdict.MISSING
    assert guard.check([Caller().answers(challenge)], "INVITE", URI, REALM, [], now=1.0)[0] is Verdict.WRONG


def test_without_qop_a_nonce_serves_once() -> None:
    guard, caller = Authenticator(), Caller()
    (challenge,) = guard.challenges(REALM, ("MD5",), now=0.0)
    answer = caller.answers(challenge, qop="", nc="", cnonce="")
    assert judge(guard, answer) is Verdict.GRANTED
    assert judge(guard, answer) is Verdict.STALE


def test_strangers_cost_no_memory_and_forgotten_nonces_are_not_taken_again() -> None:
    guard = Authenticator(remember=3)
    for number in range(1000):
        guard.challenges(REALM, ("MD5",), now=number / 1000)
    assert not guard._used
    used = []
    for number in range(5):
        (challenge,) = guard.challenges(REALM, ("MD5",), now=2.0 + number)
        used.append(Caller().answers(challenge))
        assert judge(guard, used[-1], now=2.0 + number) is Verdict.GRANTED
    assert len(guard._used) == 3
    assert [judge(guard, answer, now=7.0) for answer in used] == [Verdict.STALE] * 5


def test_challenges() -> None:
    sha, md5 = Authenticator().challenges(REALM, ("SHA-256", "MD5"), now=0.0, stale=True)
    assert "algorithm=SHA-256" in sha and "algorithm=MD5" in md5 and "stale=true" in md5
    assert Authenticator().challenges(REALM, ("MD5",), now=0.0) != Authenticator().challenges(REALM, ("MD5",), now=0.0)


def test_rubbish_is_survived() -> None:
    guard, chance = Authenticator(), random.Random(3)
    (challenge,) = guard.challenges(REALM, ("SHA-256",), now=0.0)
    good = Caller().answers(challenge)
    for _ in range(3000):
        text = list(good)
        for _ in range(chance.randrange(1, 20)):
            text[chance.randrange(len(text))] = chr(chance.choice([34, 44, 61, 92, 32, 0, 300, 65]))
        assert judge(guard, "".join(text)) is not Verdict.GRANTED or "".join(text) == good
    assert parse_credentials("Digest " + ",".join(f"a{n}=b" for n in range(200))) is None
    assert parse_credentials('Digest a="' + "\\" * 3000) is None
