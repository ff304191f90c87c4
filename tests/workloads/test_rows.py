"""The rows of a requests file: every form that a user brings is sent as it was written, or refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner import rows
from tuner.errors import ModelError
from tuner.load import messages, requests
from tuner.load.requests import Input


def save(folder: Path, name: str = "r.npz", **arrays: Any) -> Path:
    np.savez(folder / name, **arrays)
    return folder / name


def sent(path: Path) -> list[list[bytes]]:
    """The strings of the first input of each request of one row."""
    held = rows.read(path)
    bodies = requests.grpc_bodies(held, np.arange(held.count).reshape(-1, 1))
    return [
        list(next(iter(messages.PredictRequest.FromString(body).inputs.values())).string_val)
        for body in bodies
    ]


BYTES = [b"\x08\x01", b"\x08\x02\x00", b"\x00\x00", b"", b"text"]


def test_bytes_in_an_array_of_objects_are_sent_as_they_were_written(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.array(BYTES, dtype=object))
    assert sent(path) == [[value] for value in BYTES]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    held = np.empty(2, dtype=object)
    held[:] = [np.arange(3, dtype=np.float32), np.arange(5, dtype=np.float32)]
    for array, name in ((np.array([*BYTES, "é"], dtype=object), "b"), (held, "x")):
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w") as archive, archive.open(f"{name}.npy", "w") as file:
            header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
            np.lib.format.write_array_header_1_0(file, header)
            pickle.dump(array, file, protocol=protocol)
    assert [row.tolist() for row in rows.read(tmp_path / "x.npz").columns["x"]] == [
        [0, 1, 2], [0, 1, 2, 3, 4]
    ]
    assert sent(tmp_path / "b.npz") == [[value] for value in [*BYTES, "é".encode()]]


@pytest.mark.parametrize(
    "values",
    [
        [b"\x08\x01", b"\x08"],  # of two lengths, or the first ends in a zero: nobody can tell
        [np.array([1.0, 2.0, 0.0], "f4").tobytes()] * 3,
        [b"a\x00b", b"c"],
        [b"\xff\xfe", b"\xff"],
        ["a\x01b", "c"],
    ],
)
def test_bytes_that_numpy_cuts_are_refused_with_what_keeps_them(tmp_path: Path, values: Any) -> None:
    path = save(tmp_path, x=np.array(values))
    with pytest.raises(ModelError, match=r"zero bytes.*np.array\(rows, dtype=object\)"):
        rows.read(path)


@pytest.mark.parametrize(
    "values",
    [["a", "bé", "", "line\nend\t"], [b"a", b"bcd", b""], [b"\x08\x01", b"\x08\x02"], ["é" * 3, "x"]],
)
def test_text_and_bytes_of_one_length_are_sent_as_they_were_written(
    tmp_path: Path, values: list[Any]
) -> None:
    path = save(tmp_path, x=np.array(values))
    assert sent(path) == [[v.encode() if isinstance(v, str) else v] for v in values]


def ragged(*lengths: int, dtype: str = "int64") -> np.ndarray:
    held = np.empty(len(lengths), dtype=object)
    for place, length in enumerate(lengths):
        held[place] = np.arange(length, dtype=dtype)
    return held


def test_rows_of_different_length_are_requests_of_different_length(tmp_path: Path) -> None:
    path = save(tmp_path, ids=ragged(3, 5, 3), mask=ragged(3, 5, 3, dtype="float32"))
    held = rows.read(path)
    assert held.count == 3 and held.alike().tolist() == [0, 1, 0]
    taken = held.take([0, 2])
    assert taken["ids"].shape == (2, 3) and taken["mask"].dtype == np.float32
    assert held.take([1])["ids"].tolist() == [[0, 1, 2, 3, 4]]
    rows.check(path, held, {"ids": Input("int64", (None, None)), "mask": Input("float32", None)}, "s")
    with pytest.raises(ModelError, match=r"ids has rows of shape \[\d\].*takes \[\?, 3\]"):
        rows.check(path, held, {"ids": Input("int64", (None, 3)), "mask": Input("float32", None)}, "s")


def test_lists_of_numbers_are_rows_too(tmp_path: Path) -> None:
    held = np.empty(2, dtype=object)
    held[:] = [[1, 2], [3]]
    found = rows.read(save(tmp_path, x=held))
    assert [row.tolist() for row in found.columns["x"]] == [[1, 2], [3]]
    assert rows.type_name(found.columns["x"]) == "int64"


def test_a_folder_holds_the_rows_of_all_of_its_files(tmp_path: Path) -> None:
    save(tmp_path, "a.npz", x=np.ones((2, 3), np.float32), t=np.float32(0.5))
    save(tmp_path, "b.npz", x=np.ones((1, 5), np.float32), t=np.float32(0.5))
    held = rows.read(tmp_path)
    assert held.count == 3 and held.alike().tolist() == [0, 0, 1]
    assert held.constants["t"] == np.float32(0.5)
    save(tmp_path, "c.npz", x=np.ones((1, 5), np.float32), t=np.float32(0.7))
    with pytest.raises(ModelError, match="single values that are equal"):
        rows.read(tmp_path)
    save(tmp_path, "c.npz", x=np.ones((1, 5)), t=np.float32(0.5))
    with pytest.raises(ModelError, match="several types"):
        rows.read(tmp_path)


def test_a_folder_of_one_shape_is_one_array(tmp_path: Path) -> None:
    save(tmp_path, "a.npz", x=np.ones((2, 3)))
    save(tmp_path, "b.npz", x=np.zeros((1, 3)))
    assert rows.read(tmp_path).columns["x"].shape == (3, 3)


def test_a_single_value_goes_with_every_row(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.ones((4, 2), np.float32), t=np.array(0.7, np.float32))
    held = rows.read(path)
    assert held.count == 4 and held.take([1])["t"].shape == ()
    inputs = {"x": Input("float32", (None, 2)), "t": Input("float32", ())}
    rows.check(path, held, inputs, "s")
    column = save(tmp_path, "c.npz", x=np.ones((4, 2), np.float32), t=np.ones(4, np.float32))
    with pytest.raises(ModelError, match=r"t has shape \[4\].*a single value for a whole request"):
        rows.check(column, rows.read(column), inputs, "s")
    with pytest.raises(ModelError, match=r"t is a single value.*takes \[\?\]"):
        rows.check(path, held, {**inputs, "t": Input("float32", (None,))}, "s")


def test_an_input_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.ones((4, 2), np.float32))
    inputs = {"x": Input("float32", (None, 2)), "t": Input("float32", ())}
    rows.check(path, rows.read(path), inputs, "s", optional=["t"])
    with pytest.raises(ModelError, match=r"\['x'\].*takes \['t', 'x'\]"):
        rows.check(path, rows.read(path), inputs, "s")


def test_a_signature_that_takes_so_many_rows_says_what_to_say(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.ones((8, 3), np.float32))
    inputs = {"x": Input("float32", (4, 3))}
    rows.check(path, rows.read(path), inputs, "s", per_request=4)
    with pytest.raises(ModelError, match="exactly 4 rows of x in a request, not 1: say rows: 4"):
        rows.check(path, rows.read(path), inputs, "s", per_request=1)


@pytest.mark.parametrize("order", "<>")
def test_the_order_of_bytes_is_the_machines_own(tmp_path: Path, order: str) -> None:
    path = save(tmp_path, x=np.array([[1.5, -2]], f"{order}f4"), k=np.array([7], f"{order}i8"))
    held = rows.read(path)
    assert all(column.dtype.isnative for column in held.columns.values())
    rest = next(requests.rest_bodies(held, np.array([[0]]), "s"))
    assert b'"x":[[1.5,-2.0]]' in rest and b'"k":[7]' in rest
    tensor = messages.PredictRequest.FromString(next(requests.grpc_bodies(held, np.array([[0]])))).inputs["x"]
    assert np.frombuffer(tensor.tensor_content, "<f4").tolist() == [1.5, -2.0]


NAMES = ("file", "self", "allow_pickle", "a/b", "x:0", "with space", "über", "args", "kwds")


def test_inputs_of_any_name_are_written_and_read(tmp_path: Path) -> None:
    arrays = {name: np.full((2, 1), n, np.float32) for n, name in enumerate(NAMES)}
    path = tmp_path / "names.npz"
    rows.write(path, arrays)
    held = rows.read(path)
    assert {name: int(column[0, 0]) for name, column in held.columns.items()} == {
        name: n for n, name in enumerate(NAMES)
    }
    with np.load(path) as theirs:
        assert set(theirs.files) == set(NAMES)
    with pytest.raises(ModelError, match=r"np.savez\(file, \*\*\{'a/b': float32\[\?, 1\]\}\)"):
        rows.check(path, held, {"a/b": Input("float32", (None, 1))}, "s")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}, "equally many rows"),
        ({"x": np.zeros((0, 3))}, "no rows"),
        ({"x": np.array([None, 1], dtype=object)}, "rows must be arrays of one type"),
        ({"x": np.zeros(3, dtype="datetime64[s]")}, "cannot be sent"),
        ({"x": np.zeros(3, dtype=[("a", "f4")])}, "cannot be sent"),
        ({"x": np.array([Path("a")], dtype=object)}, "arrays, numbers, text and bytes, not pathlib"),
        ({}, "holds no array"),
    ],
)
def test_a_requests_file_that_cannot_be_sent_says_why(
    tmp_path: Path, arrays: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        rows.read(save(tmp_path, **arrays))


def test_a_missing_or_broken_requests_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none.npz: no such requests file"):
        rows.read(tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK not a zip")
    with pytest.raises(ModelError, match=r"broken.npz: not an .npz file of arrays"):
        rows.read(broken)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ModelError, match="not an .npz"):
        rows.read(tmp_path / "one.npy")


def test_nothing_that_a_file_names_is_called(tmp_path: Path) -> None:
    """A pickle may name any function; ours reads what data is made of."""
    marker = tmp_path / "called"

    class Calls:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(marker),)

    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        held, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    pickle.dump(Calls(), held)
    path = tmp_path / "r.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", held.getvalue())
    with pytest.raises(ModelError, match="not posix.mkdir"):
        rows.read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"image": Input("float32", (None, 3))}, r"\['x'\].*takes \['image'\]"),
        ({"x": Input("int32", (None, 3))}, r"float32, but.*takes int32: write x.astype\('int32'\)"),
        ({"x": Input("string", (None, 3))}, "float32, but.*takes string$"),
        ({"x": Input("float32", (None, 4))}, r"rows of shape \[3\].*takes \[\?, 4\]"),
        ({"x": Input("float32", (None, 3, 3))}, r"rows of shape \[3\].*takes \[\?, 3, 3\]"),
    ],
)
def test_requests_that_do_not_fit_the_signature_say_what_would(
    inputs: dict[str, Input], says: str
) -> None:
    held = rows.Rows({"x": np.zeros((2, 3), np.float32)}, {}, 2)
    with pytest.raises(ModelError, match=says):
        rows.check(Path("r.npz"), held, inputs, "serving_default")


def test_requests_that_fit_pass_also_where_sizes_are_unknown() -> None:
    held = rows.Rows({"x": np.zeros((2, 3), np.float32)}, {}, 2)
    for shape in ((None, None), (None, 3), None):
        rows.check(Path("r.npz"), held, {"x": Input("float32", shape)}, "serving_default")
