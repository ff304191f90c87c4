"""One fork server for the whole folder: each test has real server processes in tenths of a second."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests

from tests.modelserver.echo import service  # noqa: F401 - a fixture of several files
from tuner.deploy.readiness import free_port

ROOT = Path(__file__).resolve().parents[2]


class ForkServerProcess:
    """The program under test, spoken to in its own protocol."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tuner.modelserver.forkserver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                bufsize=0,  # so that ``select`` tells of every answer
            )
        self._numbers = itertools.count(1)
        self._exits: dict[int, int] = {}

    def order(self, **message: Any) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, argv: list[str], log: Path, **more: Any) -> tuple[int, int]:
        """Fork a server; returns (id, pid)."""
        number = next(self._numbers)
        order = {"env": {}, "affinity": None, "cgroup_procs": [], "nice": 0, **more}
        self.order(id=number, argv=argv, log=str(log), **order)
        while True:
            answer = self.answer()
            if answer["id"] == number:
                assert "pid" in answer, answer
                return number, answer["pid"]

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, f"the fork server ended:\n{self.log.read_text()}"
        answer = json.loads(line)
        if "exit" in answer:
            self._exits[answer["id"]] = answer["exit"]
        return answer

    def has_ended(self, number: int) -> bool:
        """Whether a server has ended, as far as the fork server has told by now."""
        while number not in self._exits and select.select([self.process.stdout], [], [], 0)[0]:
            self.answer()
        return number in self._exits

    def exit_code(self, number: int) -> int:
        while number not in self._exits:
            self.answer()
        return self._exits[number]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


@dataclass
class RunningServer:
    """A server that answers, and clients for it."""

    pid: int
    number: int
    log: Path
    port: int
    rest_port: int
    channel: grpc.Channel

    def predict(self, inputs: dict[str, Any], name: str = "default", **spec: Any) -> dict[str, Any]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        output_filter = spec.pop("output_filter", ())
        version = spec.pop("version", None)
        request = predict_pb2.PredictRequest(output_filter=output_filter)
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        for key, value in spec.items():
            setattr(request.model_spec, key, value)
        for key, value in inputs.items():
            array = np.asarray(value, np.float32) if not isinstance(value, np.ndarray) else value
            request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
        stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        response = stub.Predict(request, timeout=30)
        return {key: tf.make_ndarray(tensor) for key, tensor in response.outputs.items()}

    def rest(self, method: str, path: str, **more: Any) -> requests.Response:
        url = f"http://127.0.0.1:{self.rest_port}{path}"
        return requests.request(method, url, timeout=30, **more)


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory) -> Iterator[ForkServerProcess]:
    server = ForkServerProcess(tmp_path_factory.mktemp("forkserver") / "log")
    yield server
    server.close()


@pytest.fixture
def batching(tmp_path):
    """Flags for these batching parameters."""

    def flags(text: str) -> list[str]:
        path = tmp_path / "batching.txt"
        path.write_text(text)
        return ["--enable_batching", f"--batching_parameters_file={path}"]

    return flags


@pytest.fixture(scope="session")
def start_server(fork_server, tmp_path_factory):
    """Start a server with these flags; a context manager."""

    @contextlib.contextmanager
    def start(*flags: str, **order: Any) -> Iterator[RunningServer]:
        log = tmp_path_factory.mktemp("server") / "log"
        port, rest_port = free_port(), free_port()
        ports = [f"--port={port}", f"--rest_api_port={rest_port}", "--max_num_load_retries=0"]
        number, pid = fork_server.start([*ports, *flags], log, **order)
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    dead = not Path(f"/proc/{pid}").exists()
                    assert not dead and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
            yield RunningServer(pid, number, log, port, rest_port, channel)
        finally:
            channel.close()
            fork_server.order(kill=pid, signal=signal.SIGTERM)
            fork_server.exit_code(number)

    return start


def models_config(path: Path, folders: dict[str, Path]) -> str:
    """The flag for a model config file, written to ``path``, of these models."""
    configs = "".join(
        f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" }} '
        for name, folder in folders.items()
    )
    path.write_text(f"model_config_list {{ {configs}}}")
    return f"--model_config_file={path}"


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """Base folders: half, double, rows, slow, stamped, text, module."""
    from tests.modelserver import savedmodels

    base = tmp_path_factory.mktemp("models")
    savedmodels.linear(base / "half" / "1", 0.5, 2.0)
    savedmodels.linear(base / "half" / "2", 0.5, 3.0)
    savedmodels.linear(base / "double" / "1", 2.0, 0.0)
    savedmodels.rows(base / "rows" / "1")
    savedmodels.slow(base / "slow" / "1", 300)
    savedmodels.stamped(base / "stamped" / "1")
    savedmodels.text(base / "text" / "1")
    savedmodels.keras_like(base / "module" / "1")
    return base
