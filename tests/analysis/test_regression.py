from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.options import describe_options
from tuner.analysis.plots_regression import learning_curve_figure
from tuner.analysis.regression import (
    MODELS,
    features,
    learning_curve,
    noise_floor,
    sample_sizes,
    trials_needed,
)
from tuner.errors import TableError

TABLE = pd.DataFrame(list(product([0, 1], repeat=6)) * 2, columns=list("abcdef"))
OPTIONS = describe_options(TABLE, list(TABLE.columns))
CLEAN = (20 + TABLE @ [8, 4, 2, 0, 0, 0] + 6 * TABLE["a"] * TABLE["b"]).to_numpy(float)
NOISY = CLEAN * np.random.default_rng(0).normal(1, 0.01, len(TABLE))


@pytest.fixture(scope="module")
def curve() -> pd.DataFrame:
    return learning_curve(TABLE, OPTIONS, NOISY, sizes=[12, 100], repeats=2)


def test_every_model_learns_from_more_trials(curve: pd.DataFrame) -> None:
    assert set(curve["model"]) == set(MODELS)
    for _, part in curve.groupby("model"):
        error = part.sort_values("size")["mape"].to_numpy()
        assert error[-1] < 0.03 and error[-1] < error[0]
        assert part["r2"].iloc[-1] > 0.9


def test_a_model_of_the_right_form_reaches_the_noise() -> None:
    last = learning_curve(
        TABLE, OPTIONS, NOISY, models=["stepwise"], sizes=[100], repeats=2, log=False
    )
    assert last["mape"].item() < 0.012  # noise of 1 %, mean absolute 0.8 %
    assert last["r2"].item() > 0.99


def test_on_the_logarithm_a_few_overloaded_configurations_do_not_drown_the_others() -> None:
    factors = np.exp(TABLE.to_numpy() @ np.log([30, 2, 1.5, 1.2, 1, 1]))
    response = 10 * factors * np.random.default_rng(2).lognormal(0, 0.02, len(TABLE))
    error = {
        log: learning_curve(TABLE, OPTIONS, response, models=["stepwise"], sizes=[40], repeats=3,
                            log=log)["mape"].item()
        for log in (True, False)
    }
    assert error[True] < 0.03 and error[False] > 2 * error[True]


def test_the_noise_floor_is_what_a_perfect_model_errs_by() -> None:
    noise = {"relative": True, "degrees": 8, "deviation": 0.1}
    drawn = np.random.default_rng(0).normal(0, 0.1, 200_000)
    assert noise_floor(noise) == pytest.approx(np.abs(drawn).mean(), rel=0.01)
    assert noise_floor({**noise, "degrees": 4}) is None and noise_floor(None) is None
    assert noise_floor({**noise, "relative": False}) is None


def test_noise_alone_is_not_predicted() -> None:
    noise = np.random.default_rng(1).uniform(1, 3, len(TABLE))
    found = learning_curve(TABLE, OPTIONS, noise, models=["forest"], sizes=[100], repeats=2)
    assert found["r2"].item() < 0.3


def test_trials_needed_is_where_the_error_stays_low() -> None:
    curve = pd.DataFrame(
        {
            "model": ["x"] * 4 + ["y"] * 2,
            "size": [10, 20, 40, 80, 10, 20],
            "mape": [0.09, 0.2, 0.1, 0.05, 0.3, 0.2],
        }
    )
    assert trials_needed(curve) == {"x": 40, "y": None}


def test_sizes_double_up_to_four_fifths() -> None:
    assert sample_sizes(100) == [10, 20, 40, 80]
    assert sample_sizes(30) == [10, 20, 24]


def test_an_inactive_option_gets_a_column_of_its_own() -> None:
    table = pd.DataFrame({"size": [1, 2, None], "on": [1, 1, 0]})
    x, widths = features(table, describe_options(table, ["size", "on"]))
    assert widths == [2, 1]
    assert x.tolist() == [[0, 0, 1], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    "rows,response,says", [(10, NOISY[:10], "at least 20"), (40, NOISY[:40] - 25, "positive")]
)
def test_what_cannot_be_scored_is_refused(rows: int, response: np.ndarray, says: str) -> None:
    with pytest.raises(TableError, match=says):
        learning_curve(TABLE.head(rows), OPTIONS, response)


def test_the_figure_draws_every_model(curve: pd.DataFrame) -> None:
    figure = learning_curve_figure(curve, heading="bench")
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == [name.replace("_", " ") for name in MODELS]
