"""The objective of a served model: each configuration deployed, loaded and metered for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner import deploy, load, machine, meter, models, workloads
from tuner.deploy.base import ModelToServe
from tuner.errors import UnavailableError
from tuner.measurement import Configuration, Outcome, Scalar
from tuner.space import Space
from tuner.trial import Bench, TrialRunner

CALIBRATION_S = 3.0
IDLE_S = 2.0
NET_ENERGY = "energy_net_per_request_j"
Note = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the user said of the run, beside the space."""

    artifacts: Path
    """Folder for logs and samples: one folder a trial."""
    seed: int = 0
    deployer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the deployer, e.g. ``{"server_binary": …}`` or ``{"image": …}``."""
    idle_w: float | None = None
    max_w: float | None = None
    only_calm: bool = False
    """As ``trial.Bench``: no measurement beside other work on the machine."""
    wait_for_quiet_s: float = 0.0
    """As ``trial.Bench``, and for the idle baseline."""


class ServingEvaluator:
    """Runs trials; knows what was held fixed while they ran."""

    def __init__(
        self, space: Space, runner: TrialRunner, options: Options, environment: Mapping[str, Any]
    ) -> None:
        self._space, self._runner, self._options = space, runner, options
        self.environment = dict(environment)
        """What is held fixed, as JSON; a study refuses to go on in another one."""

    def calibrate(self, facts: Mapping[str, Any], note: Note) -> dict[str, Any]:
        """Measure what a study measures once: the idle baseline and the capacity.

        Args:
            facts: what the study already holds (``capacity_rps``, ``idle_w``), used as it is.
            note: told what is being done.

        Returns:
            The same facts, complete, to be stored with the study.
        """
        facts = dict(facts)
        if facts.get("idle_w") is None:
            facts |= self._idle_baseline(note)
        self._runner.bench.meter.idle_w = facts.get("idle_w")
        interval_w = facts.get("idle_interval_w")
        self._runner.bench.meter.idle_interval_w = tuple(interval_w) if interval_w else None
        loads = self._space.factors.get("load", (self._space.settings.load,))
        if any(isinstance(level, str) for level in loads) and not self._space.settings.is_closed:
            if facts.get("capacity_rps") is None:
                clients = max(4, 2 * machine.describe()["cores"])
                note(
                    f"calibrating the load: {clients} clients in a closed loop on the default "
                    f"configuration ({CALIBRATION_S:g} s)"
                )
                facts["capacity_rps"] = self._runner.calibrate(
                    self._options.artifacts / "calibration",
                    clients=clients, duration_s=CALIBRATION_S,
                )
                facts["capacity_clients"] = clients
                facts["capacity_disturbed"] = self._runner.calibration_disturbed
                if facts["capacity_disturbed"] is not None:
                    note(
                        f"the capacity is of what others left: {facts['capacity_disturbed']}; the "
                        "load levels of this study are shares of it"
                    )
            self._runner.capacity_rps = facts["capacity_rps"]
            rates = ", ".join(
                f"{level} {load.rate_for(level, facts['capacity_rps']):.3g}" for level in load.LEVELS
            )
            note(f"capacity {facts['capacity_rps']:.3g} requests/s; levels: {rates}")
        return facts

    def _idle_baseline(self, note: Note) -> dict[str, Any]:
        """The baseline as facts; none from a busy machine, unless the study cannot do without.

        Raises:
            UnavailableError: the machine stays busy, and the space asks for the energy above idle.
        """
        source = self._runner.bench.meter
        wait_s = max(self._options.wait_for_quiet_s, meter.IDLE_WAIT_S)
        if source.known_idle_w is None:
            note(f"measuring the idle baseline ({IDLE_S:g} s)")
        try:
            idle_w = meter.measure_idle(source, IDLE_S, wait_s=wait_s)
        except UnavailableError as error:
            named = [o.name for o in self._space.objectives]
            named += [c.metric for c in self._space.constraints]
            if NET_ENERGY in named:
                raise UnavailableError(f"{error}, and this space needs {NET_ENERGY}") from None
            note(f"{error}; the energy above idle stays unknown until a run on a quiet machine")
            return {}
        return {"idle_w": idle_w, "idle_interval_w": source.idle_interval_w}

    def evaluate(
        self,
        configuration: Configuration,
        levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> Sequence[Outcome]:
        folders = [
            self._options.artifacts / "-".join([f"{number:05d}", *map(str, level.values())])
            for number, level in zip(numbers, levels, strict=True)
        ]
        return self._runner.run(configuration, levels, folders)

    def end_server(self) -> None:
        """End the kept server, so that the next trial starts a fresh one."""
        self._runner.end_server()

    def attributes(self) -> Mapping[str, Any]:
        return {
            "seed": self._options.seed,
            "versions": machine.versions(),
            "machine_load": machine.load(),
        }


@contextmanager
def open(space: Space, options: Options, note: Note) -> Iterator[ServingEvaluator]:
    """Build the model and its requests, open the deployer and the meter; close all at the end.

    Raises:
        UsageError: the model, the requests, a knob or the energy source cannot be had here.
    """
    settings = space.settings
    deploy.check_space(space)
    note(f"preparing {settings.model}")
    record = models.resolve(settings.model, signature=settings.signature, progress=note)
    requests = workloads.requests_file(
        record, source=settings.requests, seed=options.seed, per_request=settings.rows
    )
    if not record.any_batch and (told := deploy.joining_note(space, settings.rows)) is not None:
        note(f"warning: {told}")
    most = max(map(int, space.factors.get("other_models", (0,))))
    others = [ModelToServe(f"other_{i}", record.path) for i in range(most)]
    error_rates = [c.maximum for c in space.constraints if c.metric == "error_rate"]
    source = meter.choose(settings.energy, idle_w=options.idle_w, max_w=options.max_w)
    with deploy.make(settings.deployer, **options.deployer) as deployer:
        bench = Bench(
            model=ModelToServe(record.name, record.path),
            requests_file=requests,
            signature=record.signature,
            deployer=deployer,
            meter=source,
            settings=settings,
            fixed=space.fixed,
            max_error_rate=min([r for r in error_rates if r is not None], default=1.0),
            seed=options.seed,
            others=others,
            only_calm=options.only_calm,
            wait_for_quiet_s=options.wait_for_quiet_s,
        )
        with TrialRunner(bench) as runner:
            try:
                yield ServingEvaluator(space, runner, options, _environment(space, record, source))
            finally:
                source.release()


def _environment(space: Space, record: Any, source: Any) -> dict[str, Any]:
    settings = space.settings
    return {
        "model": record.name,
        "model_checksum": record.checksum,
        "weights": record.weights,
        "parameters": record.parameters,
        "flops_per_inference": record.flops_per_inference,
        "input_bytes": record.input_bytes,
        "workload": record.workload if settings.requests == "default" else settings.requests,
        "deployer": settings.deployer,
        "pattern": settings.pattern,
        **({"clients": settings.clients} if settings.is_closed else {}),
        "popularity": settings.popularity,
        "rows": settings.rows,
        "energy_source": source.name,
        "energy_method": source.method,
        "energy_model": source.describe(),
        "machine": machine.identity(machine.describe()),
    }
