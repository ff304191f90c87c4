"""One batch scheduler for all models, with the rules of TensorFlow Serving's SharedBatchScheduler.

Each version's signature has a queue; its last batch is open and takes rows until it is full or its
time-out is over. At most ``threads`` batches run at once, the queues in turn. A request that finds a
place free runs the batch that it is part of in its own thread, which spares a lone row two hops. A
batch that must wait for another's end is run by a thread of the scheduler, which goes from batch to
batch as long as one is ready. Nothing stands between a batch and TensorFlow's session, which runs it
as it runs a single request.

The rules are those of tensorflow/core/kernels/batching_util/shared_batch_scheduler.h. A time-out is
looked at as seldom as there: by a thread that found nothing to do, each millisecond.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from tuner.modelserver.batching import BatchingOptions
from tuner.modelserver.status import Code, ServingError, invalid_argument

_TICK_S = 1.06e-3
"""From look to look of an idle thread: its wait of 1 ms, and waking up from it as measured."""

RunBatch = Callable[["Sequence[Task]"], None]
"""Runs the tasks of a batch together: fills ``outputs`` or ``error`` of each, and never raises."""


class Task:
    """A request's rows, or a part of them where it is split.

    Args:
        request: whose.
        inputs: arrays, one for each input, first dimension ``rows``.
    """

    __slots__ = ("error", "inputs", "outputs", "request", "rows")

    def __init__(self, request: Request, inputs: Sequence[np.ndarray], rows: int) -> None:
        self.request, self.inputs, self.rows = request, inputs, rows
        self.outputs: Sequence[np.ndarray] | None = None
        self.error: ServingError | None = None


class Request:
    """What one thread waits for.

    Args:
        deadline_s: an instant of ``time.monotonic``; ``None``: none.
    """

    __slots__ = ("awake", "deadline_s", "following", "left", "parts", "queued_s", "wakes")

    def __init__(
        self, inputs: Sequence[np.ndarray], rows: int, deadline_s: float | None = None
    ) -> None:
        self.deadline_s, self.queued_s = deadline_s, 0.0
        self.parts = [Task(self, inputs, rows)]
        self.left = 1
        """Parts that have not run."""
        self.following: Request | None = None
        """Who is told next that the batch is over."""
        self.wakes, self.awake = threading.Lock(), False
        self.wakes.acquire()

    def wake(self) -> None:
        """Called under the scheduler's lock."""
        if not self.awake:
            self.awake = True
            self.wakes.release()


class Batch:
    """Rows that run together."""

    __slots__ = ("opened_s", "queue", "rows", "tasks")

    def __init__(self, queue: BatchQueue) -> None:
        self.queue, self.rows, self.opened_s = queue, 0, 0.0
        self.tasks: list[Task] = []

    def add(self, task: Task, now_s: float) -> None:
        if not self.tasks:
            self.opened_s = now_s
        self.tasks.append(task)
        self.rows += task.rows


class BatchQueue:
    """The batches of one signature that wait.

    Args:
        run: runs a batch.
    """

    def __init__(self, options: BatchingOptions, run: RunBatch) -> None:
        self.options, self.run = options, run
        self.largest = (
            options.max_execution_batch_size
            if options.enable_large_batch_splitting
            else options.max_batch_size
        )
        self.timeout_s = options.batch_timeout_micros / 1e6
        self.batches = deque([Batch(self)])
        self.listed = False

    def add(self, request: Request, now_s: float) -> None:
        """Put a request's rows into batches.

        Raises:
            ServingError: INVALID_ARGUMENT, more rows than a request may have; UNAVAILABLE, no room.
        """
        options, (task,) = self.options, request.parts
        if task.rows > options.max_batch_size:
            raise invalid_argument(
                f"Task size {task.rows} is larger than maximum input batch size "
                f"{options.max_batch_size}"
            )
        request.queued_s = now_s
        room = self.largest - self.batches[-1].rows
        if task.rows <= room:
            self.batches[-1].add(task, now_s)
            return
        splits = options.enable_large_batch_splitting
        more = math.ceil((task.rows - room) / self.largest) if splits else 1
        if len(self.batches) - 1 + more >= options.max_enqueued_batches:
            raise ServingError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(self.batches)} batches enqueued and max_enqueued_batches is "
                f"{options.max_enqueued_batches}",
            )
        if splits:
            self._split(request, task, room)
        for part in request.parts:
            if part.rows > self.largest - self.batches[-1].rows:
                self.batches.append(Batch(self))
            self.batches[-1].add(part, now_s)

    def _split(self, request: Request, task: Task, room: int) -> None:
        """Cut a request where its batches end."""
        edges = [0, *range(room or self.largest, task.rows, self.largest), task.rows]
        request.parts = [
            Task(request, [array[start:end] for array in task.inputs], end - start)
            for start, end in itertools.pairwise(edges)
        ]
        request.left = len(request.parts)

    def ready(self, now_s: float) -> bool:
        """Whether a batch may run: one with another behind it, a full one, or an old one."""
        first = self.batches[0]
        return len(self.batches) > 1 or (
            bool(first.tasks)
            and (first.rows >= self.largest or now_s >= first.opened_s + self.timeout_s)
        )

    def take(self) -> Batch:
        """The first batch, out of the queue."""
        batch = self.batches.popleft()
        if not self.batches:
            self.batches.append(Batch(self))
        return batch


