"""The REST API, Prometheus metrics and the response cache, over HTTP against a real process."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pytest

from tests.modelserver.conftest import models_config

CONFIG = """model_config_list {{
  config {{ name: "half" base_path: "{base}/half" model_platform: "tensorflow"
            model_version_policy {{ all {{}} }}
            version_labels {{ key: "stable" value: 1 }} }}
  config {{ name: "text" base_path: "{base}/text" model_platform: "tensorflow" }}
}}"""


@pytest.fixture(scope="module")
def server(start_server, models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rest")
    (folder / "models.txt").write_text(CONFIG.format(base=models))
    (folder / "monitoring.txt").write_text("prometheus_config { enable: true }")
    with start_server(
        f"--model_config_file={folder / 'models.txt'}",
        f"--monitoring_config_file={folder / 'monitoring.txt'}",
        "--response_cache_bytes=100000",
        "--rest_api_num_threads=2",
    ) as running:
        yield running


def _post(server, path, document):
    response = server.rest("POST", path, data=json.dumps(document))
    return response.status_code, response.json()


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ({"instances": [1.0, 5.0]}, {"predictions": [3.5, 5.5]}),
        ({"instances": [{"x": 1}, {"x": 5}]}, {"predictions": [3.5, 5.5]}),
        ({"inputs": [1, 5]}, {"outputs": [3.5, 5.5]}),
        ({"inputs": {"x": [0.2]}}, {"outputs": [3.1]}),
        (
            {"signature_name": "two", "instances": [{"x": 3, "z": 1}]},
            {"predictions": [{"difference": 2.0, "sum": 4.0}]},
        ),
        (
            {"signature_name": "two", "inputs": {"x": [3], "z": [1]}},
            {"outputs": {"difference": [2.0], "sum": [4.0]}},
        ),
    ],
)
def test_predict_by_row_and_by_column(server, document, answer):
    assert _post(server, "/v1/models/half:predict", document) == (200, answer)


def test_versions_and_labels_pick_the_version(server):
    document = {"instances": [0.0]}
    assert _post(server, "/v1/models/half/versions/1:predict", document)[1] == {
        "predictions": [2.0]
    }
    assert _post(server, "/v1/models/half/labels/stable:predict", document)[1] == {
        "predictions": [2.0]
    }
    assert _post(server, "/v1/models/half:predict", document)[1] == {"predictions": [3.0]}


def test_nan_and_infinity_are_numbers_both_ways(server):
    body = '{"instances": [NaN, Infinity, -Infinity]}'
    response = server.rest("POST", "/v1/models/half:predict", data=body)
    assert response.text == '{"predictions": [NaN, Infinity, -Infinity]}'


def test_a_gzipped_body_is_read(server):
    body = gzip.compress(b'{"instances": [0.0]}')
    headers = {"Content-Encoding": "gzip"}
    response = server.rest("POST", "/v1/models/half:predict", data=body, headers=headers)
    assert response.json() == {"predictions": [3.0]}


def test_bytes_travel_as_base64(server):
    raw = b"\xff\x00"
    document = {"instances": [{"b64": base64.b64encode(raw).decode()}, "abc"]}
    status, answer = _post(server, "/v1/models/text:predict", document)
    assert status == 200
    first, second = answer["predictions"]
    assert base64.b64decode(first["same_bytes"]["b64"]) == raw
    assert (first["length"], second["same"], second["length"]) == (2, "abc", 3)


@pytest.mark.parametrize(
    ("path", "document", "status", "message"),
    [
        (
            "/v1/models/m:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Latest(m)",
        ),
        ("/v1/models/half/versions/9:predict", {"instances": [1]}, 404, "Specific(half, 9)"),
        ("/v1/models/half/labels/x:predict", {"instances": [1]}, 400, "label: x"),
        ("/v1/models/half:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("/v1/models/half:predict", {"instances": [1], "inputs": [1]}, 400, "only one of"),
        ("/v1/models/half:predict", {"instances": []}, 400, "No values in 'instances'"),
        ("/v1/models/half:predict", {"instances": ["a"]}, 400, "Type: String is not of expected"),
        ("/v1/models/half:predict", {"instances": [[1, 2], [3]]}, 400, "element: 1"),
        ("/v1/models/half:predict", {"instances": [{"y": 1}]}, 400, "keys must be equal to: x"),
        ("/v1/models/half:predict", {"inputs": {"y": [1]}}, 400, "Missing named input: x"),
        ("/v1/models/half:predict", {"instances": [1e300]}, 400, "without loss of precision"),
        ("/v1/models/half:predict", {"instances": [1], "signature_name": "q"}, 400, "not found in"),
        ("/v1/models/text:predict", {"instances": [{"b64": "*"}]}, 400, "base64"),
        ("/v1/models/half:dream", {}, 400, "Malformed request: POST /v1/models/half:dream"),
    ],
)
def test_a_refused_request_says_what_tensorflow_serving_says(
    server, path, document, status, message
):
    found, answer = _post(server, path, document)
    assert found == status
    assert message in answer["error"]


def test_a_body_that_is_not_json_is_refused(server):
    response = server.rest("POST", "/v1/models/half:predict", data=b"{")
    assert response.status_code == 400
    assert "JSON Parse error" in response.json()["error"]


def test_classify_and_regress(server):
    document = {"signature_name": "classify", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    assert _post(server, "/v1/models/half:classify", document) == (
        200,
        {"results": [[["score", 4.0]], [["score", 5.0]]]},
    )
    document = {"signature_name": "regress", "context": {"x": 2.0}, "examples": [{}, {"x": 0.2}]}
    assert _post(server, "/v1/models/half:regress", document) == (200, {"results": [4.0, 3.1]})


def test_status_and_metadata(server):
    states = server.rest("GET", "/v1/models/half").json()["model_version_status"]
    assert [(s["version"], s["state"], s["status"]["error_code"]) for s in states] == [
        ("2", "AVAILABLE", "OK"),
        ("1", "AVAILABLE", "OK"),
    ]
    document = server.rest("GET", "/v1/models/half/versions/1/metadata").json()
    assert document["model_spec"]["version"] == "1"
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    missing = server.rest("GET", "/v1/models/m")
    assert (missing.status_code, missing.json()["error"]) == (
        404,
        "Could not find any versions of model m",
    )


def _metrics(server):
    response = server.rest("GET", "/monitoring/prometheus/metrics")
    assert response.status_code == 200
    return dict(re.findall(r"^(\S+) (\S+)$", response.text, re.MULTILINE))


def test_metrics_count_requests_under_tensorflow_servings_names(server):
    name = ':tensorflow:serving:request_count{{model_name="half",status="{}"}}'
    before = _metrics(server)
    _post(server, "/v1/models/half:predict", {"instances": [123.0]})
    server.predict({"x": [1.0]}, name="half")
    _post(server, "/v1/models/half:predict", {"instances": ["wrong"]})
    after = _metrics(server)

    def grown(key):
        return int(after[key]) - int(before.get(key, 0))

    assert grown(name.format("OK")) == 2
    assert grown(name.format("INVALID_ARGUMENT")) == 1
    for entrypoint in ("GRPC", "REST"):
        labels = f'{{model_name="half",API="Predict",entrypoint="{entrypoint}"}}'
        assert grown(f":tensorflow:serving:request_latency_count{labels}") == 1
    assert int(
        after[
            ":tensorflow:serving:runtime_latency_count"
            '{model_name="half",API="Predict",runtime="TF1"}'
        ]
    )


def test_a_repeated_request_is_answered_from_the_cache(server):
    hits = ':tensorflow:serving:response_cache:hits{model_name="half"}'
    before = int(_metrics(server).get(hits, 0))
    first = server.predict({"x": [77.0]}, name="half")
    again = server.predict({"x": [77.0]}, name="half")
    other_version = server.predict({"x": [77.0]}, name="half", version=1)
    assert first["y"] == again["y"] == [41.5]
    assert other_version["y"] == [40.5]
    assert int(_metrics(server)[hits]) - before == 1


def test_a_model_of_any_script_is_found_by_its_name(start_server, models, tmp_path):
    names = ("modèle", "画像", "plain")
    flag = models_config(tmp_path / "models.txt", {name: models / "half" for name in names})
    with start_server(flag) as running:
        for name in names:
            found = running.rest("POST", f"/v1/models/{name}:predict", data='{"instances": [1.0]}')
            assert (found.status_code, found.json()) == (200, {"predictions": [3.5]}), name


def test_head_is_answered_without_a_body(server):
    response = server.rest("HEAD", "/v1/models/half")
    assert response.status_code == 400 and response.content == b""
    assert int(response.headers["Content-Length"]) > 0
    assert server.rest("GET", "/v1/models/half").status_code == 200


def test_a_version_of_any_length_is_refused_in_words(server):
    for digits in ("9" * 19, "9" * 5000):
        status, answer = _post(server, f"/v1/models/half/versions/{digits}:predict", {"instances": [1]})
        assert status == 400 and "Failed to convert version" in answer["error"]
    padded = f"/v1/models/half/versions/{'0' * 30}1:predict"
    assert _post(server, padded, {"instances": [1.0]})[0] == 200


def test_text_that_no_bytes_can_carry_is_a_wrong_request(server):
    for body in ('{"signature_name": "\\ud800", "instances": [1]}', '{"instances": ["\\udfff"]}'):
        response = server.rest("POST", "/v1/models/text:predict", data=body)
        assert response.status_code == 400, response.text
