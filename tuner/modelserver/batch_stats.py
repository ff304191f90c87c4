"""TensorFlow Serving's counts of batches, for one model."""

from __future__ import annotations

from tuner.modelserver.metrics import Metrics


class BatchStats:
    """Counts each batch as it begins to run."""

    def __init__(self, metrics: Metrics, model: str, pool: str) -> None:
        self._metrics, self._model, self._pool = metrics, (model,), (pool,)

    def record(self, waits_s: list[float], rows: list[int], ran: int) -> None:
        """Take a batch.

        Args:
            waits_s: how long each of its requests was in the queue.
            rows: of each request.
            ran: rows that run: theirs, and what fills up to an allowed size.
        """
        metrics = self._metrics
        for wait_s, brought in zip(waits_s, rows):
            metrics.input_batch_size.add(self._model, brought)
            metrics.queuing_latency.add(self._pool, wait_s * 1e6)
        metrics.processed_batch_size.add(self._model, ran)
        metrics.padding_size.add(self._model, ran - sum(rows))
