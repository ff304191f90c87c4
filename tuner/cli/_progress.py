"""The progress of a study on the terminal: a bar on a screen, plain lines elsewhere."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any, Self

from tqdm import tqdm

from tuner.cli import _format, _quiet
from tuner.measurement import Configuration
from tuner.space import Space
from tuner.store import TrialRecord

MESSAGE_CHARACTERS = 160


class Progress:
    """Says trial, configuration, last values, best so far and time left (a study ``Listener``)."""

    def __init__(self, trials: int | None, *, quiet: bool = False) -> None:
        self._trials, self._quiet = trials, quiet
        self._bar: tqdm | None = None
        self._best: list[float | None] = []
        self._space: Space | None = None
        self._arms: Sequence[Any] = ()
        self._started = self._begun = 0.0
        self._total = self._done = self._earlier = 0
        self._twice_in_a_row = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def note(self, text: str) -> None:
        """Something that takes a moment before the first trial, or a ``warning: …``, which is said
        also where no progress is shown."""
        if text.startswith("warning: "):
            print(text, file=sys.stderr, flush=True)
        elif not self._quiet:
            print(f"{text} …", file=sys.stderr, flush=True)

    def begin(self, arms: Sequence[Any], space: Space) -> None:
        """Start the bar, with the trials of earlier runs in it."""
        self._space, self._arms = space, arms
        self._best = [None] * len(space.objectives)
        earlier = 0
        for arm in arms:
            # What the loop reads anyway, and without the measurements.
            for record in arm.store.changed({}):
                if record.is_finished:
                    earlier += 1
                    self._learn(record)
        print(f"sampler: {arms[0].proposer.explain()}", file=sys.stderr)
        if earlier:
            self.note(f"going on after {earlier} finished trial{'s' if earlier > 1 else ''}")
        per_arm = self._trials if self._trials is not None else space.size
        self._total, self._done, self._earlier = per_arm * len(arms), earlier, earlier
        self._begun = time.monotonic()
        self._bar = tqdm(
            total=self._total, initial=earlier, unit="trial",
            disable=self._quiet or not sys.stderr.isatty(),
            file=sys.stderr, dynamic_ncols=True, leave=False,
            bar_format="{n_fmt}/{total_fmt} |{bar:20}| {elapsed} < {remaining} {postfix}",
        )

    def started(self, number: int, configuration: Configuration, levels: Any) -> None:
        self._started = time.monotonic()
        # Other workers' trials count as well.
        self._done = max(self._done, sum(arm.finished for arm in self._arms))
        if self._bar is not None:
            self._bar.n = self._done
            where = f" @{_format.configuration(levels)}" if levels else ""
            text = f"trial {number}{where}: {_format.configuration(configuration)}"
            self._bar.set_postfix_str(text)

    def finished(self, record: TrialRecord, levels: Any) -> None:
        if self._bar is None or self._space is None:
            return
        self._learn(record)
        took = time.monotonic() - self._started
        self._started = time.monotonic()
        names = [o.name for o in self._space.objectives]
        if record.values is not None:
            last = ", ".join(_format.metric(n, v) for n, v in zip(names, record.values))
            if not record.feasible:
                last += " (beyond a constraint)"
        else:
            told = textwrap.shorten(record.message, MESSAGE_CHARACTERS, placeholder=" …")
            last = f"failed: {record.reason} ({told})"
        if (why := _quiet.disturbed(record)) is not None:
            last += " | DISTURBED" if why in record.message else f" | DISTURBED: {why}"
        best = ", ".join(_format.metric(n, v) for n, v in zip(names, self._best))
        where = f" @{_format.configuration(levels)}" if levels else ""
        if not record.is_finished:
            if not self._quiet:
                tqdm.write(f"trial {record.number}{where}: {record.message}", file=sys.stderr)
            return
        self._done += 1
        if not self._quiet:
            total = f"/{self._total}" if self._total else ""
            tqdm.write(
                f"[{self._done}{total}] trial {record.number}{where}: {last} | best of each {best} | "
                f"{took:.1f} s, {self._left()} left | "
                f"{_format.configuration(record.configuration)}",
                file=sys.stderr,
            )
            self._say_twice(record)
        self._bar.update()

    def _say_twice(self, record: TrialRecord) -> None:
        """Say once, when it is plain, that each stage is measured twice."""
        self._twice_in_a_row = self._twice_in_a_row + 1 if _quiet.was_measured_twice(record) else 0
        if self._twice_in_a_row == _quiet.PLAIN:
            tqdm.write(
                f"the last {_quiet.PLAIN} trials were measured twice, because other work disturbed "
                f"the first stage of each, and so will be the next: {_quiet.ADVICE}",
                file=sys.stderr,
            )

    def waiting(self, trials: int) -> None:
        what = "a trial" if trials == 1 else f"{trials} trials"
        self.note(f"waiting for {what} of other workers")

    def _left(self) -> str:
        """Time left at the pace of the trials since this run began."""
        pace = (time.monotonic() - self._begun) / max(self._done - self._earlier, 1)
        return _format.seconds(pace * max(self._total - self._done, 0))

    def _learn(self, record: TrialRecord) -> None:
        if not record.feasible or record.values is None or self._space is None:
            return
        for i, (objective, value) in enumerate(zip(self._space.objectives, record.values)):
            best = self._best[i]
            if best is None or objective.to_minimise(value) < objective.to_minimise(best):
                self._best[i] = value
