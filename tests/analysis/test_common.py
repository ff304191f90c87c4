"""On how many configurations a comparison of environments rests, and when it keeps silent."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.cli import main

RESTING = [f"M{i}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14)]


def bench(folder: Path, common: int) -> str:
    """Two environments of 16 configurations, the second of which is valid on so many of them."""
    table = pd.DataFrame(list(product([0, 1], repeat=4)), columns=list("abcd"))
    rng = np.random.default_rng(0)
    table["t_x"] = 10 + table["a"] * 3 + rng.normal(0, 0.1, 16)
    table["t_y"] = np.where(np.arange(16) < common, table["t_x"] * 2, 0.0)
    table.to_csv(folder / "bench.csv", index=False)
    return str(folder / "bench.csv")


@pytest.mark.parametrize(("common", "told"), [(9, False), (10, True)])
def test_transfer_tells_from_ten_common_configurations_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], common: int, told: bool
) -> None:
    table = bench(tmp_path, common)
    pair = ["transfer", "--source", f"{table}:t_x", "--target", f"{table}:t_y", "--invalid", "==0"]
    assert main([*pair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["common"] == common
    assert found["M16"] == (16 - common) / 16
    assert [found[m] is not None for m in RESTING] == [told] * len(RESTING)
    assert main(pair) == 0
    assert ("at least 10 configurations" in capsys.readouterr().out) is not told


@pytest.mark.parametrize(("common", "told"), [(9, False), (10, True)])
def test_a_matrix_of_transfers_keeps_silent_on_the_pairs_that_rest_on_too_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], common: int, told: bool
) -> None:
    table = bench(tmp_path, common)
    every = ["transfer", "--all", f"{table}:t_x", f"{table}:t_y", "--invalid", "==0"]
    assert main([*every, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert found["common"] == [[16, common], [common, common]]
    assert found["M1"][0][0] == pytest.approx(1.0)
    assert (found["M1"][0][1] is not None) is told
    assert main(every) == 0
    assert ("at least 10 configurations" in capsys.readouterr().out) is not told
