"""TensorFlow Serving's counts of batches."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.modelserver.metrics import Metrics

_NO_POOL = ("",)
"""TensorFlow Serving leaves the label thread_pool_name empty."""


class BatchStats:
    """Counts each batch as it begins to run."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def record(self, waits_s: Sequence[float], rows: Sequence[int], ran: int) -> None:
        """Take a batch.

        Args:
            waits_s: how long each of its requests was in the queue.
            rows: of each request.
            ran: rows that run: theirs, and what fills up to an allowed size.
        """
        metrics = self._metrics
        for wait_s, brought in zip(waits_s, rows):
            metrics.input_batch_size.add((), brought)
            metrics.queuing_latency.add(_NO_POOL, wait_s * 1e6)
        metrics.processed_batch_size.add((), ran)
        metrics.padding_size.add((str(ran),), ran - sum(rows))
        metrics.wrapped_run_count.add(())