class BatchScheduler:
    """Runs the batches of all queues, at most ``threads`` at once."""

    def __init__(self, threads: int) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[BatchQueue] = deque()
        """Queues that hold rows, the next to be served first."""
        self._idle_since_s = [time.monotonic()] * threads
        """For each place that is free, since when."""
        self._handed: SimpleQueue[Batch] = SimpleQueue()
        """Batches that have a place, for the threads that begin where another batch ends."""
        self._threads, self._started = threads, 0

    def run(self, queue: BatchQueue, request: Request) -> list[Task]:
        """Wait until a request's rows have run; its parts, each with outputs or an error.

        Raises:
            ServingError: the queue does not take it.
        """
        with self._lock:
            now_s = time.monotonic()
            try:
                queue.add(request, now_s)
            except ServingError:
                request.parts = []
                raise
            if not queue.listed:
                queue.listed = True
                self._waiting.append(queue)
            mine = self._start(now_s, request)
            wait_s = self._look_in_s(queue, request, now_s)
        while True:
            for batch in mine:
                self._run(batch)
            woken = not mine and request.wakes.acquire(timeout=wait_s)
            with self._lock:
                if request.left == 0:
                    if request.following is not None:
                        request.following.wake()
                    # The parts know their request: a cycle that would keep the arrays of both alive.
                    parts, request.parts, request.following = request.parts, [], None
                    return parts
                if request.awake:
                    request.awake = False
                    if not woken:
                        request.wakes.acquire(blocking=False)
                now_s = time.monotonic()
                mine = self._start(now_s, request)
                wait_s = self._look_in_s(queue, request, now_s)

    def _start(
        self, now_s: float, request: Request | None = None, keeps: bool = False
    ) -> list[Batch]:
        """Give free places to batches that are ready; returns those that the caller shall run.

        Args:
            request: the caller's, who runs the batch that it is part of as a whole.
            keeps: the caller runs the first one, whosever it is.
        """
        mine: list[Batch] = []
        unseen = len(self._waiting)
        while self._idle_since_s and unseen:
            queue = self._waiting.popleft()
            unseen -= 1
            batch = queue.take() if queue.ready(now_s) else None
            queue.listed = bool(queue.batches[0].tasks)
            if queue.listed:
                self._waiting.append(queue)
            if batch is None:
                continue
            unseen = len(self._waiting)
            self._idle_since_s.pop()
            # Of a request in parts the thread stays free to look at the time; the parts run together.
            whole = request is not None and len(request.parts) == 1
            first, last = batch.tasks[0].request, batch.tasks[-1].request
            if (keeps and not mine) or (whole and request in (first, last)):
                mine.append(batch)
            else:
                self._hand_over(batch)
        return mine

    def _hand_over(self, batch: Batch) -> None:
        self._handed.put(batch)
        if self._started < self._threads:
            name = f"batch-{self._started}"
            self._started += 1
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        batches: list[Batch] = []
        while True:
            batches = self._run(batches[0] if batches else self._handed.get(), keeps=True)

    def _look_in_s(self, queue: BatchQueue, request: Request, now_s: float) -> float:
        """When this thread looks again whether its batch's time-out is over; -1: others wake it."""
        batch = queue.batches[-1]
        if not batch.tasks or batch.tasks[0].request is not request:
            return -1
        due_s = batch.opened_s + queue.timeout_s
        if self._idle_since_s:
            due_s = min(
                since_s + math.ceil(max(due_s - since_s, 0) / _TICK_S) * _TICK_S
                for since_s in self._idle_since_s
            )
        elif due_s <= now_s:
            return -1  # the next batch to end starts it
        return max(due_s - now_s, 0)

    def _run(self, batch: Batch, keeps: bool = False) -> list[Batch]:
        batch.queue.run(batch.tasks)
        with self._lock:
            now_s = time.monotonic()
            self._idle_since_s.append(now_s)
            found = self._start(now_s, keeps=keeps)
            over = []
            for task in batch.tasks:
                task.request.left -= 1
                if task.request.left == 0:
                    over.append(task.request)
            # One wakes the next: all at once they would only wait for the interpreter's lock.
            for request, following in itertools.pairwise(over):
                request.following = following
            if over:
                over[0].wake()
        return found
