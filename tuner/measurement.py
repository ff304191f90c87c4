"""The records that pass between rooms: frozen, with units in their names; ``None`` = not measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import UnavailableError

Scalar = bool | int | float | str
Configuration = Mapping[str, Scalar]
"""One choice of values: knob name -> value. Knobs whose condition does not hold are absent."""

REASONS: Mapping[str, str] = {
    "crash": "the server ended by itself",
    "out_of_memory": "the server outgrew its memory limit",
    "start_timeout": "the server was not ready in time",
    "start_failed": "the server refused to start",
    "errors": "too many requests were answered with an error",
    "overloaded": "the queue of unanswered requests kept growing",
    "client_limited": "the load generator itself was late, so the latencies are not the server's",
    "client_failed": "the load generator ended by itself",
    "percentile_unknown": "the percentile falls among requests that failed or were never answered",
    "no_answers": "the server fell silent: no request was answered any more, or none in the window",
    "energy_lost": "the energy source vanished inside the measured window",
    "energy_unresolved": "the energy above idle is less than the source can tell from nothing",
    "energy_disturbed": "other work drew too much of the energy, and the source cannot tell it apart",
    "energy_still": "the energy counter stood still, or what it counted is nothing",
    "energy_window": "the energy is of a longer or shorter window than the latencies",
    "energy_untold": "what the system says of its CPU time or its counters does not fit together",
    "killed": "the study was killed while the trial ran; does not count as finished",
    "disturbed": "other work took part of the machine, twice; does not count as finished",
    "internal": "tuner itself failed; the traceback is in the log",
}
"""Why a trial may end without a measurement: reason -> what it means."""

EMBEDDED_SERVER = "embedded_server"
"""In a deployment's record: 2 since REST costs about what it costs on TensorFlow Serving."""
PERCENTILE_RULE, CEILING = "percentile_rule", "ceiling"
"""``StageResult.details`` of a stage whose percentiles have the rank ceil(q n). Stages without it were
recorded with the rank rounded to the nearest: one too low for half of the numbers of requests."""

NOT_THE_SERVERS = frozenset({
    "client_limited", "client_failed", "energy_lost", "energy_unresolved", "energy_disturbed",
    "energy_still", "energy_window", "energy_untold", "internal",
})
"""Failures that say nothing of the configuration: they don't count against it."""

UNFINISHED = ("killed", "disturbed")
"""Reasons of trials that don't count: their configurations are still to be measured."""


@dataclass(frozen=True)
class MetricInfo:
    """What a metric of ``Measurement.metrics`` counts in, and which way is better."""

    unit: str
    direction: str
    """``minimize`` or ``maximize``."""
    label: str


METRICS: Mapping[str, MetricInfo] = {
    "latency_p50_ms": MetricInfo("ms", "minimize", "p50 latency"),
    "latency_p95_ms": MetricInfo("ms", "minimize", "p95 latency"),
    "latency_p99_ms": MetricInfo("ms", "minimize", "p99 latency"),
    "latency_mean_ms": MetricInfo("ms", "minimize", "mean latency"),
    "latency_max_ms": MetricInfo("ms", "minimize", "maximum latency"),
    "throughput_rps": MetricInfo("requests/s", "maximize", "throughput"),
    "error_rate": MetricInfo("", "minimize", "share of requests in error"),
    "energy_per_request_j": MetricInfo("J", "minimize", "energy per request"),
    "energy_net_per_request_j": MetricInfo("J", "minimize", "energy per request above idle"),
    "power_average_w": MetricInfo("W", "minimize", "average power of serving"),
    "power_total_w": MetricInfo("W", "minimize", "average power of all that the source sees"),
}


PERCENTILES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")


def interval_names(metric: str) -> tuple[str, str]:
    """What a metric's interval is called in a table: ``x_ms`` -> ``x_low_ms``, ``x_high_ms``."""
    stem, _, unit = metric.rpartition("_")
    return f"{stem}_low_{unit}", f"{stem}_high_{unit}"


