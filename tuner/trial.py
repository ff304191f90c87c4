"""One trial: deploy, warm up, load under meters; a Measurement, or a reason why not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from tuner.deploy.base import Deployer, Deployment, DeploymentRequest, ModelToServe
from tuner.deploy.knobs import server_identity
from tuner.deploy.memory import peak_mb
from tuner.errors import TrialFailure, UnavailableError
from tuner.load import (
    Neighbours,
    StagePlan,
    calibrate,
    disturbance,
    placement,
    rate_for,
    run_stage,
    wait_until_quiet,
)
from tuner.measurement import (
    Configuration,
    EnergyReading,
    Failure,
    Measurement,
    Outcome,
    Scalar,
    StageResult,
    to_json,
)
from tuner.meter.base import Meter
from tuner.space import Settings

QUIET_WAIT_S = 60.0
"""How long a recording waits for a quiet machine before it measures a disturbed stage once more."""


@dataclass(frozen=True)
class Bench:
    """What a trial needs and does not choose: the same for every trial of a study."""

    model: ModelToServe
    requests_file: Path
    signature: str
    deployer: Deployer
    meter: Meter
    settings: Settings
    fixed: Mapping[str, Scalar]
    max_error_rate: float
    seed: int = 0
    others: Sequence[ModelToServe] = ()
    """Models to serve beside the tuned one, as many as the factor ``other_models`` asks for."""
    only_calm: bool = False
    """Whether a stage that other work on the machine disturbed twice is a failure."""
    wait_for_quiet_s: float = 0.0
    """How long to wait for a quiet machine before a disturbed stage is measured once more."""


WINDOW_LIMIT = 0.02
WINDOW_SLACK_S = 0.05
"""How far the meter's window may be from the latencies': 2 % of it, and what it takes to open one."""


class MeteredWindow:
    """Opens the meter with the load's measured window, and ends the stage when the server dies."""

    def __init__(self, meter: Meter, deployment: Deployment) -> None:
        self._meter, self._deployment = meter, deployment
        self._open = False
        self.reading: EnergyReading | None = None
        self.lost: str | None = None
        """Why the energy is missing, when the source vanished before or inside the window."""
        self.paused: str | None = None
        """That the meter's window went on for longer than the latencies': a pause, which passes."""

    def window_opened(self, client_pids: Sequence[int]) -> None:
        try:
            self._meter.open(self._deployment.pids(), client_pids)
        except UnavailableError as error:
            self.lost = str(error)
        else:
            self._open = True

    def window_closed(self) -> None:
        if self._open:
            self._open = False
            try:
                self.reading = self._meter.close()
            except UnavailableError as error:
                self.lost = str(error)

    def compare(self, stage: StageResult) -> None:
        """Take no energy of another window than the latencies', such as after a pause (SIGSTOP)."""
        reading = self.reading
        if reading is None or reading.invalid is not None:
            return
        apart_s = abs(reading.window_s - stage.window_s)
        if apart_s > max(WINDOW_LIMIT * stage.window_s, WINDOW_SLACK_S):
            why = (
                f"the energy is of {reading.window_s:.3g} s and the latencies of "
                f"{stage.window_s:.3g} s; was the study or the machine paused?"
            )
            self.reading = replace(reading, invalid=why, invalid_reason="energy_window")
            self.paused = why if reading.window_s > stage.window_s else None

    def should_stop(self) -> str | None:
        failure = self._deployment.failure()
        return None if failure is None else failure[1]


Attempt = tuple[Deployment, StageResult, MeteredWindow]


