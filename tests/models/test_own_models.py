"""SavedModels of the user's own: read, laid out for serving, or refused with what is wrong."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner import models
from tuner.errors import ModelError
from tuner.models import TensorSpec
from tuner.models.savedmodel import read_signature
from tuner.models.store import served_name


def test_a_savedmodel_folder_is_served_as_version_one(own_models: Path, cache: Path) -> None:
    record = models.resolve(own_models / "plain", cache=cache)
    served, given = record.path / "1" / "saved_model.pb", own_models / "plain" / "saved_model.pb"
    assert served.samefile(given), "linked, not copied"
    assert not (record.path / "1").is_symlink(), "a container would not see where it leads"
    assert (record.name, record.version, record.workload) == ("plain", 1, None)
    assert record.inputs == {
        "n": TensorSpec("int32", (None, 1)),
        "x": TensorSpec("float32", (None, 3)),
    }
    assert list(record.outputs) == ["total"]
    assert (record.parameters, record.input_bytes, record.any_batch) == (3, 16, True)
    assert record.flops_per_inference is not None and record.flops_per_inference >= 6


def test_of_numbered_versions_the_highest_counts(
    own_models: Path, cache: Path, monkeypatch
) -> None:
    counts = '{"parameters": 3, "flops_per_inference": 6}'
    loaded = []
    monkeypatch.setattr(
        "tuner.models.store.run_program", lambda *program: loaded.append(program) or counts
    )
    record = models.resolve(str(own_models / "numbered"), cache=cache)
    assert (record.path, record.version) == (own_models / "numbered", 12)
    assert loaded == [("tuner.models.cost", str(own_models / "numbered" / "12"), "serving_default")]


def test_a_known_folder_is_not_loaded_again(own_models: Path, cache: Path, monkeypatch) -> None:
    record = models.resolve(own_models / "plain", cache=cache)
    monkeypatch.setattr("tuner.models.store.run_program", None)
    assert models.resolve(own_models / "plain", cache=cache) == record


def test_neither_name_nor_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="no/where: neither a SavedModel folder nor a model's name"
    ):
        models.resolve("no/where", cache=tmp_path)
    with pytest.raises(ModelError, match="no model named 'nowhere'.* own is given by its folder"):
        models.resolve("nowhere", cache=tmp_path)


def test_a_folder_without_a_model_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither saved_model.pb nor folders named by version"):
        models.resolve(tmp_path, cache=tmp_path / "cache")


def test_a_keras_file_is_answered_with_the_way_to_export_it(tmp_path: Path) -> None:
    (tmp_path / "net.keras").touch()
    with pytest.raises(ModelError, match=r"a file, not a SavedModel.*\.export\(folder\)"):
        models.resolve(tmp_path / "net.keras", cache=tmp_path / "cache")


def test_a_file_cut_short_is_called_damaged(own_models: Path, tmp_path: Path) -> None:
    shutil.copytree(own_models / "plain", tmp_path / "cut")
    file = tmp_path / "cut" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ModelError, match="saved_model.pb: not a SavedModel.*cut short"):
        models.resolve(tmp_path / "cut", cache=tmp_path / "cache")


def test_an_empty_file_has_no_graph_to_serve(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match="no graph whose only tag is 'serve'"):
        models.resolve(tmp_path, cache=tmp_path / "cache")


def test_without_serving_default_the_signatures_there_are_named(
    own_models: Path, cache: Path
) -> None:
    with pytest.raises(
        ModelError, match=r"no signature 'serving_default'.*it has score\); say --signature score"
    ):
        models.resolve(own_models / "unsigned", cache=cache)


def test_a_signature_may_be_named(own_models: Path, cache: Path) -> None:
    record = models.resolve(own_models / "unsigned", signature="score", cache=cache)
    assert (record.signature, list(record.inputs)) == ("score", ["n", "x"])
    # Whoever serves it all takes what there is.
    assert models.resolve(own_models / "unsigned", signature=None, cache=cache) == record
    assert read_signature(own_models / "plain", None).name == "serving_default"
    # Each signature has a record of its own.
    assert models.resolve(own_models / "unsigned", signature="score", cache=cache) == record
    with pytest.raises(ModelError, match="has the signature 'serving_default' alone"):
        models.resolve("cnn1d", signature="score", cache=cache)


def written(folder: Path, change: Callable[[Any], None], *, text: bool = False) -> Path:
    """A copy of a SavedModel with its message changed, in binary or as text."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(message)
    copy = folder.parent / f"{folder.name}-{'text' if text else 'binary'}"
    copy.mkdir(exist_ok=True)
    if text:
        (copy / "saved_model.pbtxt").write_text(text_format.MessageToString(message))
    else:
        (copy / "saved_model.pb").write_bytes(message.SerializeToString())
    return copy