def configuration_key(configuration: Configuration) -> tuple[tuple[str, str], ...]:
    """A hashable identity of a configuration; ``True``, ``1`` and ``1.0`` stay distinct."""
    return tuple(sorted((name, f"{type(v).__name__}:{v!r}") for name, v in configuration.items()))


@dataclass(frozen=True)
class EnergyReading:
    """What one meter saw between its window's opening and closing.

    ``gross_j`` is everything in the meter's domains; ``client_j`` the load generator's share and
    ``others_j`` that of every other process, where the source can tell them apart, neither ever
    charged to the server; ``net_j`` is what the server is charged with less the idle baseline
    (``idle_w`` x window) where a baseline was measured.

    Raises:
        UnavailableError: an energy below zero or not finite; no source draws that.
    """

    source: str
    """Which meter: ``rapl``, ``pyrapl``, ``nvml``, ``cpu_time`` …"""
    method: str
    """``counter`` (hardware counted joules), ``sampled`` (power samples integrated) or ``estimate``."""
    domains: tuple[str, ...]
    window_s: float
    gross_j: float
    client_j: float | None = None
    idle_w: float | None = None
    net_j: float | None = None
    samples: int = 2
    details: Mapping[str, Any] = field(default_factory=dict)
    """The estimate's model and constants, and where they come from; per-domain joules."""
    server_interval_j: tuple[float, float] | None = None
    """95 % confidence interval of ``server_j``, from how the parts of the window differ and from
    the source's resolution; ``None`` = unknown, never "exact"."""
    net_interval_j: tuple[float, float] | None = None
    """The same of ``net_j``; the baseline's own error is in it."""
    resolution_j: float | None = None
    """What the source cannot tell from nothing in any one window; ``None`` = unknown."""
    others_j: float | None = None
    """Joules of processes that are neither the server's nor the client's; ``None`` = cannot be told,
    and then it is in ``server_j``."""
    invalid: str | None = None
    """In words why this is no result, or ``None``. What was read is kept, as evidence."""
    invalid_reason: str | None = None
    """The one of ``REASONS`` that ``invalid`` tells."""

    def __post_init__(self) -> None:
        for name in ("gross_j", "client_j", "others_j"):
            joules = getattr(self, name)
            if joules is not None and not 0 <= joules < math.inf:
                raise UnavailableError(f"{self.source}: {name} of {joules:g} J is no energy")

    @property
    def why_no_result(self) -> tuple[str, str] | None:
        """Reason (one of ``REASONS``) and message where the joules are no result, else ``None``."""
        if self.invalid is not None:
            return self.invalid_reason or "energy_lost", self.invalid
        if self.server_j <= 0:
            return "energy_still", f"{self.source}: nothing is left of {self.gross_j:g} J for serving"
        return None

    @property
    def resolved_net_j(self) -> float | None:
        """``net_j`` where it can be told from nothing, else ``None``.

        A window that hardly differs from the idle baseline gives a difference of two large numbers
        that may be zero or below; as a result it would win every comparison.
        """
        if self.net_j is None:
            return None
        lowest = self.net_interval_j[0] if self.net_interval_j is not None else self.net_j
        return self.net_j if min(lowest, self.net_j - (self.resolution_j or 0.0)) > 0 else None

    @property
    def server_j(self) -> float:
        """What serving is charged with (joules): gross less the client's and the others' work."""
        return self.gross_j - (self.client_j or 0.0) - (self.others_j or 0.0)

    @property
    def average_w(self) -> float:
        """Watts that serving is charged with: energy per request x answered requests per second."""
        return self.server_j / self.window_s

    @property
    def total_w(self) -> float:
        """Watts of all that the source sees, the client's and others' work included."""
        return self.gross_j / self.window_s


