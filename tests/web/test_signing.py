import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from sipagent.web.signing import key_of, new_secret, signed

AT = datetime.fromtimestamp(1614265330, UTC)


def test_the_example_of_the_specification():
    """From the Standard Webhooks specification and its reference libraries' tests."""
    headers = signed(
        key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek", AT, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_secret_that_was_made_is_one():
    secret = new_secret()
    headers = signed(key_of(secret), "evt_1", AT, b"{}")
    wanted = hmac.new(base64.b64decode(secret[6:]), b"evt_1.1614265330.{}", hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(wanted).decode()


@pytest.mark.parametrize(
    "secret", ["", "short", "whsec_", "whsec_AAAA", "whsec_ä" + 40 * "A", "whsec_not base64 at all ..."]
)
def test_what_is_no_secret(secret):
    with pytest.raises(ValueError) as caught:
        key_of(secret)
    assert not secret or secret not in str(caught.value)
