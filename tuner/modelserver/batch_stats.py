"""What became of each batch, told by the batches themselves.

The C++ scheduler keeps its counters to itself, so the batched function gives two more numbers
with every row: when the batch began to run, which also names the batch, and how many rows it ran.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import numpy as np

from tuner.modelserver.metrics import Metrics

_SETTLED_S = 5.0
_NO_POOL = ("",)
"""TensorFlow Serving leaves the label thread_pool_name empty."""


def stats_of_batch(rows: int) -> np.ndarray:
    """(now in seconds since the epoch, ``rows``) for each row, shape (``rows``, 2)."""
    return np.full((rows, 2), (time.time(), rows))


class BatchStats:
    """Turns what rows tell into TensorFlow Serving's batching metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._open: OrderedDict[float, list[int]] = OrderedDict()
        """Start of a batch -> [rows it ran, rows that requests brought]."""
        self._lock = threading.Lock()

    def record(self, queued_at_s: float, stats: np.ndarray) -> None:
        """Take what one request got: when it was queued, and ``stats_of_batch`` of its rows."""
        metrics = self._metrics
        metrics.input_batch_size.add((), len(stats))
        wait_us = max(0.0, float(stats[:, 0].min()) - queued_at_s) * 1e6
        metrics.queuing_latency.add(_NO_POOL, wait_us)
        with self._lock:
            for start, size in stats.tolist():
                if start not in self._open:
                    self._open[start] = [int(size), 0]
                    metrics.processed_batch_size.add((), size)
                    metrics.wrapped_run_count.add(())
                self._open[start][1] += 1
            now = time.time()
            while self._open:
                start = next(iter(self._open))
                if now - start < _SETTLED_S:
                    break
                ran, brought = self._open.pop(start)
                metrics.padding_size.add((str(ran),), ran - brought)
