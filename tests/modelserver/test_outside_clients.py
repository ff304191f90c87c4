"""Clients that others wrote, each for a moment: the embedded server answers every one of them.

``.ci/run`` installs them; without one its test says that it is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest

NODE_MODULES = Path(
    os.environ.get("TUNER_NODE_MODULES", Path(__file__).resolve().parents[2] / "build/node/node_modules")
)
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture
def message(tmp_path: Path) -> Path:
    """A gRPC message of 5,000 bytes, prefix and all."""
    file = tmp_path / "message"
    file.write_bytes(b"\0" + struct.pack(">I", 5000) + bytes(range(250)) * 20)
    return file


def run(*command: object, **given: object) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, timeout=60, check=False, **given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def headers() -> list[str]:
    return [part for header in GRPC_HEADERS for part in ("-H", header)]


@needs("h2load")
@pytest.mark.parametrize("streams", [1, 20])
def test_h2load_has_every_request_answered(service, message: Path, streams: int) -> None:
    done = run(
        "h2load", "-n", 400, "-c", 4, "-m", streams, "-d", message, *headers(),
        f"http://127.0.0.1:{service.port}/t/Echo",
    )
    assert b"400 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert b"400 2xx" in done.stdout


@needs("h2load")
def test_h2load_with_a_small_table_and_small_windows_is_answered(service, message: Path) -> None:
    """A table below 4,096 bytes wants word of it before the next block (RFC 7541 4.2)."""
    done = run(
        "h2load", "-n", 100, "-c", 2, "-m", 5, "-w", 10, "-W", 12, "--header-table-size=64",
        "--encoder-header-table-size=0", "-d", message, *headers(),
        f"http://127.0.0.1:{service.port}/t/Echo",
    )
    assert b"100 succeeded, 0 failed, 0 errored" in done.stdout


@needs("nghttp")
def test_nghttp_sees_a_call_from_its_headers_to_its_trailers(service, message: Path) -> None:
    done = run(
        "nghttp", "-v", "--no-dep", "-d", message, "-H", ":method: POST", *headers(),
        f"http://127.0.0.1:{service.port}/t/Echo",
    )
    text = re.sub(rb"\x1b\[[\d;]*m", b"", done.stdout)
    assert b":status: 200" in text and b"grpc-status: 0" in text
    assert b"error_code=NO_ERROR" in text or b"GOAWAY" not in text


@needs("curl")
def test_curl_gets_the_message_back(service, message: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    run(
        "curl", "--silent", "--fail", "--http2-prior-knowledge", *headers(), "--data-binary",
        f"@{message}", "--output", answer, f"http://127.0.0.1:{service.port}/t/Echo",
    )
    assert answer.read_bytes() == message.read_bytes()


@needs("wrk")
def test_wrk_has_every_rest_request_answered(start_server, models, tmp_path: Path) -> None:
    script = tmp_path / "post.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.body = \'{"instances": [1.0, 5.0]}\'\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        "function response(status, headers, body)\n"
        '  if status ~= 200 or not body:find("3.5") then print("WRONG " .. status .. body) end\nend\n'
    )
    with start_server(f"--model_base_path={models / 'half'}", "--model_name=half") as server:
        done = run(
            "wrk", "-t", 1, "-c", 4, "-d", "2s", "-s", script,
            f"http://127.0.0.1:{server.rest_port}/v1/models/half:predict",
        )
    assert b"WRONG" not in done.stdout and b"Non-2xx" not in done.stdout
    assert b"Socket errors" not in done.stdout
    assert int(re.search(rb"(\d+) requests in", done.stdout)[1]) > 50


SCRIPT = """
const grpc = require("@grpc/grpc-js");
const raw = {requestSerialize: b => b, requestDeserialize: b => b,
             responseSerialize: b => b, responseDeserialize: b => b,
             requestStream: false, responseStream: false};
const methods = {echo: {path: "/t/Echo", ...raw}, fail: {path: "/t/Fail", ...raw},
                 wait: {path: "/t/Wait", ...raw}};
const Client = grpc.makeGenericClientConstructor(methods, "t");
const client = new Client(process.argv[2], grpc.credentials.createInsecure(),
                          {"grpc.default_compression_algorithm": Number(process.argv[3]),
                           "grpc.keepalive_time_ms": 500});
const call = (name, body, options) => new Promise(done =>
  client[name](body, new grpc.Metadata(), options || {}, (error, answer) =>
    done(error ? {code: error.code, details: error.details} : {bytes: answer.length})));
(async () => {
  const found = {};
  found.echo = await Promise.all(
    [0, 1, 70000, 1000000].map(size => call("echo", Buffer.alloc(size, 7))));
  found.fail = await call("fail", Buffer.from("x"));
  found.deadline = await call("wait", Buffer.from("x"), {deadline: Date.now() + 200});
  found.after = await call("echo", Buffer.from("abc"));
  console.log(JSON.stringify(found));
  client.close();
})();
"""


@needs("node")
@pytest.mark.skipif(not (NODE_MODULES / "@grpc/grpc-js").is_dir(), reason="@grpc/grpc-js is not installed")
@pytest.mark.parametrize("compression", [0, 2], ids=["plain", "gzip"])
def test_grpc_js_calls_fails_and_gives_up(service, tmp_path: Path, compression: int) -> None:
    script = tmp_path / "client.js"
    script.write_text(SCRIPT)
    done = run(
        "node", script, f"127.0.0.1:{service.port}", compression,
        env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
    )
    found = json.loads(done.stdout)
    assert [one.get("bytes") for one in found["echo"]] == [0, 1, 70_000, 1_000_000]
    assert (found["fail"]["code"], found["fail"]["details"]) == (5, "50 % näher\nx")
    assert found["deadline"]["code"] == 4 and found["after"] == {"bytes": 3}


@pytest.mark.parametrize("compression", list(grpc.Compression), ids=lambda c: c.name)
def test_grpcio_with_compression_deadlines_cancels_and_keepalive(service, compression) -> None:
    options = [
        ("grpc.keepalive_time_ms", 100), ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(
        f"127.0.0.1:{service.port}", options=options, compression=compression
    ) as channel:
        echo, wait = channel.unary_unary("/t/Echo"), channel.unary_unary("/t/Wait")
        assert echo(b"a" * 100_000, timeout=20) == b"a" * 100_000
        with pytest.raises(grpc.RpcError) as told:
            wait(b"", timeout=0.2)
        assert told.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        given_up = wait.future(b"", timeout=20)
        threading.Timer(0.1, given_up.cancel).start()
        with pytest.raises((grpc.FutureCancelledError, grpc.RpcError)):
            given_up.result(10)
        time.sleep(0.5)  # pings go on without a call
        assert echo(b"alive", timeout=20) == b"alive"
