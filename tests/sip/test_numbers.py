"""Numbers of a trunk and ours, in both directions."""

import pytest

from sipagent.sip.numbers import for_trunk, to_e164
from sipagent.sip.settings import TrunkSettings

GERMAN = TrunkSettings(name="de", country_code="49", number_format="national")
DIGITS = TrunkSettings(name="digits", country_code="49", number_format="digits")
AMERICAN = TrunkSettings(
    name="us", country_code="1", national_prefix="", international_prefix="011", number_format="national"
)


@pytest.mark.parametrize(
    ("trunk", "number", "expected"),
    [
        (GERMAN, "0301234567", "+49301234567"),
        (GERMAN, "030 / 123-45.67", "+49301234567"),
        (GERMAN, "0044 20 7946 0000", "+442079460000"),
        (GERMAN, "+49301234567", "+49301234567"),
        (GERMAN, "49301234567", "49301234567"),  # may be anything: this trunk sends national numbers
        (DIGITS, "49301234567", "+49301234567"),
        (AMERICAN, "2125550100", "+12125550100"),
        (AMERICAN, "01144207946000", "+44207946000"),
        (GERMAN, "112", "112"),
        (GERMAN, "0", "0"),
        (GERMAN, "1000", "1000"),
        (GERMAN, "agent", "agent"),
        (GERMAN, "*21#", "*21#"),
        (GERMAN, "", ""),
        (GERMAN, "+0123456789", "+0123456789"),
        (GERMAN, "00" + "1" * 20, "00" + "1" * 20),
        (GERMAN, "٠٣٠١٢٣٤٥٦٧", "٠٣٠١٢٣٤٥٦٧"),  # digits, and not SIP's
        (TrunkSettings(name="plain"), "0301234567", "0301234567"),
    ],
)
def test_in(trunk: TrunkSettings, number: str, expected: str) -> None:
    assert to_e164(number, trunk) == expected


@pytest.mark.parametrize(
    ("number_format", "number", "expected"),
    [
        ("e164", "030 1234567", "+49301234567"),
        ("digits", "+49301234567", "49301234567"),
        ("international", "+49301234567", "0049301234567"),
        ("national", "+49301234567", "0301234567"),
        ("national", "+442079460000", "00442079460000"),
        ("as_given", "+49301234567", "+49301234567"),
        ("digits", "112", "112"),
        ("digits", "sip:x@y", "sip:x@y"),
    ],
)
def test_out(number_format: str, number: str, expected: str) -> None:
    trunk = TrunkSettings(name="t", country_code="49", number_format=number_format)  # type: ignore[arg-type]
    assert for_trunk(number, trunk) == expected


def test_what_goes_out_comes_back_the_same() -> None:
    for number_format in ("e164", "digits", "international", "national"):
        trunk = TrunkSettings(name="t", country_code="49", number_format=number_format)
        for number in ("+49301234567", "+442079460000"):
            sent = for_trunk(number, trunk)
            if number_format == "digits" and not number.startswith("+49"):
                continue  # bare digits of another country cannot be told from anything else
            assert to_e164(sent, trunk) == number
