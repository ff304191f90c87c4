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
from collections.abc import Awaitable
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

    def send(self, model: int, body: int) -> Awaitable[tuple[int, str]]:
        """Send distinct request ``body`` to ``model`` now; gives (status, message)."""

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

    def __init__(self, job: dict[str, Any], transport: Transport) -> None:
        self.transport = transport
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
        self.tasks: set[asyncio.Task[None]] = set()
        self.cpu: dict[str, float] = {}
        self.messages: dict[int, str] = {}
        self.finished = self.loop.create_future()
        self.loop_clients = job["clients"] if job["closed"] else 0

    def command(self, line: str) -> None:
        """Obey one line from the parent."""
        word, _, value = line.partition(" ")
        if word == "start":
            self.start_at = float(value)
            for _ in range(self.loop_clients):
                self._keep(self._closed_loop())
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
                return
            self._send(due)
        self.timer = self.loop.call_later(0, self._pump)

    def _send(self, due: float) -> None:
        number = self.position
        self.position += self.processes
        body = self.orders[self.window][number]
        slot = self.recorder.begin(due, self.loop.time(), number, self.window)
        if slot >= 0:
            self._keep(self._answer(slot, self.transport.send(number % self.models, body)))

    async def _answer(self, slot: int, call: Awaitable[tuple[int, str]]) -> int:
        status, message = await call
        self.recorder.finish(slot, self.loop.time(), status)
        if status != OK:
            self.messages.setdefault(status, message)
        return status

    async def _closed_loop(self) -> None:
        await asyncio.sleep(max(0.0, self.start_at - self.loop.time()))
        order = self.orders[0]
        while not self.finished.done():
            number, self.position = self.position, self.position + self.processes
            now = self.loop.time()
            slot = self.recorder.begin(now, now, number, 0)
            if slot < 0:
                return
            call = self.transport.send(number % self.models, order[number % len(order)])
            if await self._answer(slot, call) != OK:
                await asyncio.sleep(ERROR_PAUSE_S)

    def _keep(self, coroutine: Any) -> None:
        """Run a coroutine; the loop itself holds tasks only weakly."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def run(job: dict[str, Any]) -> None:
    bodies = read_bodies(job["payload"], job["lengths"])
    if job["protocol"] == "grpc":
        from tuner.load.grpc_client import GrpcTransport

        transport: Transport = GrpcTransport(job, bodies)
    else:
        from tuner.load.rest_client import RestTransport

        transport = RestTransport(job, bodies)
    client = Client(job, transport)
    child.listen(client.command)
    try:
        await asyncio.wait_for(transport.connect(), job["connect_timeout_s"])
    except (OSError, TimeoutError) as error:
        say({"failed": f"no connection to {job['address']}: {error or 'timed out'}"})
        return
    metadata = await transport.metadata()
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
