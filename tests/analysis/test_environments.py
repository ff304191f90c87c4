from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.energy import check_energy
from tuner.analysis.environments import compare
from tuner.analysis.loader import Loader, parse_predicate
from tuner.analysis.options import describe_options, design
from tuner.errors import StudyError, TableError, UsageError


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "bench.csv"
    path.write_text("a,b,mode,t_x,t_y,flag\n0,1,p,1.5,0,1\n1,0,q,2.5,3,0\n1,1,p,,4,1\n")
    return path


@pytest.mark.parametrize(
    "text,expected",
    [("==0", [1, 0, 0]), ("!=0", [0, 1, 1]), ("<1", [1, 0, 0]), ("<=1", [1, 1, 0]),
     (">1", [0, 0, 1]), (" >= 1e0 ", [0, 1, 1])],
)
def test_conditions_mark_responses(text: str, expected: list[int]) -> None:
    assert parse_predicate(text)(np.array([0.0, 1.0, 2.0])).astype(int).tolist() == expected


@pytest.mark.parametrize("text", ["0", "=0", "== zero", "=<3", "", "==0; ==1"])
def test_a_malformed_condition_says_what_would_be_right(text: str) -> None:
    with pytest.raises(UsageError, match="'==0'"):
        parse_predicate(text)


def test_a_csv_takes_its_boolean_columns_as_options_but_no_response(csv: Path) -> None:
    (one,) = Loader().load([f"{csv}:t_x"])
    assert one.options == ("a", "b", "flag")
    (flag,) = Loader().load([f"{csv}:flag"])
    assert flag.options == ("a", "b")
    assert one.label == "bench:t_x" and one.valid is None
    assert one.usable.tolist() == [True, True, False]


def test_a_pattern_stands_for_every_column_it_matches(csv: Path) -> None:
    assert [e.response for e in Loader().load([f"{csv}:t_*"])] == ["t_x", "t_y"]


def test_named_options_rule_and_may_be_categorical(csv: Path) -> None:
    (one,) = Loader(options=["mode"]).load([f"{csv}:t_x"])
    (mode,) = describe_options(one.table, one.options)
    assert (mode.kind, mode.levels) == ("categorical", ("p", "q"))


def test_an_invalid_condition_and_a_valid_column_both_count(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,t,valid\n0,0,True\n1,5,True\n1,6,False\n")
    (one,) = Loader(invalid=parse_predicate("==0")).load([f"{path}:t"])
    assert one.options == ("a",)
    assert one.valid is not None and one.valid.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "reference,says",
    [("missing.csv:t", "no such file"), ("{csv}", "name the response"),
     ("{csv}:nope", "'nope'.*t_x"), ("{csv}:mode", "numbers only")],
)
def test_what_is_wrong_with_a_csv_is_named(csv: Path, reference: str, says: str) -> None:
    with pytest.raises(TableError, match=says):
        Loader(options=["a"]).load([reference.format(csv=csv)])


def test_options_that_are_missing_or_the_response_are_named(csv: Path) -> None:
    with pytest.raises(TableError, match="'z'"):
        Loader(options=["z"]).load([f"{csv}:t_x"])
    with pytest.raises(TableError, match="cannot be an option"):
        Loader(options=["t_x"]).load([f"{csv}:t_x"])


def test_two_files_are_joined_on_their_configurations_and_repetitions_averaged(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.csv").write_text("size,t,valid\n4,2,1\n8,3,1\n8,5,1\n16,9,1\n1,1,1\n")
    (tmp_path / "two.csv").write_text("size,t,valid\n16,1,0\n4,7,1\n8,6,1\n8,100,0\n")
    loader = Loader(options=["size"])
    found = compare(*loader.load([f"{tmp_path}/one.csv:t", f"{tmp_path}/two.csv:t"]))
    rows = dict(zip(found.table["size"], zip(found.source, found.target)))
    assert rows.keys() == {4, 8, 16}
    assert rows[4] == (2, 7) and rows[8] == (4, 6)
    assert found.target_valid is not None
    assert not dict(zip(found.table["size"], found.target_valid))[16]


def test_tables_without_a_common_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("size,t\n4,2\n")
    (tmp_path / "two.csv").write_text("size,t\n8,2\n")
    loader = Loader(options=["size"])
    with pytest.raises(TableError, match="no configuration in common"):
        compare(*loader.load([f"{tmp_path}/one.csv:t", f"{tmp_path}/two.csv:t"]))


def study(name: str, source: str | list[str]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "number": [0, 1, 2],
            "batching": [True, True, False],
            "size": [2.0, 8.0, None],
            "latency_p99_ms": [5.0, 4.0, None],
            "energy_per_request_j": [1.0, 2.0, None],
            "valid": [True, True, False],
        }
    )
    table.attrs.update(
        name=name,
        parameters=["batching", "size"],
        objectives=["latency_p99_ms", "energy_per_request_j"],
        energy_source=source,
    )
    return table


def fake_studies(reference: str, storage: str | None = None) -> pd.DataFrame:
    held = {"one": study("one", "rapl"), "two": study("two", "cpu_time")}
    held["both"] = study("both", ["cpu_time", "rapl"])
    if reference not in held:
        raise StudyError(f"no study {reference!r}")
    return held[reference]


def test_a_study_brings_its_parameters_and_its_first_objective() -> None:
    (one,) = Loader(read_study=fake_studies).load(["one"])
    assert one.options == ("batching", "size")
    assert one.response == "latency_p99_ms"
    assert one.valid is not None and one.valid.tolist() == [True, True, False]


def test_a_study_may_name_its_metric() -> None:
    loader = Loader(read_study=fake_studies)
    assert loader.load(["one:energy_per_request_j"])[0].response == "energy_per_request_j"
    with pytest.raises(StudyError, match="no study"):
        loader.load(["one:nonsense"])
    with pytest.raises(StudyError, match="no study"):
        loader.load(["three"])


def test_energies_of_two_sources_are_never_compared() -> None:
    loader = Loader(read_study=fake_studies, response="energy_per_request_j")
    one, two = loader.load(["one", "two"])
    with pytest.raises(StudyError, match="one.* and two.*different ways: source rapl and cpu_time"):
        compare(one, two)
    with pytest.raises(StudyError, match="'both'.*source cpu_time and rapl"):
        loader.load(["both"])
    check_energy([one, one])


def test_latencies_of_studies_with_other_energy_sources_are_comparable() -> None:
    one, two = Loader(read_study=fake_studies).load(["one", "two"])
    assert len(compare(one, two).table) == 3


def test_design_scales_ordered_options_and_leaves_inactive_ones_out() -> None:
    table = pd.DataFrame({"size": [2, 8, None, 32], "mode": ["p", "q", "p", None]})
    size, mode = design(table, describe_options(table, ["size", "mode"]))
    assert size[:, 0].tolist() == [0, 0.2, 0, 1]
    assert mode[:, 0].tolist() == [0, 1, 0, 0]


def test_the_default_of_a_categorical_option_comes_first() -> None:
    table = pd.DataFrame({"mode": ["q", "q", "p", "r"]})
    assert describe_options(table, ["mode"])[0].levels == ("q", "p", "r")
    assert describe_options(table, ["mode"], defaults={"mode": "r"})[0].levels == ("r", "p", "q")
