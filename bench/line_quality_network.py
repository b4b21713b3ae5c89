"""What happens to the packets of a call on their way: loss, delay and skewed clocks, seeded and stated."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PTIME_MS = 20


class Cell(NamedTuple):
    """One condition of the line.

    Loss is independent (`burst` 1) or Gilbert's two states, in the bad one of which everything is lost: it lasts
    `burst` packets on average. Delay is an AR(1) process of Gaussian innovations, correlation 0.9 from packet to
    packet, of standard deviation `jitter_ms` around twice that, cut off at 0; packets queue behind one another, so
    they do not overtake. `skew` is how much faster the sender's clock runs than ours.
    """

    name: str
    loss: float = 0.0
    burst: float = 1.0
    jitter_ms: float = 0.0
    skew: float = 0.0


BURST = 3.0
SHARES = (0.01, 0.03, 0.05, 0.10, 0.20)
CELLS = (
    [Cell(f"random {share:.0%}", share) for share in SHARES]
    + [Cell(f"bursty {share:.0%}", share, BURST) for share in SHARES]
    + [Cell(f"jitter {ms} ms", jitter_ms=ms) for ms in (10, 30, 60)]
    + [Cell(f"bursty 5%, jitter {ms} ms", 0.05, BURST, jitter_ms=ms) for ms in (10, 30, 60)]
    + [Cell("skew +1000 ppm", skew=0.001), Cell("skew -1000 ppm", skew=-0.001)]
)


def arrivals(cell: Cell, packets: int, seed: int) -> NDArray[np.float64]:
    """When each packet comes, in ms after the first was sent; nan where it is lost. The first two always come."""
    random = np.random.default_rng(seed)
    sent = np.arange(packets) * PTIME_MS * (1 - cell.skew)
    noise, delay = random.normal(0, 1, packets), np.zeros(packets)
    state = random.normal(0, 1)
    for k in range(packets):
        state = 0.9 * state + np.sqrt(1 - 0.9**2) * noise[k]
        delay[k] = max(0.0, cell.jitter_ms * (state + 2))
    came: NDArray[np.float64] = np.maximum.accumulate(sent + delay)
    came[lost(cell, packets, random)] = np.nan
    return came


def lost(cell: Cell, packets: int, random: np.random.Generator) -> NDArray[np.bool_]:
    result = np.zeros(packets, np.bool_)
    if not cell.loss:
        return result
    leave = 1 / cell.burst  # the bad state; with burst 1 the chance to lose is the same in both
    enter = cell.loss * leave / (1 - cell.loss) if cell.burst > 1 else cell.loss
    bad = False
    for k, chance in enumerate(random.random(packets)):
        bad = chance >= leave if bad and cell.burst > 1 else chance < enter
        result[k] = bad
    result[:2] = False
    return result
