"""The batch scheduler's rules, those of TensorFlow Serving's, without a model."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from tuner.modelserver.batching import BatchingOptions
from tuner.modelserver.scheduler import BatchQueue, BatchScheduler, Request, Task
from tuner.modelserver.status import Code, ServingError


class Bench:
    """A queue whose batches double their rows, and what ran."""

    def __init__(self, threads: int = 1, gate: threading.Event | None = None, **options) -> None:
        options.setdefault("max_execution_batch_size", options.get("max_batch_size", 1000))
        self.scheduler = BatchScheduler(threads)
        self.options = BatchingOptions(num_batch_threads=threads, **options)
        self.gate = gate
        self.ran: list[tuple[str, list[int]]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.queue = self.another("a")

    def another(self, name: str) -> BatchQueue:
        def run(tasks: Sequence[Task]) -> None:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
                self.ran.append((name, [task.rows for task in tasks]))
            if self.gate is not None:
                assert self.gate.wait(20)
            for task in tasks:
                task.outputs = [2 * task.inputs[0]]
            with self.lock:
                self.running -= 1

        return BatchQueue(self.options, run)

    def ask(self, rows: np.ndarray, queue: BatchQueue | None = None) -> np.ndarray:
        parts = self.scheduler.run(queue or self.queue, Request([rows], len(rows)))
        return np.concatenate([part.outputs[0] for part in parts])

    def sizes(self) -> list[int]:
        return [sum(rows) for _, rows in self.ran]


def _soon(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def _waiting(bench: Bench, rows: int, queue: BatchQueue | None = None) -> None:
    queue = queue or bench.queue
    _soon(lambda: sum(batch.rows for batch in list(queue.batches)) == rows)


def test_a_row_alone_runs_at_once_where_there_is_no_time_out():
    bench = Bench(max_batch_size=8)
    assert bench.ask(np.array([3.0])).tolist() == [6.0]
    assert bench.ran == [("a", [1])]


def test_rows_that_come_while_a_batch_runs_are_the_next_batch():
    gate = threading.Event()
    bench = Bench(max_batch_size=3, max_enqueued_batches=100, gate=gate)
    with ThreadPoolExecutor(6) as pool:
        asked: list[Future] = []
        for number in range(6):
            asked.append(pool.submit(bench.ask, np.array([number])))
            if number == 0:
                _soon(lambda: bench.running == 1)
            else:
                _waiting(bench, number)
        gate.set()
        assert [future.result(20).tolist() for future in asked] == [[2 * n] for n in range(6)]
    assert bench.sizes() == [1, 3, 2]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_no_more_batches_run_at_once_than_there_are_threads(threads: int):
    gate = threading.Event()
    bench = Bench(threads, gate, max_batch_size=1, max_enqueued_batches=100)
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(bench.ask, np.array([n])) for n in range(12)]
        _soon(lambda: bench.running == threads)
        _waiting(bench, 12 - threads)
        gate.set()
        for future in asked:
            future.result(20)
    assert bench.most == threads


def test_queues_are_served_in_turn():
    gate = threading.Event()
    bench = Bench(max_batch_size=1, max_enqueued_batches=100, gate=gate)
    other = bench.another("b")
    with ThreadPoolExecutor(9) as pool:
        pool.submit(bench.ask, np.array([0]))
        _soon(lambda: bench.running == 1)
        for number in range(4):
            pool.submit(bench.ask, np.array([0]))
            _waiting(bench, number + 1)
        for number in range(4):
            pool.submit(bench.ask, np.array([0]), other)
            _waiting(bench, number + 1, other)
        gate.set()
    assert [name for name, _ in bench.ran[1:]] == ["a", "b"] * 4


def test_a_full_batch_does_not_wait_for_its_time_out():
    bench = Bench(max_batch_size=2, batch_timeout_micros=60_000_000)
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(bench.ask, [np.array([1]), np.array([2])]))
    assert time.monotonic() - start < 10
    assert bench.ran == [("a", [1, 1])]


def test_a_batch_waits_for_its_time_out_and_little_more():
    bench = Bench(max_batch_size=2, batch_timeout_micros=30_000)
    waits_s = []
    for _ in range(20):
        start = time.monotonic()
        bench.ask(np.array([1]))
        waits_s.append(time.monotonic() - start)
    assert 0.030 <= min(waits_s) < 0.034


def test_a_batch_whose_time_out_ends_while_all_threads_are_busy_runs_next():
    gate = threading.Event()
    bench = Bench(max_batch_size=2, batch_timeout_micros=20_000, gate=gate)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bench.ask, np.array([1, 2]))
        _soon(lambda: bench.running == 1)
        second = pool.submit(bench.ask, np.array([3]))
        time.sleep(0.05)
        gate.set()
        assert first.result(20).tolist() == [2, 4]
        assert second.result(20).tolist() == [6]


def test_a_queue_that_is_full_refuses_and_says_so():
    gate = threading.Event()
    bench = Bench(max_batch_size=2, max_enqueued_batches=2, gate=gate)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(bench.ask, np.array([0]))]
        _soon(lambda: bench.running == 1)
        asked += [pool.submit(bench.ask, np.array([0])) for _ in range(4)]
        _waiting(bench, 4)
        with pytest.raises(ServingError) as refusal:
            bench.ask(np.array([0]))
        gate.set()
        for future in asked:
            future.result(20)
    assert refusal.value.code is Code.UNAVAILABLE
    assert refusal.value.message == (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches "
        "enqueued and max_enqueued_batches is 2"
    )


def test_a_request_of_more_rows_than_a_batch_is_refused():
    bench = Bench(max_batch_size=4)
    with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4"):
        bench.ask(np.arange(5))


def test_a_request_is_split_where_that_is_allowed_and_filled_up_with_others():
    gate = threading.Event()
    bench = Bench(
        max_batch_size=8,
        max_execution_batch_size=3,
        enable_large_batch_splitting=True,
        max_enqueued_batches=100,
        gate=gate,
    )
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bench.ask, np.array([0]))
        _soon(lambda: bench.running == 1)
        second = pool.submit(bench.ask, np.array([1, 2]))
        _waiting(bench, 2)
        third = pool.submit(bench.ask, np.arange(10, 18))
        _waiting(bench, 10)
        gate.set()
        assert first.result(20).tolist() == [0]
        assert second.result(20).tolist() == [2, 4]
        assert third.result(20).tolist() == list(range(20, 36, 2))
    assert bench.ran == [("a", [1]), ("a", [2, 1]), ("a", [3]), ("a", [3]), ("a", [1])]


@pytest.mark.parametrize("timeout_micros", [0, 500, 3000])
@pytest.mark.parametrize("splits", [False, True])
def test_every_request_gets_its_own_rows_whatever_comes_together(
    timeout_micros: int, splits: bool
):
    bench = Bench(
        3,
        max_batch_size=8,
        max_execution_batch_size=5 if splits else 8,
        enable_large_batch_splitting=splits,
        batch_timeout_micros=timeout_micros,
        max_enqueued_batches=1000,
    )
    queues = [bench.queue, bench.another("b"), bench.another("c")]

    def client(seed: int) -> int:
        draw = random.Random(seed)
        for _ in range(120):
            rows = np.array([draw.random() for _ in range(draw.randint(1, 8))])
            answer = bench.ask(rows, draw.choice(queues))
            assert answer.tolist() == (2 * rows).tolist()
        return seed

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(client, range(12), timeout=60)) == list(range(12))
    assert bench.most <= 3
    assert max(bench.sizes()) <= (5 if splits else 8)
    assert not bench.running


def test_the_parts_of_a_request_run_together_where_there_are_places():
    gate = threading.Event()
    bench = Bench(
        3,
        gate,
        max_batch_size=8,
        max_execution_batch_size=2,
        enable_large_batch_splitting=True,
        max_enqueued_batches=100,
    )
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(bench.ask, np.arange(6))
        _soon(lambda: bench.running == 3)
        gate.set()
        assert asked.result(20).tolist() == [0, 2, 4, 6, 8, 10]


def test_what_a_request_brought_is_let_go_with_its_answer():
    bench = Bench(max_batch_size=8)
    rows = np.arange(3)
    kept = weakref.ref(rows)
    gc.disable()
    try:
        bench.ask(rows)
        del rows
        assert kept() is None
    finally:
        gc.enable()
