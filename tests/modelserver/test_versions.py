"""Models and versions: loading, warm-up, polling, policies, labels, reload, failures."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
)

from tests.modelserver import savedmodels
from tuner.deploy.readiness import free_port


def _wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _states(server, name="default"):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    response = model_service_pb2_grpc.ModelServiceStub(server.channel).GetModelStatus(request)
    return {v.version: v.State.Name(v.state) for v in response.model_version_status}


def test_a_new_version_is_picked_up_and_the_old_one_ends(start_server, models, tmp_path):
    base = tmp_path / "m"
    shutil.copytree(models / "half" / "1", base / "1")
    with start_server(f"--model_base_path={base}", "--file_system_poll_wait_seconds=1") as server:
        assert server.predict({"x": [0.0]})["y"] == [2.0]
        shutil.copytree(models / "half" / "2", tmp_path / "2")
        (tmp_path / "2").rename(base / "2")
        _wait_for(lambda: server.predict({"x": [0.0]})["y"] == [3.0])
        _wait_for(lambda: _states(server) == {1: "END", 2: "AVAILABLE"})
        with pytest.raises(grpc.RpcError, match="Specific\\(default, 1\\)"):
            server.predict({"x": [0.0]}, version=1)


def test_a_version_that_fails_to_load_leaves_the_old_one_serving(start_server, models, tmp_path):
    base = tmp_path / "m"
    shutil.copytree(models / "half" / "1", base / "1")
    with start_server(f"--model_base_path={base}") as server:
        (base / "3").mkdir()
        (base / "3" / "saved_model.pb").write_bytes(b"damaged")
        _wait_for(lambda: _states(server).get(3) == "END")
        assert _states(server) == {3: "END", 1: "AVAILABLE"}
        assert server.predict({"x": [0.0]})["y"] == [2.0]


def test_the_configuration_is_reloaded_on_request(start_server, models):
    with start_server(f"--model_base_path={models / 'half'}", "--model_name=half") as server:
        stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(
            name="half", base_path=str(models / "half"), model_platform="tensorflow"
        )
        config.model_version_policy.specific.versions.extend([1, 2])
        assert stub.HandleReloadConfigRequest(request).HasField("status")
        config.version_labels["canary"] = 1
        request.config.model_config_list.config.add(
            name="double", base_path=str(models / "double"), model_platform="tensorflow"
        )
        assert stub.HandleReloadConfigRequest(request).status.error_code == 0
        assert server.predict({"x": [1.0]}, name="double")["y"] == [2.0]
        assert server.predict({"x": [0.0]}, name="half", version_label="canary")["y"] == [2.0]
        assert server.predict({"x": [0.0]}, name="half")["y"] == [3.0]
        config.version_labels["canary"] = 9
        with pytest.raises(grpc.RpcError, match="version 9 of model half") as refused:
            stub.HandleReloadConfigRequest(request)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert server.predict({"x": [0.0]}, name="half", version_label="canary")["y"] == [2.0]
        del request.config.model_config_list.config[0]
        assert stub.HandleReloadConfigRequest(request).status.error_code == 0
        with pytest.raises(grpc.RpcError, match="Latest\\(half\\)"):
            server.predict({"x": [0.0]}, name="half")


def test_a_model_that_a_reload_drops_ends_and_its_status_says_so(start_server, models):
    with start_server(f"--model_base_path={models / 'half'}", "--model_name=half") as server:
        with pytest.raises(grpc.RpcError, match="nope"):  # a failure must keep nothing loaded
            server.predict({"nope": [0.0], "x": [0.0]}, name="half")
        assert server.rest("POST", "/v1/models/half:predict", data="{").status_code == 400
        stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(
            name="double", base_path=str(models / "double"), model_platform="tensorflow"
        )
        stub.HandleReloadConfigRequest(request)
        _wait_for(lambda: _states(server, "half") == {2: "END"}, 3.0)
        assert server.rest("GET", "/v1/models/half").status_code == 200


@pytest.mark.parametrize(
    ("name", "base_path", "platform", "message"),
    [
        ("v", "", "tensorflow", r"Expected model v .* got base_path\(\)=$"),
        ("v", "relative/v", "tensorflow", r"got base_path\(\)=relative/v"),
        ("v", "/m", "", "Illegal setting neither ModelServerConfig::model_type"),
        ("v", "/m", "torch", "Model v requests unsupported platform torch"),
        ("half", "/m", "torch", "Illegal to change a model's platform. For model half"),
    ],
)
def test_a_refused_reload_has_its_code_and_changes_nothing(
    start_server, models, name, base_path, platform, message
):
    with start_server(f"--model_base_path={models / 'half'}", "--model_name=half") as server:
        stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(
            name=name, base_path=base_path, model_platform=platform
        )
        with pytest.raises(grpc.RpcError) as refused:
            stub.HandleReloadConfigRequest(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert re.search(message, refused.value.details())
        assert _states(server, "half") == {2: "AVAILABLE"}
        assert server.predict({"x": [0.0]}, name="half")["y"] == [3.0]


def test_versions_that_are_all_removed_from_disk_are_unloaded(start_server, models, tmp_path):
    base = tmp_path / "m"
    shutil.copytree(models / "half" / "1", base / "1")
    with start_server(f"--model_base_path={base}") as server:
        shutil.rmtree(base / "1")
        _wait_for(lambda: _states(server) == {1: "END"})
        with pytest.raises(grpc.RpcError, match=r"Latest\(default\)"):
            server.predict({"x": [0.0]})


def test_a_server_waits_for_a_base_path_that_comes_late(
    fork_server, models, tmp_path
):
    port = free_port()
    flags = [f"--port={port}", f"--model_base_path={tmp_path / 'late'}"]
    number, pid = fork_server.start(flags, tmp_path / "log")
    _wait_for(lambda: "Could not find base path" in (tmp_path / "log").read_text())
    shutil.copytree(models / "half", tmp_path / "late")
    _wait_for(lambda: " Ready: " in (tmp_path / "log").read_text())
    fork_server.order(kill=pid, signal=15)
    assert fork_server.exit_code(number) == 0


def _write_warmup(version, key):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs[key].CopyFrom(tf.make_tensor_proto([1.0]))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )
    folder = version / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def test_warm_up_records_are_replayed_and_a_bad_one_fails_the_load(
    start_server, fork_server, tmp_path
):
    good = savedmodels.linear(tmp_path / "good" / "1", 1.0, 0.0)
    _write_warmup(good, "x")
    monitoring = tmp_path / "monitoring.txt"
    monitoring.write_text("prometheus_config { enable: true }")
    with start_server(
        f"--model_base_path={tmp_path / 'good'}",
        f"--monitoring_config_file={monitoring}",
        "--num_request_iterations_for_warmup=3",
    ) as server:
        text = server.rest("GET", "/monitoring/prometheus/metrics").text
        assert 'runtime_latency_count{model_name="default",API="Predict",runtime="TF1"} 3' in text
    bad = savedmodels.linear(tmp_path / "bad" / "1", 1.0, 0.0)
    _write_warmup(bad, "wrong")
    flags = ["--port=1", f"--model_base_path={tmp_path / 'bad'}", "--max_num_load_retries=0"]
    number, _ = fork_server.start(flags, tmp_path / "log")
    assert fork_server.exit_code(number) == 255
    assert "Warm-up record 1" in (tmp_path / "log").read_text()
    with start_server(f"--model_base_path={tmp_path / 'bad'}", "--enable_model_warmup=false"):
        pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_base_path=nowhere"], "Expected model default to have an absolute path or URI"),
        (["--model_base_path={base}", "--saved_model_tags=gpu"], "matching supplied tags"),
        (["--model_config_file=/nowhere"], "NOT_FOUND: /nowhere; No such file or directory"),
        (["--model_base_path={base}", "--platform_config_file=/nowhere"], "NOT_FOUND: /nowhere"),
        (["--model_base_path={base}", "--tensorflow_intra_op_parallelism=99999"], "expected -2147483647 to 4096"),
        (["--model_base_path={base}", "--port={taken}"], "cannot listen"),
        (["--model_base_path={base}", "--enable_batching=maybe"], "expected true or false"),
    ],
)
def test_a_server_that_cannot_start_says_why_and_exits(
    fork_server, models, tmp_path, flags, message
):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        argv = [flag.format(base=models / "half", taken=port) for flag in flags]
        argv += [] if "--port" in " ".join(flags) else ["--port=1"]
        number, _ = fork_server.start([*argv, "--max_num_load_retries=0"], tmp_path / "log")
        assert fork_server.exit_code(number) == 255
    assert message in (tmp_path / "log").read_text()


def test_the_session_takes_its_config_file_xla_and_bfloat16(start_server, models, tmp_path):
    config = tmp_path / "session.txt"
    config.write_text(
        "graph_options { rewrite_options { auto_mixed_precision_onednn_bfloat16: ON } }"
    )
    fine = 1 + 2**-10  # bfloat16 has 8 bits for it
    coarse = 1.0 if "avx512" in Path("/proc/cpuinfo").read_text() else fine
    for flag, answer in {
        "--xla_cpu_compilation_enabled": fine,
        "--mixed_precision=bfloat16": coarse,
        f"--tensorflow_session_config_file={config}": coarse,
    }.items():
        with start_server(f"--model_base_path={models / 'module'}", flag) as server:
            assert server.predict({"x": [[fine, 0.0]]})["y"].tolist() == [[answer]], flag
