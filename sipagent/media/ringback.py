"""The ringing tones of the countries, for a caller who waits until somebody answers; `tones.ringback` makes them.

Frequencies and cadences as the administrations have told the ITU: ITU-T E.180 Supplement 2, "Various tones used in
national networks" (also Operational Bulletin 781, annex); Recommendation E.180/Q.35 itself is what holds elsewhere.
"""

from typing import NamedTuple

LEVEL_DBM0 = -15.0  # E.180 section 2: between -15 and -5, and beside speech the quiet end is loud enough


class Ringback(NamedTuple):
    """`hz` sound together; with `beat_hz` the tone swells so many times a second. `cadence`: s on, off, on, ..."""

    hz: tuple[float, ...]
    cadence: tuple[float, ...]
    beat_hz: float = 0.0


_ITU = Ringback((425,), (1.0, 4.0))
_DOUBLE = (0.4, 0.2, 0.4, 2.0)
_BRITISH = Ringback((400, 450), _DOUBLE)
RINGBACK = {
    "ITU": _ITU,
    "AE": _BRITISH,
    "AR": Ringback((425,), (1.0, 4.5)),
    "AT": Ringback((420,), (1.0, 5.0)),
    "AU": Ringback((413, 438), _DOUBLE),
    "BE": Ringback((425,), (1.0, 3.0)),
    "BG": _ITU,
    "BR": _ITU,
    "CA": Ringback((440, 480), (2.0, 4.0)),
    "CH": _ITU,
    "CL": Ringback((400,), (1.0, 3.0)),
    "CN": Ringback((450,), (1.0, 4.0)),
    "CZ": _ITU,
    "DE": _ITU,
    "DK": _ITU,
    "EE": _ITU,
    "ES": Ringback((425,), (1.5, 3.0)),
    "FI": _ITU,
    "FR": Ringback((440,), (1.5, 3.5)),
    "GB": _BRITISH,
    "GR": _ITU,
    "HK": Ringback((440, 480), (0.4, 0.2, 0.4, 3.0)),
    "HU": Ringback((425,), (1.25, 3.75)),
    "ID": _ITU,
    "IE": _BRITISH,
    "IL": Ringback((414,), (1.0, 3.0)),
    "IN": Ringback((400,), _DOUBLE, 25),
    "IT": _ITU,
    "JP": Ringback((400,), (1.0, 2.0), 16),
    "KR": Ringback((440, 480), (1.0, 2.0)),
    "LT": _ITU,
    "MX": _ITU,
    "MY": Ringback((425,), _DOUBLE),
    "NL": _ITU,
    "NO": _ITU,
    "NZ": _BRITISH,
    "PH": Ringback((425, 480), (1.0, 4.0)),
    "PL": _ITU,
    "PT": Ringback((425,), (1.0, 5.0)),
    "RU": _ITU,
    "SE": Ringback((425,), (1.0, 5.0)),
    "SG": Ringback((425,), _DOUBLE, 24),
    "TH": Ringback((400,), (1.0, 4.0)),
    "TR": Ringback((450,), (2.0, 4.0)),
    "TW": Ringback((440, 480), (1.0, 2.0)),
    "US": Ringback((440, 480), (2.0, 4.0)),
    "VE": _ITU,
    "ZA": Ringback((400,), _DOUBLE, 33),
}