@dataclass(frozen=True)
class StageResult:
    """What one load stage gave. Latency counts from the intended send time; milliseconds.

    Percentiles are those of all requests of the window: one that failed or was never answered
    counts as slower than all that were. Where a percentile falls among these it is ``None``.
    """

    valid: bool
    reason: str | None
    """``None`` when valid, else one of ``REASONS``."""
    message: str
    pattern: str
    target_rate_rps: float | None
    warmup_s: float
    window_s: float
    """Length of the measured window, after warm-up, over which everything below is counted."""
    requests: int
    """Requests due in the window; those of a closed loop are due when they are sent."""
    errors: Mapping[str, int]
    """gRPC status name (or ``HTTP_<code>``) -> count."""
    throughput_rps: float | None
    """Successful answers to requests of the window (closed loop: that came in it), per second of it."""
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    latency_mean_ms: float | None
    latency_max_ms: float | None
    latency_p99_interval_ms: tuple[float, float | None] | None
    """95 % confidence interval of the p99; its upper end is ``None`` where the window holds none:
    "at least". ``None`` altogether = unknown."""
    latency_p50_interval_ms: tuple[float, float | None] | None
    precise: bool
    """Whether the interval reached the asked precision."""
    client_lag_p99_ms: float | None
    client_cpu_s: float | None
    """CPU seconds the load generator's processes burned inside the window."""
    seed: int
    latency_p95_interval_ms: tuple[float, float | None] | None = None
    rows_per_request: int = 1
    timeline: tuple[Mapping[str, float], ...] = ()
    """One entry a second: ``second``, ``requests``, ``errors``, ``latency_p50_ms``, ``latency_max_ms``."""
    samples_file: str | None = None
    """Path of the compressed per-request record, if kept."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Placement and priority of the client, machine load and steal before the stage, …"""

    @property
    def error_rate(self) -> float | None:
        return sum(self.errors.values()) / self.requests if self.requests else None


@dataclass(frozen=True)
class Measurement:
    """A trial that succeeded: one load stage and the energy of the same window."""

    stage: StageResult
    energy: EnergyReading | None
    deployment: Mapping[str, Any] = field(default_factory=dict)
    """Command line, deployer, start-up seconds, environment of the server process, resources."""

    def _energy(self) -> EnergyReading | None:
        """The energy where it is a result."""
        return None if self.energy is None or self.energy.why_no_result else self.energy

    def metrics(self) -> dict[str, float | None]:
        """The flat numbers an objective or a constraint may name; ``None`` = not measured."""
        stage, energy = self.stage, self._energy()
        answered = None
        if stage.throughput_rps is not None:
            answered = stage.throughput_rps * stage.window_s
        per_request = energy.server_j / answered if energy and answered else None
        net_j = energy.resolved_net_j if energy else None
        net = net_j / answered if net_j is not None and answered else None
        return {
            "latency_p50_ms": stage.latency_p50_ms,
            "latency_p95_ms": stage.latency_p95_ms,
            "latency_p99_ms": stage.latency_p99_ms,
            "latency_mean_ms": stage.latency_mean_ms,
            "latency_max_ms": stage.latency_max_ms,
            "throughput_rps": stage.throughput_rps,
            "error_rate": stage.error_rate,
            "energy_per_request_j": per_request,
            "energy_net_per_request_j": net,
            "power_average_w": energy.average_w if energy else None,
            "power_total_w": energy.total_w if energy else None,
        }

    def intervals(self) -> dict[str, tuple[float, float | None] | None]:
        """95 % confidence intervals of metrics; ``None`` = unknown, and so is what is absent.

        An upper end of ``None``: the value is at least the lower one, and nobody knows how large.
        """
        stage, energy = self.stage, self._energy()
        found: dict[str, tuple[float, float | None] | None] = {
            "latency_p50_ms": stage.latency_p50_interval_ms,
            "latency_p95_ms": stage.latency_p95_interval_ms,
            "latency_p99_ms": stage.latency_p99_interval_ms,
        }
        answered = (stage.throughput_rps or 0.0) * stage.window_s
        if energy is not None:
            held, window_s = energy.server_interval_j, energy.window_s
            found["power_average_w"] = held and (held[0] / window_s, held[1] / window_s)
        if energy is not None and answered:
            net = None if energy.resolved_net_j is None else energy.net_interval_j
            for name, bounds in (("energy_per_request_j", energy.server_interval_j),
                                 ("energy_net_per_request_j", net)):
                found[name] = bounds and (bounds[0] / answered, bounds[1] / answered)
        return found

    def why_unmeasured(self, metric: str) -> tuple[str, str]:
        """Reason (one of ``REASONS``) and message for a metric that is ``None``."""
        energy = self.energy
        if energy is not None and METRICS[metric].unit in ("J", "W") and energy.why_no_result:
            return energy.why_no_result
        if metric == "energy_net_per_request_j" and energy and energy.net_j is not None:
            told = f"{energy.net_j:.3g} J above idle in {energy.window_s:.3g} s"
            if energy.resolved_net_j is None:
                return "energy_unresolved", (
                    f"{told} cannot be told from nothing: measure longer or under more load"
                )
        stage = self.stage
        if metric in PERCENTILES and stage.requests:
            lost = sum(stage.errors.values())
            return "percentile_unknown", (
                f"{lost} of {stage.requests} requests failed or were never answered: they are "
                f"slower than all others, and {METRICS[metric].label} falls among them"
            )
        return "no_answers", f"{metric} was not measured"


