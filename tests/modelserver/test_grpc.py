"""The gRPC APIs, by the public stubs of tensorflow-serving-api, against a real process."""

from __future__ import annotations

import shutil
import subprocess

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tuner.modelserver.protos import SSLConfig


@pytest.fixture(scope="module")
def server(start_server, models):
    with start_server(
        f"--model_base_path={models / 'half'}",
        "--enable_grpc_healthcheck_service",
        "--tensorflow_session_parallelism=1",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server):
    return prediction_service_pb2_grpc.PredictionServiceStub(server.channel)


def _status_of(call):
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return failure.value.code(), failure.value.details()


def _examples(*values):
    given = input_pb2.Input()
    for value in values:
        example = given.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    return given


def test_predict_answers_from_the_latest_version(server):
    assert server.predict({"x": [2.0, 4.0]})["y"].tolist() == [4.0, 5.0]


def test_predict_answers_with_the_model_spec_that_ran(stub):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    response = stub.Predict(request)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("default", 2, "serving_default")
    assert list(response.outputs["y"].float_val) == [3.5]


def test_predict_reads_typed_fields_and_tensor_content_alike(stub):
    values = [1.0, 2.0]
    content = tf.make_tensor_proto(np.array(values, np.float32))
    assert content.tensor_content
    typed = tf.make_tensor_proto(values)
    typed.ClearField("tensor_content")
    typed.float_val.extend(values)
    answers = []
    for tensor in (content, typed):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        request.inputs["x"].CopyFrom(tensor)
        answers.append(list(stub.Predict(request).outputs["y"].float_val))
    assert answers == [[3.5, 4.0]] * 2


def test_an_output_filter_picks_and_orders_outputs(server):
    inputs = {"x": [5.0], "z": [3.0]}
    found = server.predict(inputs, signature_name="two", output_filter=["difference"])
    assert {key: value.tolist() for key, value in found.items()} == {"difference": [2.0]}
    assert set(server.predict(inputs, signature_name="two")) == {"sum", "difference"}


@pytest.mark.parametrize(
    ("inputs", "spec", "code", "message"),
    [
        ({"x": [1.0]}, {"name": "m"}, "NOT_FOUND", "Servable not found for request: Latest(m)"),
        (
            {"x": [1.0]},
            {"version": 7},
            "NOT_FOUND",
            "Servable not found for request: Specific(default, 7)",
        ),
        (
            {"x": [1.0]},
            {"signature_name": "no"},
            "FAILED_PRECONDITION",
            'Serving signature key "no" not found.',
        ),
        ({"q": [1.0]}, {}, "INVALID_ARGUMENT", "Signature input alias: x("),
        ({"x": [[1.0]], "q": [1.0]}, {}, "INVALID_ARGUMENT", "2!=1"),
        ({"x": [1.0]}, {"output_filter": ["n"]}, "INVALID_ARGUMENT", "alias not found"),
        ({"x": np.array([1.0])}, {}, "INVALID_ARGUMENT", "float"),
        ({"x": [1.0]}, {"version_label": "canary"}, "INVALID_ARGUMENT", "canary"),
    ],
)
def test_a_refused_predict_says_what_tensorflow_serving_says(server, inputs, spec, code, message):
    found, details = _status_of(lambda: server.predict(inputs, **spec))
    assert found.name == code
    assert message in details


