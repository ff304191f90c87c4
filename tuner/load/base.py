"""The seam of loading: what a load stage is asked to do. What it gives is ``measurement.StageResult``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StagePlan:
    """One timed drive of one deployment."""

    address: str
    """gRPC ``host:port`` or ``unix:path``; REST ``host:port``."""
    model_names: Sequence[str]
    """The load is spread over these names in turn."""
    requests_file: Path
    """``.npz``: one array per input of the signature, rows along the first axis."""
    protocol: str = "grpc"
    """``grpc`` or ``rest``."""
    signature: str = "serving_default"
    pattern: str = "poisson"
    """``closed``, ``constant``, ``poisson``, ``burst``, ``ramp``, ``staircase`` or ``trace``."""
    rate_rps: float | None = None
    """Mean arrival rate of an open loop; a part of a trace is stretched to it, or the trace is played
    as it is (``None``)."""
    clients: int = 1
    """Concurrent requests of a closed loop."""
    trace_file: Path | None = None
    """``trace``: one timestamp a line (``traces.read_trace``)."""
    burst_on_s: float = 0.5
    burst_off_s: float = 0.5
    burst_off_share: float = 0.0
    """``burst``: lengths of on and off, and the rate of off as a share of the rate of on."""
    ramp_from_rps: float | None = None
    ramp_to_rps: float | None = None
    """``ramp``, ``staircase``: first and last rate; by default 0.2 and 1.8 times ``rate_rps``."""
    ramp_steps: int = 5
    rows_per_request: int = 1
    popularity: str = "each_once"
    """``each_once`` (rows in a seeded order, again and again) or ``zipf:<s>``."""
    min_duration_s: float = 4.0
    max_duration_s: float = 10.0
    """Bounds of the measured window, after warm-up."""
    max_warmup_s: float = 5.0
    precision: float = 0.10
    """Asked relative half-width of the p99's 95 % interval."""
    max_error_rate: float = 0.01
    """Beyond it the stage ends early."""
    request_timeout_s: float = 30.0
    processes: int = 1
    connections: int = 1
    """gRPC: connections of each process, used in turn."""
    seed: int = 0
    samples_file: Path | None = None
    """Where to keep every latency, compressed."""
    details: dict = field(default_factory=dict)
    """``client_cores``: cores to pin the load generator to, instead of its own choice."""


class StageObserver(Protocol):
    """Told when the measured window opens and closes, so meters see the same window."""

    def window_opened(self, client_pids: Sequence[int]) -> None: ...

    def window_closed(self) -> None: ...

    def should_stop(self) -> str | None:
        """Asked a few times a second; a text (why) ends the stage at once, e.g. the server died."""