@dataclass(frozen=True)
class Failure:
    """A trial that gave no measurement, and why."""

    reason: str
    message: str
    log_tail: str = ""
    partial: Mapping[str, Any] = field(default_factory=dict)
    """What was seen before it failed (error counts, client lag), never used as a result."""


Outcome = Measurement | Failure


def to_json(record: Any) -> Any:
    """A record as plain JSON values (dataclasses to objects, tuples to arrays)."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(v) for v in record]
    return record


def metrics_of(measurement: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a stored measurement, as ``Measurement.metrics`` means them.

    Records of before hold as ``power_average_w`` the power of all that the source sees.
    """
    metrics = dict(measurement.get("metrics") or {})
    energy = measurement.get("energy") or {}
    if metrics.get("power_average_w") is not None and "power_total_w" not in metrics and energy:
        taken_j = (energy.get("client_j") or 0.0) + (energy.get("others_j") or 0.0)
        metrics["power_total_w"] = metrics["power_average_w"]
        metrics["power_average_w"] = (energy["gross_j"] - taken_j) / energy["window_s"]
    return metrics


OTHERS_TAKEN_OFF = "others' work taken off"


def energy_basis(reading: EnergyReading | Mapping[str, Any]) -> dict[str, Any]:
    """What must agree for two energies to be compared, of a reading or of its stored JSON.

    Keys: ``source``, ``method``, ``domains``, ``client's share taken off``, ``others' work taken
    off`` (only where it was: what is absent was charged to serving, as in every record made before
    the meters told others apart), and the constants of an estimate (``model_idle_w``,
    ``model_max_w``; dotted below a part's name in a joined source).
    """
    told = reading if isinstance(reading, Mapping) else to_json(reading)
    return {
        "source": told.get("source"),
        "method": told.get("method"),
        "domains": ", ".join(told.get("domains") or ()),
        "client's share taken off": told.get("client_j") is not None,
        **({OTHERS_TAKEN_OFF: True} if told.get("others_j") is not None else {}),
        **_constants(told.get("details") or {}),
    }


def _constants(details: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in details.items():
        if isinstance(value, Mapping):
            found.update(_constants(value, f"{prefix}{key}."))
        elif key in ("model_idle_w", "model_max_w"):
            found[prefix + key] = value
    return found


def why_not_comparable(
    one: EnergyReading | Mapping[str, Any], other: EnergyReading | Mapping[str, Any]
) -> str | None:
    """``None`` when two energies were measured alike, else in words what differs.

    Joules of two sources differ by more than any two configurations do; so do those of one
    estimate with two sets of constants, of one counter with and without the memory's domain, and
    those from which the client's share, or others' work, was and wasn't taken off.
    """
    left, right = energy_basis(one), energy_basis(other)
    for basis in (left, right):
        basis.setdefault(OTHERS_TAKEN_OFF, False)
    for aspect in dict.fromkeys([*left, *right]):
        if left.get(aspect) != right.get(aspect):
            return f"{aspect}: {left.get(aspect)} and {right.get(aspect)}"
    return None
