"""The load generator's own process: sends requests when they are due and writes down what came.

``python -m tuner.load.client JOB.json``. It reads its commands from standard input (``start T``,
``open T``, ``close T``, ``quit``; T in seconds of CLOCK_MONOTONIC) and answers in JSON lines on
standard output. It ends with its parent: by the closed pipe, and by the kernel's parent-death
signal. It imports neither NumPy nor TensorFlow, so it starts quickly and stays small.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tuner.load import child
from tuner.load.records import OK, Recorder

SEND_BURST = 8
"""Overdue requests sent before answers are looked at again, lest they wait behind a backlog."""

ERROR_PAUSE_S = 0.01
"""A closed-loop client waits this long after an error, lest it hammers a dead server."""


class Transport(Protocol):
    """One way to send a request: gRPC or REST."""

    async def connect(self) -> None:
        """Open what can be opened before the first request is due."""

    def send(self, slot: int, model: int, body: int) -> None:
        """Begin to send distinct request ``body`` to ``model``; its end is told with ``slot``."""

    def flush(self) -> None:
        """Send what was begun."""

    async def metadata(self) -> bytes | None:
        """What the server says of the first model's signatures, ``None`` if it does not say."""


def read_bodies(path: str, lengths: list[int]) -> list[bytes]:
    """The serialised requests of a payload file."""
    with open(path, "rb") as file:
        return [file.read(length) for length in lengths]


def read_array(path: str | None, kind: str) -> array[Any]:
    values: array[Any] = array(kind)
    if path is not None:
        values.frombytes(Path(path).read_bytes())
    return values


class Client:
    """One process's share of a load stage."""

    def __init__(
        self, job: dict[str, Any], transport: Callable[[dict[str, Any], Any, Any], Transport]
    ) -> None:
        bodies = read_bodies(job["payload"], job["lengths"])
        self.transport = transport(job, bodies, self._answered)
        self.loop = asyncio.get_running_loop()
        self.recorder = Recorder(Path(job["records"]), job["capacity"])
        self.index, self.processes = job["index"], job["processes"]
        self.models = job["model_count"]
        self.arrivals = [
            read_array(job.get(k), "d") for k in ("warmup_arrivals", "window_arrivals")
        ]
        self.orders = [read_array(job[k], "i") for k in ("warmup_order", "window_order")]
        self.start_at = self.open_at = self.close_at = math.inf
        self.window = 0
        self.position = self.index
        self.timer: asyncio.TimerHandle | None = None
        self.cpu: dict[str, float] = {}
        self.messages: dict[int, str] = {}
        self.finished = self.loop.create_future()
        self.loop_clients = job["clients"] if job["closed"] else 0
        self.unsent = False

    def command(self, line: str) -> None:
        """Obey one line from the parent."""
        word, _, value = line.partition(" ")
        if word == "start":
            self.start_at = float(value)
            for _ in range(self.loop_clients):
                self.loop.call_at(self.start_at, self._send_next)
        elif word == "open":
            self.open_at = float(value)
            self.loop.call_at(self.open_at, self._note_cpu, "open")
        elif word == "close":
            self.close_at = float(value)
            self.loop.call_at(self.close_at, self._note_cpu, "close")
        elif word == "quit" and not self.finished.done():
            self.finished.set_result(None)
        if not self.loop_clients:
            self._pump()

    def report(self) -> dict[str, Any]:
        cpu = self.cpu["close"] - self.cpu["open"] if len(self.cpu) == 2 else None
        return {"cpu_s": cpu, "messages": self.messages}

    def _note_cpu(self, when: str) -> None:
        self.cpu[when] = time.process_time()

    def _due(self) -> float:
        """When the next request is due; infinity when there is none (yet)."""
        if self.window == 0:
            warmup = self.arrivals[0]
            if self.position < len(warmup):
                due = self.start_at + warmup[self.position]
                if due < self.open_at:
                    return due
            if self.open_at == math.inf:
                return math.inf
            self.window, self.position = 1, self.index
        window = self.arrivals[1]
        return self.open_at + window[self.position] if self.position < len(window) else math.inf

    def _pump(self) -> None:
        """Send all that is due, then sleep until the next is."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        for _ in range(SEND_BURST):
            due = self._due()
            if due > self.loop.time():
                if due < math.inf:
                    self.timer = self.loop.call_at(due, self._pump)
                break
            self._send(due)
        else:
            self.timer = self.loop.call_later(0, self._pump)
        self.transport.flush()

    def _send(self, due: float) -> None:
        number = self.position
        self.position += self.processes
        body = self.orders[self.window][number]
        slot = self.recorder.begin(due, self.loop.time(), number, self.window)
        if slot >= 0:
            self.transport.send(slot, number % self.models, body)

    def _send_next(self) -> None:
        """The next request of one of a closed loop's clients."""
        number, self.position = self.position, self.position + self.processes
        order = self.orders[0]
        now = self.loop.time()
        slot = self.recorder.begin(now, now, number, 0)
        if slot >= 0:
            self.transport.send(slot, number % self.models, order[number % len(order)])
            if not self.unsent:
                # What else was answered in the same moment goes out with it.
                self.unsent = True
                self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.unsent = False
        self.transport.flush()

    def _answered(self, slot: int, at_s: float, status: int, message: str) -> None:
        self.recorder.finish(slot, at_s, status)
        if status != OK:
            self.messages.setdefault(status, message)
        if self.loop_clients:
            if status == OK:
                self._send_next()
            else:
                self.loop.call_later(ERROR_PAUSE_S, self._send_next)


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def run(job: dict[str, Any]) -> None:
    if job["protocol"] == "grpc":
        from tuner.load.grpc_client import GrpcTransport

        client = Client(job, GrpcTransport)
    else:
        from tuner.load.rest_client import RestTransport

        client = Client(job, RestTransport)
    child.listen(client.command)
    try:
        await asyncio.wait_for(client.transport.connect(), job["connect_timeout_s"])
    except (OSError, TimeoutError) as error:
        say({"failed": f"no connection to {job['address']}: {error or 'timed out'}"})
        return
    metadata = await client.transport.metadata()
    gc.collect()
    gc.freeze()
    gc.disable()
    say({"ready": True, "metadata": metadata.hex() if metadata is not None else None})
    await client.finished
    say(client.report())
    # Unanswered requests are of no interest any more; waiting for them would only cost time.
    os._exit(0)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    child.tie_to_parent(job["parent_pid"])
    child.run(run(job))


if __name__ == "__main__":
    main()