class TrialRunner:
    """Runs trials on one bench, one at a time. Leaving the context ends the server.

    The server of a trial runs until the next one needs a different server: load levels and client
    settings vary on one deployment.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.capacity_rps: float | None = None
        self.calibration_disturbed: str | None = None
        """What disturbed the closed loop that found the capacity, in words."""
        self._kept: tuple[Any, Deployment, ExitStack] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end_server()

    def end_server(self) -> None:
        if self._kept is not None:
            _, _, stack = self._kept
            self._kept = None
            stack.close()

    def run(
        self,
        configuration: Configuration,
        levels: Sequence[Mapping[str, Scalar]],
        workdirs: Sequence[Path],
    ) -> list[Outcome]:
        """One configuration at each of the levels, on one deployment where the levels allow it.

        Args:
            configuration: the proposed knobs; the bench's fixed settings are added.
            levels: level of each factor (``load``, ``other_models``).
            workdirs: a folder of its own for each level's log and samples.
        """
        outcomes: list[Outcome] = []
        for level, workdir in zip(levels, workdirs, strict=True):
            workdir.mkdir(parents=True, exist_ok=True)
            try:
                outcomes.append(self._measure(configuration, level, workdir))
            except TrialFailure as failure:
                outcomes.append(Failure(failure.reason, failure.message, failure.log_tail))
            if isinstance(outcomes[-1], Failure):
                # What made this level fail must not reach the next one.
                self.end_server()
        return outcomes

    def _measure(
        self, configuration: Configuration, level: Mapping[str, Scalar], workdir: Path
    ) -> Outcome:
        others = int(level.get("other_models", 0))
        load = level.get("load", self.bench.settings.load)
        assert not isinstance(load, bool)
        whole = {**self.bench.fixed, **configuration}

        def attempt() -> Attempt:
            deployment = self._deployment(configuration, others, workdir)
            return deployment, *self._stage(self.plan(deployment, whole, load, workdir), deployment)

        deployment, result, window = attempt()
        disturbed = _disturbed(result, window.reading) or window.paused
        if disturbed is not None and deployment.failure() is None:
            # The first one says more of the machine's neighbours than of the server.
            deployment, result, window = self._once_more(
                disturbed, result.valid, deployment, attempt
            )
        described = {
            **to_json(deployment.describe()), "memory_peak_mb": peak_mb(deployment.pids()),
        }
        died = deployment.failure()
        _keep_log(deployment, workdir)
        partial = {"stage": to_json(result)}
        if died is not None:
            return Failure(died[0], died[1], deployment.log_tail(), partial)
        neighbours = _others(result, window.reading)
        if neighbours is not None and self.bench.only_calm:
            return Failure("disturbed", neighbours, "", partial)
        if not result.valid:
            message = result.message
            if neighbours is not None:
                message += f"; {neighbours}, which may be why"
            return Failure(
                result.reason or "internal", message, deployment.log_tail(),
                {**partial, "deployment": described},
            )
        if window.lost is not None:
            return Failure("energy_lost", window.lost, "", partial)
        return Measurement(stage=result, energy=window.reading, deployment=described)

    def _once_more(
        self, disturbed: str, valid: bool, deployment: Deployment, attempt: Callable[[], Attempt]
    ) -> Attempt:
        """Measure a disturbed stage again; its record keeps what disturbed the first one.

        Args:
            disturbed: the words for it; valid: whether the first stage was.
        """
        if not valid:
            self.end_server()  # what it still has to answer would pass for other work
        wait_s = max(self.bench.wait_for_quiet_s, QUIET_WAIT_S if self.bench.only_calm else 0.0)
        if wait_s:
            wait_until_quiet(wait_s, deployment.pids if valid else tuple)
        deployment, result, window = attempt()
        told = {"disturbed_before": disturbed, "disturbed": _disturbed(result, window.reading)}
        return deployment, replace(result, details={**result.details, **told}), window

    def _stage(
        self, plan: StagePlan, deployment: Deployment
    ) -> tuple[StageResult, MeteredWindow]:
        window = MeteredWindow(self.bench.meter, deployment)
        beside = Neighbours(deployment.pids, window)
        try:
            result = run_stage(plan, beside)
        finally:
            window.window_closed()
        window.compare(result)
        return beside.judged(result), window

    def _deployment(self, configuration: Configuration, others: int, workdir: Path) -> Deployment:
        whole = {**self.bench.fixed, **configuration}
        served = tuple(self.bench.others[:others])
        identity = server_identity(whole, tuple(m.name for m in served))
        if self._kept is not None:
            kept, deployment, _ = self._kept
            if kept == identity and deployment.failure() is None:
                return deployment
            self.end_server()
        request = DeploymentRequest(
            model=self.bench.model, configuration=whole, workdir=workdir, others=served,
            start_timeout_s=self.bench.settings.start_timeout_s,
            # From four cores on the load generator has one of its own; the server keeps off it.
            server_cores=placement.place().server_cores,
        )
        stack = ExitStack()
        deployment = stack.enter_context(self.bench.deployer.deploy(request))
        self._kept = (identity, deployment, stack)
        return deployment

    def plan(
        self, deployment: Deployment, configuration: Configuration, load: str | float, workdir: Path
    ) -> StagePlan:
        """The load stage of one deployment at one load level."""
        settings = self.bench.settings
        protocol = str(configuration.get("protocol", "grpc"))
        address = deployment.rest_address if protocol == "rest" else deployment.grpc_address
        assert address is not None
        return StagePlan(
            address=address,
            model_names=deployment.model_names,
            requests_file=self.bench.requests_file,
            protocol=protocol,
            signature=self.bench.signature,
            pattern=settings.pattern,
            rate_rps=None if settings.is_closed else rate_for(load, self.capacity_rps),
            clients=settings.clients,
            rows_per_request=settings.rows,
            popularity=settings.popularity,
            min_duration_s=settings.min_duration_s,
            max_duration_s=settings.max_duration_s,
            precision=settings.precision,
            max_error_rate=self.bench.max_error_rate,
            seed=self.bench.seed,
            samples_file=workdir / "samples.npz",
        )

    def calibrate(self, workdir: Path, *, clients: int, duration_s: float) -> float:
        """Capacity of the default configuration: requests/s answered to a short closed loop.

        The default configuration is the space's fixed settings and the server's own defaults
        for everything else. Keeps and returns requests/s.

        Raises:
            TrialFailure: the default configuration cannot be deployed or does not answer.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            deployment = self._deployment({}, 0, workdir)
            plan = self.plan(deployment, self.bench.fixed, 1.0, workdir)
            beside = Neighbours(deployment.pids)
            self.capacity_rps = calibrate(plan, clients, duration_s, beside)
            self.calibration_disturbed = beside.disturbance()
        except TrialFailure as failure:
            log_tail = self._kept[1].log_tail() if self._kept else failure.log_tail
            raise TrialFailure(failure.reason, failure.message, log_tail) from None
        finally:
            self.end_server()
        return self.capacity_rps


def _disturbed(result: StageResult, reading: EnergyReading | None) -> str | None:
    """What disturbed a stage: other work, the hypervisor, or what was too late for either to show.

    A client that was late is on a small machine mostly a neighbour's doing.
    """
    late = result.message if result.reason == "client_limited" else None
    return _others(result, reading) or late


def _others(result: StageResult, reading: EnergyReading | None) -> str | None:
    """That others used the machine, by its counters or by a meter that can't tell them apart."""
    disturbed = reading is not None and reading.invalid_reason == "energy_disturbed"
    return disturbance(result.details) or (reading.invalid if reading and disturbed else None)


def _keep_log(deployment: Deployment, workdir: Path) -> None:
    """Copy the server's log when the server was kept from an earlier trial's folder."""
    log = getattr(deployment, "log_file", None)
    if log is not None and Path(log).parent != workdir and Path(log).exists():
        shutil.copyfile(log, workdir / Path(log).name)
