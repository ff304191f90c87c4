"""How large a number of each kind may be: what options, spaces and plans ask before they believe it.

The ends are those beyond which nothing could be measured or a library would break (a seed of 33
bits, a rate whose gaps are zero to a float), far from what anybody wants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One kind of number and its bounds, both of which are allowed."""

    what: str
    """In words, with the unit."""
    least: float
    most: float
    whole: bool = False
    above: bool = False
    """Whether ``least`` itself is too small."""

    def refusal(self, value: float) -> str | None:
        """What a number should be, where it isn't; ``None`` where it is."""
        low = value > self.least if self.above else value >= self.least
        if math.isfinite(value) and low and value <= self.most and not (
            self.whole and value != int(value)
        ):
            return None
        return f"should be {self.words}"

    @property
    def words(self) -> str:
        """``a number of seconds above 0, at most 10,000,000``."""
        start = "above" if self.above else "of at least"
        return f"{self.what} {start} {self.least:,.10g}, at most {self.most:,.10g}"


COUNT = Quantity("a whole number", 1, 10**6, whole=True)
INDEX = Quantity("a whole number", 0, 2**31 - 1, whole=True)
SEED = Quantity("a whole number", 0, 2**32 - 1, whole=True)
PORT = Quantity("a whole number", 1, 2**16 - 1, whole=True)
SECONDS = Quantity("a number of seconds", 0, 10**7, above=True)
PAUSE = Quantity("a number of seconds", 0, 10**7)
RATE = Quantity("a number of requests/s", 0, 10**6, above=True)
ANY_RATE = Quantity("a number of requests/s", 0, 10**6)
WATTS = Quantity("a number of watts", 0, 10**6, above=True)
SHARE = Quantity("a share", 0, 1)
SOME_SHARE = Quantity("a share", 0, 1, above=True)
POSITIVE = Quantity("a number", 0, 2.0**62, above=True)
PRECISION = Quantity("a number", 0, 10**6, above=True)
