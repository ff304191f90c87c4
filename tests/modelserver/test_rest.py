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
        "--allow_version_labels_for_unavailable_models=true",
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
    body = '{"inputs": [-NaN, Inf, -Inf, 1e39, -1e39, 123456789012345678901234567890]}'
    response = server.rest("POST", "/v1/models/half:predict", data=body)
    assert response.text == '{"outputs": [NaN, Infinity, -Infinity, Infinity, -Infinity, 6.1728395e+28]}'


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
        ("/v1/models/half:predict", {"instances": [{}]}, 400, "keys must be equal to: x"),
        (
            "/v1/models/half:predict",
            {"instances": [{"x": 1}, {"x": 1, "y": 1}]},
            400,
            ("Failed to process element: 1 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON "
            "object: does not have named input: y"),
        ),
        ("/v1/models/half:predict", {"inputs": {"y": [1]}}, 400, "Missing named input: x"),
        ("/v1/models/half:predict", {"instances": [1], "signature_name": "q"}, 400, "not found in"),
        ("/v1/models/text:predict", {"instances": [{"b64": "*"}]}, 400, "base64"),
        ("/v1/models/half:dream", {}, 400, "Malformed request: POST /v1/models/half:dream"),
        ("/v1/models/half:Predict", {}, 400, "Malformed request: POST /v1/models/half:Predict"),
        ("/v1/models/half:predict/", {}, 400, "Malformed request: POST /v1/models/half:predict/"),
        ("/v1/models/half%3Apredict", {}, 400, "Malformed request: POST /v1/models/half%3Apredict"),
        ("/v1/models/half:predict?x=1", {}, 400, "request: POST /v1/models/half:predict?x=1"),
        ("/v1//models/half:predict", {}, 400, "Malformed request: POST /v1//models/half:predict"),
        ("/v1/models/a%20b:predict", {"instances": [1]}, 404, "Latest(a b)"),
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
    for api, entrypoint in (("Predict", "GRPC"), ("predict", "REST")):
        labels = f'{{model_name="half",API="{api}",entrypoint="{entrypoint}"}}'
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


def test_a_version_of_any_length_is_refused_without_a_word_as_the_real_server_does(server):
    for digits in ("9" * 19, "9" * 5000):
        for method, path in (("POST", ":predict"), ("GET", ""), ("GET", "/metadata")):
            answer = server.rest(method, f"/v1/models/half/versions/{digits}{path}", data="{}")
            assert (answer.status_code, answer.content) == (400, b"")
    padded = f"/v1/models/half/versions/{'0' * 30}1:predict"
    assert _post(server, padded, {"instances": [1.0]})[0] == 200


@pytest.mark.parametrize(
    ("body", "same"),
    [
        (b'{"instances": ["\\udfff"]}', b'"\xed\xbf\xbf"'),
        (b'{"instances": ["\xff\xfe"]}', b'"\xff\xfe"'),
        (b'{"instances": [{"b64": "/w=="}]}', b'"\xff"'),
        (b'{"instances": [{"b64": " A AEC"}]}', rb'"\u0000\u0001\u0002"'),
        ('{"instances": ["é"]}'.encode(), '"é"'.encode()),
    ],
)
def test_bytes_that_are_no_utf_8_travel_as_they_are(server, body, same):
    response = server.rest("POST", "/v1/models/text:predict", data=body)
    assert response.status_code == 200, response.text
    assert same in response.content


def test_half_a_pair_of_surrogates_is_refused(server):
    for body in ('{"signature_name": "\\ud800", "instances": [1]}', '{"instances": ["\\ud800x"]}'):
        response = server.rest("POST", "/v1/models/text:predict", data=body)
        assert response.status_code == 400
        assert "The surrogate pair in string is invalid. at offset: " in response.json()["error"]


def test_of_doubled_keys_the_first_counts(server):
    for body in (
        '{"instances": [1], "instances": [5]}',
        '{"instances": [{"x": 1, "x": 5}]}',
        '{"signature_name": "", "instances": [1.0], "signature_name": "nope"}',
    ):
        response = server.rest("POST", "/v1/models/half:predict", data=body)
        assert response.json() == {"predictions": [3.5]}


@pytest.mark.parametrize("rest", [" x", "\0", "}", " // comment", "[1"])
def test_what_follows_the_document_is_not_looked_at(server, rest):
    body = '{"instances": [1]}' + rest
    response = server.rest("POST", "/v1/models/half:predict", data=body)
    assert response.json() == {"predictions": [3.5]}


def test_a_body_that_is_no_json_is_said_before_an_unknown_model(server):
    response = server.rest("POST", "/v1/models/nope:predict", data="{")
    assert (response.status_code, response.json()) == (
        400,
        {"error": "JSON Parse error: Missing a name for object member. at offset: 1"},
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("POST", "/models/half:predict", 404), ("GET", "/metrics", 404),
        ("PUT", "/v2/models/half", 404), ("GET", "//v1/models/half", 404), ("HEAD", "/", 404),
        ("GET", "/monitoring/prometheus/metrics/", 404), ("TRACE", "/v1/models/half", 501),
        ("FOO", "/v1/models/half", 501),
    ],
)
def test_paths_and_methods_that_nobody_serves_get_a_page(server, method, path, status):
    answer = server.rest(method, path)
    assert answer.status_code == status
    assert (answer.headers["Content-Type"], answer.headers["Connection"]) == ("text/html", "close")
    assert ("Not Found" if status == 404 else "Not Implemented") in answer.text or method == "HEAD"


def test_the_prometheus_page_comes_by_any_method(server):
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = server.rest(method, "/monitoring/prometheus/metrics")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain")
        assert "# TYPE :tensorflow:serving:request_count counter" in answer.text


def test_a_page_of_another_origin_may_ask_what_it_may(server, start_server, models):
    def options(running, **headers):
        answer = running.rest("OPTIONS", "/v1/models/half:predict", headers=headers)
        return answer.status_code, answer.content, answer.headers.get("Access-Control-Allow-Origin")

    assert options(server) == (400, b"", None)
    assert options(server, Origin="http://a") == (200, b"", None)
    flags = (f"--model_base_path={models / 'half'}", "--model_name=half", "--enable_cors_support")
    with start_server(*flags) as running:
        assert options(running, Origin="http://a") == (200, b"", "*")
        body = '{"instances": [1]}'
        answer = running.rest(
            "POST", "/v1/models/half:predict", data=body, headers={"Origin": "http://a"}
        )
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_label_picks_metadata_and_predictions_but_no_status(server):
    states = server.rest("GET", "/v1/models/half/labels/nope").json()["model_version_status"]
    assert [state["version"] for state in states] == ["2", "1"]
    assert server.rest("GET", "/v1/models/half/labels/nope/metadata").status_code == 400
    assert "model_version_status" in server.rest("GET", "/v1/models/half/METADATA").json()


def test_status_and_metadata_count_as_requests(server):
    name = ':tensorflow:serving:request_count{model_name="half",status="OK"}'
    before = int(_metrics(server).get(name, 0))
    server.rest("GET", "/v1/models/half")
    server.rest("GET", "/v1/models/half/metadata")
    assert int(_metrics(server)[name]) - before == 2
