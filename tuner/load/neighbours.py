"""A stage watched for other work: which share of the machine others had in its measured window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuner.load import machine
from tuner.load.base import StageObserver
from tuner.measurement import StageResult


class Neighbours:
    """An observer of one stage that tells others' work from the server's and the load generator's.

    Whatever meters the energy, and also where nothing does: the machine's own counters and those of
    the processes are read when the stage begins, and at the ends of its measured window.

    Args:
        server_pids: asked for the server's processes; it gives ``None`` where they run on this
            machine but can't be seen.
        inner: an observer that is told the same, and told first, so that its window is the stage's.
    """

    def __init__(
        self,
        server_pids: Callable[[], Sequence[int] | None],
        inner: StageObserver | None = None,
    ) -> None:
        self._server_pids, self._inner = server_pids, inner
        self._stage = machine.Span(server_pids())
        self._window: machine.Span | None = None
        self._closed = False
        self._told: dict[str, float | None] | None = None

    def window_opened(self, client_pids: Sequence[int]) -> None:
        if self._inner is not None:
            self._inner.window_opened(client_pids)
        self._window = machine.Span(self._server_pids(), client_pids)

    def window_closed(self) -> None:
        try:
            if self._inner is not None:
                self._inner.window_closed()
        finally:
            if self._window is not None and not self._closed:
                self._closed, self._told = True, self._window.ended()

    def should_stop(self) -> str | None:
        return self._inner.should_stop() if self._inner is not None else None

    def judged(self, result: StageResult) -> StageResult:
        """The stage's record with what disturbed it, in words, as ``details["disturbed"]``.

        A stage that ended before its window opened is judged by the whole of it.
        """
        details = {**result.details, **self._shares(result.details.get("machine_window"))}
        return replace(result, details={**details, "disturbed": machine.disturbance(details)})

    def disturbance(self) -> str | None:
        """The same without a record, from what was seen here alone."""
        return machine.disturbance(self._shares(None))

    def _shares(self, window: Mapping[str, float] | None) -> dict[str, Any]:
        if self._window is None:
            whole = self._stage.ended()
            return {} if whole is None else {"machine_stage": whole}
        return {} if self._told is None else {"machine_window": {**self._told, **(window or {})}}