def test_damaged_tensor_content_is_refused(stub):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([1.0, 2.0], np.float32)))
    request.inputs["x"].tensor_content = b"123"
    code, details = _status_of(lambda: stub.Predict(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "tensor parsing error" in details


def test_classify_gives_labels_and_scores(stub):
    request = classification_pb2.ClassificationRequest(input=_examples(2.0, 4.0))
    request.model_spec.name, request.model_spec.signature_name = "default", "classify"
    rows = stub.Classify(request).result.classifications
    assert [[(c.label, c.score) for c in row.classes] for row in rows] == [
        [("score", 4.0)],
        [("score", 5.0)],
    ]


def test_regress_gives_a_value_for_each_example_and_merges_the_context(stub):
    request = regression_pb2.RegressionRequest(input=_examples(2.0, 4.0))
    request.model_spec.name, request.model_spec.signature_name = "default", "regress"
    assert [r.value for r in stub.Regress(request).result.regressions] == [4.0, 5.0]
    with_context = input_pb2.Input()
    context = with_context.example_list_with_context.context
    context.features.feature["x"].float_list.value.append(6.0)
    with_context.example_list_with_context.examples.add()
    request.input.CopyFrom(with_context)
    assert [r.value for r in stub.Regress(request).result.regressions] == [6.0]


def test_classify_refuses_a_signature_without_classes_and_scores(stub):
    request = classification_pb2.ClassificationRequest(input=_examples(1.0))
    request.model_spec.name, request.model_spec.signature_name = "default", "regress"
    code, details = _status_of(lambda: stub.Classify(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert 'at least one of "classes" or "scores". Signature was: inputs {' in details


def test_multi_inference_answers_each_task(stub):
    request = inference_pb2.MultiInferenceRequest(input=_examples(2.0))
    for name in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
        task.model_spec.name, task.model_spec.signature_name = "default", name
    first, second = stub.MultiInference(request).results
    assert first.classification_result.classifications[0].classes[0].score == 4.0
    assert second.regression_result.regressions[0].value == 4.0


def test_metadata_holds_the_signatures(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "default"
    response = stub.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {"serving_default", "two", "classify", "regress"}
    assert response.model_spec.version.value == 2


def test_status_tells_the_version_that_is_available(server):
    stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "default"
    (status,) = stub.GetModelStatus(request).model_version_status
    assert (status.version, status.State.Name(status.state)) == (2, "AVAILABLE")
    request.model_spec.name = "m"
    code, details = _status_of(lambda: stub.GetModelStatus(request))
    assert (code.name, details) == ("NOT_FOUND", "Could not find any versions of model m")


def test_the_health_service_says_serving(server):
    check = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"") == b"\x08\x01"
    code, _ = _status_of(lambda: check(b"\x0a\x01x"))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", 1),
        ("ModelService", 1),
        ("PredictionService", 1),
        ("tensorflow.serving.PredictionService", 3),
    ],
)
def test_health_is_watched_on_a_stream_that_stays_open(server, name, status):
    asked = bytes([0x0A, len(name)]) + name.encode()
    check = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert (check(asked) == b"\x08\x01") if status == 1 else _status_of(lambda: check(asked))
    stream = server.channel.unary_stream("/grpc.health.v1.Health/Watch")(asked, timeout=0.5)
    assert next(stream) == bytes([8, status])
    code, _ = _status_of(lambda: next(stream))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_more_streams_are_watched_than_there_are_threads(server):
    watch = server.channel.unary_stream("/grpc.health.v1.Health/Watch")
    streams = []
    for _ in range(100):
        streams.append(watch(b"", timeout=30))
        assert next(streams[-1]) == b"\x08\x01"
    assert server.predict({"x": [2.0]})["y"].size == 1
    for stream in streams:
        stream.cancel()


class Words(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def split(self, text):
        return {"words": tf.strings.split(text), "length": tf.strings.length(text)}


@pytest.mark.parametrize("batching", [False, True])
def test_a_ragged_output_is_refused_and_the_others_can_be_asked_for(
    start_server, tmp_path, batching
):
    module = Words()
    tf.saved_model.save(module, str(tmp_path / "m" / "1"), signatures=module.split)
    flag = f"--enable_batching={str(batching).lower()}"
    with start_server(f"--model_base_path={tmp_path / 'm'}", flag) as server:
        text = {"text": np.array(["a b", "c"], object)}
        code, details = _status_of(lambda: server.predict(text))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("Tensor :0, specified in either feed_devices or fetch_devices")
        found = server.predict(text, output_filter=["length"])
        assert found["length"].tolist() == [3, 1]
        answer = server.rest("POST", "/v1/models/default:predict", json={"instances": ["a b"]})
        assert (answer.status_code, "Tensor :0" in answer.text) == (400, True)


def test_an_unknown_method_is_unimplemented(server):
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Dream")
    code, _ = _status_of(lambda: call(b""))
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_a_tensorflow_2_module_is_served_in_tensor_content_over_a_unix_socket(
    start_server, models, tmp_path
):
    socket = tmp_path / "s"
    with start_server(
        f"--model_base_path={models / 'module'}",
        f"--grpc_socket_path={socket}",
        "--enable_serialization_as_tensor_content",
    ):
        channel = grpc.insecure_channel(f"unix:{socket}")
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
        assert response.outputs["y"].tensor_content
        assert tf.make_ndarray(response.outputs["y"]).tolist() == [[21.0]]
        channel.close()


def test_channel_arguments_take_effect_or_are_reported_as_ignored(start_server, models):
    arguments = "grpc.max_receive_message_length=200,grpc.max_concurrent_streams=3,grpc.a.b=c"
    with start_server(
        f"--model_base_path={models / 'half'}", f"--grpc_channel_arguments={arguments}"
    ) as server:
        assert server.predict({"x": [1.0]})["y"].tolist() == [3.5]
        with pytest.raises(grpc.RpcError) as failure:
            server.predict({"x": [1.0] * 100})
        log = server.log.read_text()
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Channel argument grpc.a.b has no meaning for this server and is ignored" in log
    assert log.count("Channel argument") == 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_an_encrypted_server_answers_clients_that_trust_it(start_server, models, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + [
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ]
        + ["-keyout", str(key), "-out", str(certificate)],
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    config = SSLConfig(server_key=key.read_text(), server_cert=certificate.read_text())
    (tmp_path / "ssl.txt").write_text(text_format.MessageToString(config))
    flags = [f"--model_base_path={models / 'half'}", f"--ssl_config_file={tmp_path / 'ssl.txt'}"]
    with start_server(*flags) as server:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{server.port}", trusted) as channel:
            server.channel, plain = channel, server.channel
            assert server.predict({"x": [1.0]})["y"].tolist() == [3.5]
            server.channel = plain
        with pytest.raises(grpc.RpcError):
            server.predict({"x": [1.0]})


def test_the_log_says_where_the_server_answers_in_one_line(server):
    (ready,) = [line for line in server.log.read_text().splitlines() if " Ready: " in line]
    assert ready.endswith(
        f"gRPC at 127.0.0.1:{server.port}, REST at http://127.0.0.1:{server.rest_port}/v1/models/"
    )
