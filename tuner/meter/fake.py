"""A meter that plays back scripted watts, for tests of whatever uses a meter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from tuner.errors import TunerError
from tuner.measurement import EnergyReading
from tuner.meter.base import Meter, net_j


class FakeMeter(Meter):
    """Each window draws the next of ``watts`` (the last one for ever after) over its real length.

    Args:
        watts: watts of each window in turn; an exception in its place is raised by ``close``.
        client_share, others_share: parts of the window's energy that are the client's and other
            processes'; ``None`` = can't be told.
        clock: seconds, for windows of scripted length.

    ``windows`` keeps the process ids that each window was opened with.
    """

    name = "fake"
    method = "counter"

    def __init__(
        self,
        watts: Iterable[float | TunerError] = (10.0,),
        *,
        client_share: float | None = None,
        others_share: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watts, self._clock = list(watts), clock
        self._client_share, self._others_share = client_share, others_share
        self._opened_s: float | None = None
        self.windows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.released = False

    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        if self._opened_s is not None:
            raise RuntimeError("fake: the window is open already")
        self.windows.append((tuple(server_pids), tuple(client_pids)))
        self._opened_s = self._clock()

    def close(self) -> EnergyReading:
        opened_s, self._opened_s = self._opened_s, None
        if opened_s is None:
            raise RuntimeError("fake: no window is open")
        window_s = self._clock() - opened_s
        watts = self._watts.pop(0) if len(self._watts) > 1 else self._watts[0]
        if isinstance(watts, TunerError):
            raise watts
        gross_j = watts * window_s
        client_j, others_j = (
            None if share is None else gross_j * share
            for share in (self._client_share, self._others_share)
        )
        server_j = gross_j - (client_j or 0.0) - (others_j or 0.0)
        return EnergyReading(
            source=self.name,
            method=self.method,
            domains=("fake",),
            window_s=window_s,
            gross_j=gross_j,
            client_j=client_j,
            others_j=others_j,
            idle_w=self.idle_w,
            net_j=net_j(server_j, self.idle_w, window_s),
        )

    def release(self) -> None:
        self.released = True
