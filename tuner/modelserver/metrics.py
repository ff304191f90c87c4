"""Counters and histograms under TensorFlow Serving's names, as Prometheus reads them."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

_PREFIX = ":tensorflow:serving:"


def exponential(scale: float, growth: float, count: int) -> tuple[float, ...]:
    """The ``count`` upper bounds of TensorFlow's exponential buckets; one without bound follows."""
    return tuple(scale * growth**power for power in range(count))


LATENCY_BUCKETS_US = exponential(10, 1.8, 33)
QUEUING_BUCKETS_US = exponential(100, 1.2, 52)
SIZE_BUCKETS = exponential(1, 2, 15)


class _Metric:
    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name, self.labels = _PREFIX + name, tuple(labels)
        self._lock = threading.Lock()

    def lines(self) -> list[str]:
        """The text that Prometheus reads."""
        raise NotImplementedError

    def _label_text(self, values: Sequence[str], extra: str = "") -> str:
        pairs = [f'{key}="{_escape(value)}"' for key, value in zip(self.labels, values)]
        pairs += [extra] if extra else []
        return "{" + ",".join(pairs) + "}" if pairs else ""


class Counter(_Metric):
    """A count for each combination of label values."""

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        super().__init__(name, labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, values: tuple[str, ...], amount: int = 1) -> None:
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + amount

    def lines(self) -> list[str]:
        with self._lock:
            counts = dict(self._counts)
        return [
            f"# TYPE {self.name} counter",
            *(f"{self.name}{self._label_text(v)} {count}" for v, count in counts.items()),
        ]


class Histogram(_Metric):
    """A distribution for each combination of label values.

    Args:
        bounds: upper bounds of the buckets; values above the last count in ``+Inf``.
    """

    def __init__(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__(name, labels)
        self._bounds = tuple(bounds)
        self._cells: dict[tuple[str, ...], list[float]] = {}

    def add(self, values: tuple[str, ...], sample: float) -> None:
        index = bisect.bisect_left(self._bounds, sample)
        with self._lock:
            cell = self._cells.get(values)
            if cell is None:  # the buckets, +Inf, and the sum at the end
                cell = self._cells[values] = [0] * (len(self._bounds) + 1) + [0.0]
            cell[index] += 1
            cell[-1] += sample

    def lines(self) -> list[str]:
        with self._lock:
            cells = {values: list(cell) for values, cell in self._cells.items()}
        out = [f"# TYPE {self.name} histogram"]
        for values, cell in cells.items():
            total = 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), cell[:-1]):
                total += int(count)
                le = self._label_text(values, f'le="{bound}"')
                out.append(f"{self.name}_bucket{le} {total}")
            out.append(f"{self.name}_sum{self._label_text(values)} {cell[-1]:.17g}")
            out.append(f"{self.name}_count{self._label_text(values)} {total}")
        return out


class Metrics:
    """Everything this server counts."""

    def __init__(self) -> None:
        self.request_count = Counter("request_count", ("model_name", "status"))
        self.request_latency = Histogram(
            "request_latency", ("model_name", "API", "entrypoint"), LATENCY_BUCKETS_US
        )
        self.runtime_latency = Histogram(
            "runtime_latency", ("model_name", "API", "runtime"), LATENCY_BUCKETS_US
        )
        self.queuing_latency = Histogram(
            "batching_session:queuing_latency", ("thread_pool_name",), QUEUING_BUCKETS_US
        )
        self.input_batch_size = Histogram("batching_session:input_batch_size", (), SIZE_BUCKETS)
        self.processed_batch_size = Histogram(
            "batching_session:processed_batch_size", (), SIZE_BUCKETS
        )
        self.padding_size = Histogram(
            "batching_session:padding_size", ("execution_batch_size",), SIZE_BUCKETS
        )
        self.wrapped_run_count = Counter("batching_session:wrapped_run_count", ())
        self.request_example_counts = Histogram("request_example_counts", ("model",), SIZE_BUCKETS)
        self.request_example_count_total = Counter("request_example_count_total", ("model",))
        # Ours: TensorFlow Serving has no response cache.
        self.cache_hits = Counter("response_cache:hits", ("model_name",))
        self.cache_misses = Counter("response_cache:misses", ("model_name",))

    def count_examples(self, model: str, count: int) -> None:
        """The tf.Examples of a request to classify or regress."""
        self.request_example_counts.add((model,), count)
        self.request_example_count_total.add((model,), count)

    def exposition(self) -> str:
        """The Prometheus text format."""
        metrics = [metric for metric in vars(self).values() if isinstance(metric, _Metric)]
        return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"


def _number(bound: float) -> str:
    return f"{bound:g}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
