"""Several meters as one: the processor's and the graphics cards' domains in one window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from tuner.errors import UnavailableError, UsageError
from tuner.measurement import EnergyReading
from tuner.meter.base import Meter, net_j
from tuner.meter.uncertainty import fields

_WEAKEST_FIRST = ("estimate", "sampled", "counter")


class CompositeMeter(Meter):
    """The sum of meters with different domains; its method is that of its weakest part.

    The idle baseline belongs to the whole. A part that needs a baseline of its own to tell the
    client's share apart (RAPL) gets none, so the share is then unknown and stays in the sum:
    ``client_j`` is the sum over the processor's parts, ``None`` where one cannot tell; so is
    ``others_j``. Where a part's reading is no result, the whole is none.
    """

    def __init__(self, parts: Sequence[Meter]) -> None:
        if len(parts) < 2:
            raise UsageError("a composite needs at least two meters")
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise UsageError(f"energy source {'+'.join(names)}: each part may stand once")
        self._parts = tuple(parts)
        self.name = "+".join(names)
        self.method = min((part.method for part in parts), key=_WEAKEST_FIRST.index)

    def describe(self) -> str:
        return "; ".join(f"{part.name}: {part.describe()}" for part in self._parts)

    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        opened: list[Meter] = []
        try:
            for part in self._parts:
                part.open(server_pids, client_pids)
                opened.append(part)
        except BaseException:
            for part in reversed(opened):
                with suppress(UnavailableError):  # the first failure tells
                    part.close()
            raise

    def close(self) -> EnergyReading:
        readings, failures = [], []
        for part in self._parts:
            try:
                readings.append(part.close())
            except Exception as failure:  # noqa: BLE001 - every part must be closed first
                failures.append(failure)
        if failures:
            raise failures[0]
        window_s = readings[0].window_s
        gross_j = sum(reading.gross_j for reading in readings)
        # Only a processor's meter can know: a GPU's share of zero alone says nothing.
        processors = [reading for reading in readings if "busy_share" in reading.details]
        client_j = _sum(reading.client_j for reading in processors)
        others_j = _sum(reading.others_j for reading in processors)
        server_j = gross_j - (client_j or 0.0) - (others_j or 0.0)
        net = net_j(server_j, self.idle_w, window_s)
        no_result = next((r.why_no_result for r in readings if r.why_no_result), (None, None))
        halves, resolutions = [_half_j(r) for r in readings], [r.resolution_j for r in readings]
        # Parts rise and fall together with the load, so their errors are added, not squared.
        half_j = None if None in halves else sum(half for half in halves if half is not None)
        resolution_j = None if None in resolutions else sum(r for r in resolutions if r is not None)
        return EnergyReading(
            source=self.name,
            method=self.method,
            domains=tuple(domain for reading in readings for domain in reading.domains),
            window_s=window_s,
            gross_j=gross_j,
            client_j=client_j,
            others_j=others_j,
            idle_w=self.idle_w,
            net_j=net,
            samples=min(reading.samples for reading in readings),
            details={
                reading.source: {
                    "method": reading.method,
                    "window_s": reading.window_s,
                    "gross_j": reading.gross_j,
                    **reading.details,
                }
                for reading in readings
            },
            invalid=no_result[1],
            invalid_reason=no_result[0],
            **fields(
                server_j, net, half_j, resolution_j, window_s, self.idle_interval_w,
                least_j=sum(r.server_interval_j[0] for r in readings if r.server_interval_j),
            ),
        )

    def release(self) -> None:
        for part in self._parts:
            part.release()


def _sum(shares: Iterable[float | None]) -> float | None:
    """``None`` where there are none, or one of them is unknown."""
    known = list(shares)
    told = [share for share in known if share is not None]
    return sum(told) if told and len(told) == len(known) else None


def _half_j(reading: EnergyReading) -> float | None:
    bounds = reading.server_interval_j
    # The upper half: the lower one may have been cut off at what is possible.
    return None if bounds is None else bounds[1] - reading.server_j