def test_a_savedmodel_as_text_is_read_as_the_binary_one_is(own_models: Path) -> None:
    copy = written(own_models / "plain", lambda message: None, text=True)
    assert read_signature(copy) == read_signature(own_models / "plain")


def test_the_graph_whose_only_tag_is_serve_is_read(own_models: Path) -> None:
    def two(message: Any) -> None:
        other = message.meta_graphs.add()
        other.CopyFrom(message.meta_graphs[0])
        del other.signature_def["serving_default"].inputs["n"]
        message.meta_graphs[0].meta_info_def.tags.append("gpu")

    assert list(read_signature(written(own_models / "plain", two)).inputs) == ["x"]

    def neither(message: Any) -> None:
        message.meta_graphs[0].meta_info_def.tags.append("gpu")

    with pytest.raises(ModelError, match=r"whose only tag is 'serve' \(it has graphs tagged gpu,serve\)"):
        read_signature(written(own_models / "plain", neither))


def test_defaults_of_inputs_and_answers_of_unusual_types_are_read(own_models: Path) -> None:
    def change(message: Any) -> None:
        signature = message.meta_graphs[0].signature_def["serving_default"]
        signature.defaults["n"].dtype = 3
        signature.outputs["total"].dtype = 8

    found = read_signature(written(own_models / "plain", change))
    assert found.optional == ("n",) and found.outputs["total"].dtype == "other"


def _without_name(tensor: Any, sparse: bool) -> None:
    """As a ragged tensor is described, or a sparse one, which has a type all the same."""
    tensor.ClearField("name")
    if sparse:
        tensor.coo_sparse.values_tensor_name = "values:0"
    else:
        tensor.dtype = 0
        tensor.composite_tensor.SetInParent()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("side", "key"), [("inputs", "n"), ("outputs", "total")])
def test_a_signature_with_a_tensor_of_several_components_is_refused_before_the_first_trial(
    own_models: Path, cache: Path, side: str, key: str, sparse: bool
) -> None:
    def change(message: Any) -> None:
        signature = message.meta_graphs[0].signature_def["serving_default"]
        message.meta_graphs[0].signature_def["plain"].CopyFrom(signature)
        _without_name(getattr(signature, side)[key], sparse)

    folder = written(own_models / "plain", change)
    told = rf"'serving_default' cannot be served: '{key}' has several components.*--signature plain"
    with pytest.raises(ModelError, match=told):
        read_signature(folder)
    assert read_signature(folder, None).name == "plain"


def test_a_model_of_nothing_but_tensors_of_several_components_cannot_be_served(
    own_models: Path,
) -> None:
    def change(message: Any) -> None:
        for signature in message.meta_graphs[0].signature_def.values():
            for tensor in signature.outputs.values():
                _without_name(tensor, sparse=False)

    with pytest.raises(ModelError, match="export a signature of the components$"):
        read_signature(written(own_models / "plain", change), None)


def test_what_tensorflow_cannot_load_is_refused_before_a_study(
    own_models: Path, cache: Path
) -> None:
    with pytest.raises(ModelError, match="unloadable: TensorFlow cannot load it: .+"):
        models.resolve(own_models / "unloadable", cache=cache)


def test_a_record_survives_json(own_models: Path, cache: Path) -> None:
    record = models.resolve(own_models / "plain", cache=cache)
    assert models.ModelRecord.from_json(record.to_json()) == record


ODD = ("modèle", "画像", "a b", "a:b", "100%", "it's \"quoted\"", "line\nend", "$(touch x)", "модель#1", "a\\b", "x" * 200)


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_is_served_by_a_plain_one_from_a_plain_path(
    own_models: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tuner.models.store.run_program", lambda *_: '{"parameters": 3, "flops_per_inference": 6}'
    )
    for given in (own_models / "plain", own_models / "numbered"):
        folder = tmp_path / given.name / name
        shutil.copytree(given, folder)
        record = models.resolve(folder, cache=tmp_path / "cache")
        assert _PLAIN.fullmatch(record.name) and len(record.name) < 100
        assert _PLAIN.fullmatch(str(record.path).replace("/", "_"))
        version = record.path / str(record.version)
        assert record.version == (12 if given.name == "numbered" else 1)
        assert (version / "saved_model.pb").samefile(
            folder / ("12/saved_model.pb" if given.name == "numbered" else "saved_model.pb")
        )


_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def test_two_names_that_look_alike_stay_apart_and_a_plain_one_stays_as_it_is() -> None:
    assert served_name("a b") != served_name("a:b")
    for name in ("half_plus_two", "resnet-50.v1", "1"):
        assert served_name(name) == name
    assert served_name("..").startswith("model-")


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    with pytest.raises(ModelError, match="the path is not UTF-8"):
        models.resolve(folder, cache=tmp_path / "cache")
