from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.analysis.fronts import front_hypervolume, mark_front, worst_point
from tuner.analysis.pareto import (
    _staircases,
    hypervolume,
    knee,
    membership_probability,
    non_dominated,
)
from tuner.analysis.plots import pareto_figure
from tuner.errors import TableError


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b)) and any(x < y for x, y in zip(a, b))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(st.tuples(*[st.integers(0, 4)] * k), min_size=1, max_size=40)
    )
)
def test_non_dominated_agrees_with_the_definition(points: list[tuple[int, ...]]) -> None:
    expected = [not any(dominates(q, p) for q in points) for p in points]
    assert non_dominated(points).tolist() == expected


@pytest.mark.parametrize("objectives", [3, 4])
def test_many_blocks_agree_with_an_independent_library(objectives: int) -> None:
    import moocore

    points = np.random.default_rng(1).standard_normal((3000, objectives))
    points = 1 - np.abs(points) / np.linalg.norm(points, axis=1, keepdims=True)
    points[::2] += 0.05
    expected = moocore.is_nondominated(points, keep_weakly=True)
    assert 500 < expected.sum() < 3000
    assert (non_dominated(points) == expected).all()


def test_equal_points_stand_on_the_front_together() -> None:
    assert non_dominated([[1, 2], [1, 2], [2, 2]]).tolist() == [True, True, False]


def test_a_point_without_a_measurement_is_never_a_member_and_dominates_nothing() -> None:
    assert non_dominated([[np.nan, 0], [1, 1]]).tolist() == [False, True]


def test_ten_thousand_points_take_less_than_two_seconds() -> None:
    points = np.random.default_rng(0).standard_normal((10_000, 3))
    points = 1 - np.abs(points) / np.linalg.norm(points, axis=1, keepdims=True)  # all on the front
    start = time.perf_counter()
    assert non_dominated(points).all()
    assert time.perf_counter() - start < 2


def test_hypervolume_of_two_steps_is_counted_by_hand() -> None:
    assert hypervolume([[1, 3], [2, 1], [3, 3]], [4, 4]) == 3 * 1 + 2 * 2
    assert hypervolume([[1.0], [2.0]], [4.0]) == 3


def test_hypervolume_ignores_points_beyond_the_reference_and_is_zero_without_any() -> None:
    assert hypervolume([[1, 5], [2, 1]], [4, 4]) == 6
    assert hypervolume([[4, 1], [1, 4]], [4, 4]) == 0


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_agrees_with_counting_random_points(objectives: int) -> None:
    random = np.random.default_rng(3)
    front = random.random((12, objectives))
    samples = random.random((200_000, objectives))
    covered = np.zeros(len(samples), dtype=bool)
    for point in front:
        covered |= (point <= samples).all(axis=1)
    assert hypervolume(front, np.ones(objectives)) == pytest.approx(covered.mean(), abs=0.005)


def test_knee_is_the_bend_of_the_front_whatever_the_units() -> None:
    front = np.array([[0, 10], [1, 2], [5, 1.5], [10, 0], [9, 9]])
    assert knee(front) == 1
    assert knee(front * [1000, 0.001]) == 1


def test_knee_of_nothing_is_none_and_of_two_members_the_better_first_objective() -> None:
    assert knee([[np.nan, 1.0]]) is None
    assert knee([[2, 1], [1, 2]]) == 1


def test_membership_probability_of_exact_values_is_membership() -> None:
    values = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    missing = np.full_like(values, np.nan)
    assert membership_probability(values, missing, missing, draws=10).tolist() == [1, 1, 0]


def test_membership_probability_of_two_noisy_rivals_matches_the_normal_distribution() -> None:
    from scipy.stats import norm

    values = np.array([[1.0, 1.0], [1.1, 1.0]])
    half = 1.959964 * np.array([[0.1, 0.0], [0.1, 0.0]])
    expected = norm.cdf(0.1 / np.hypot(0.1, 0.1))
    chance = membership_probability(values, values - half, values + half, draws=20_000)
    assert chance == pytest.approx([expected, 1 - expected], abs=0.012)


def test_membership_probability_follows_each_side_of_a_skewed_interval() -> None:
    values = np.array([[1.0, 1.0], [1.5, 1.0]])
    low, high = np.array([[1.0, 1], [1.5, 1]]), np.array([[1.5, 1], [1.5, 1]])
    # Only the first point's error counts, and it reaches 1.5 in 2.5 % of draws.
    chance = membership_probability(values, low, high, draws=20_000)
    assert chance == pytest.approx([0.975, 0.025], abs=0.005)


@pytest.fixture
def trials() -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "latency_p99_ms": [10.0, 20.0, 5.0, 30.0, np.nan, 12.0],
            "latency_p99_low_ms": [9.0, 18.0, 4.0, 25.0, np.nan, 9.5],
            "latency_p99_high_ms": [12.0, 23.0, 6.0, 40.0, np.nan, 14.0],
            "energy_per_request_j": [1.0, 0.5, 0.4, 0.45, np.nan, 1.0],
            "throughput_rps": [50.0, 90.0, 10.0, 99.0, np.nan, 50.0],
            "valid": [True, True, False, True, False, True],
        }
    )
    table.attrs["name"] = "batching"
    return table


def test_invalid_trials_stay_off_the_front_however_good_they_look(trials: pd.DataFrame) -> None:
    marked = mark_front(trials)
    assert marked["on_front"].tolist() == [True, True, False, True, False, False]
    assert marked["usable"].tolist() == [True, True, False, True, False, True]
    assert np.isnan(marked["front_probability"][[2, 4]]).all()


def test_an_uncertain_rival_shares_the_probability(trials: pd.DataFrame) -> None:
    chance = mark_front(trials)["front_probability"]
    assert 0.6 < chance[0] < 0.95 and 0.05 < chance[5] < 0.4
    assert chance[1] > 0.99


def test_a_service_level_removes_members(trials: pd.DataFrame) -> None:
    marked = mark_front(trials, limits={"latency_p99_ms": 20})
    assert marked["on_front"].tolist() == [True, True, False, False, False, False]


def test_an_objective_may_be_maximised(trials: pd.DataFrame) -> None:
    marked = mark_front(
        trials, ["latency_p99_ms", "throughput_rps"], maximise=["throughput_rps"]
    )
    assert marked["on_front"].tolist() == [True, True, False, True, False, False]


def test_an_unknown_objective_names_the_columns_there_are(trials: pd.DataFrame) -> None:
    with pytest.raises(TableError, match="latency_p42_ms.*latency_p99_ms"):
        mark_front(trials, ["latency_p42_ms", "energy_per_request_j"])


def test_hypervolume_of_a_table_counts_valid_trials_only(trials: pd.DataFrame) -> None:
    names = ["latency_p99_ms", "energy_per_request_j"]
    alone = pd.DataFrame({names[0]: [10.0, 20, 30], names[1]: [1.0, 0.5, 0.45]})
    assert front_hypervolume(trials, names, [40, 2]) == pytest.approx(
        front_hypervolume(alone, names, [40, 2])
    )


def test_the_figure_shows_every_trial_and_names_units(trials: pd.DataFrame) -> None:
    figure = pareto_figure(trials)
    (axis,) = figure.axes
    assert axis.get_xlabel() == "latency p99 (ms)"
    assert axis.get_ylabel() == "energy per request (J)"
    labels = {text.get_text() for text in axis.get_legend().get_texts()}
    assert labels == {
        "trial (1)",
        "invalid or beyond a limit (1)",
        "without a measurement (1)",
        "Pareto front (3)",
        "knee",
    }


def test_the_figure_draws_a_maximised_objectives_front_from_its_best_member_on(
    trials: pd.DataFrame,
) -> None:
    names = ["latency_p99_ms", "throughput_rps"]
    figure = pareto_figure(trials, names, maximise=["throughput_rps"])
    (step,) = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    # Minimised, 12 ms at 50 requests/s would be a member and 30 ms at 99 would not.
    assert step.get_xydata().tolist() == [[10, 50], [20, 90], [30, 99]]
    figure = pareto_figure(trials, names[::-1], maximise=["throughput_rps"])
    (step,) = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert step.get_xydata().tolist() == [[99, 30], [90, 20], [50, 10]]


def test_an_end_that_is_not_known_is_an_arrow_beyond_and_above_every_mark(
    trials: pd.DataFrame,
) -> None:
    open_ended = trials.assign(latency_p99_high_ms=[np.inf, np.inf, 6.0, 40.0, np.nan, 14.0])
    marked = mark_front(open_ended).assign(
        number=range(6), choice=[True, *[False] * 5], disturbed_by=[("busy",)] * 6)
    (axis,) = pareto_figure(marked).axes
    arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None) is not None]
    assert [arrow.xy for arrow in arrows] == [(10, 1), (20, 0.5)]
    largest = max(np.sqrt(marks.get_sizes().max()) for marks in axis.collections
                  if hasattr(marks, "get_sizes"))
    for arrow in arrows:
        length, up = arrow.xyann
        assert length > largest > 15 and up == 0
        assert arrow.get_zorder() > max(marks.get_zorder() for marks in axis.collections)


def test_hypervolume_of_a_maximised_objective_counts_what_lies_above_the_reference(
    trials: pd.DataFrame,
) -> None:
    names = ["latency_p99_ms", "throughput_rps"]
    maximise = ["throughput_rps"]
    # Members (10, 50), (20, 90), (30, 99) against (40, 40): steps of 10 ms each.
    found = front_hypervolume(trials, names, [40, 40], maximise=maximise)
    assert found == pytest.approx(10 * 10 + 10 * 50 + 10 * 59)
    assert worst_point(trials, names, maximise=maximise) == [30, 50]


def test_a_figure_leaves_no_pyplot_state() -> None:
    import subprocess
    import sys

    code = (
        "import sys, pandas as pd\n"
        "from tuner.analysis.plots import pareto_figure\n"
        "pareto_figure(pd.DataFrame({'a_ms': [1, 2], 'b_j': [2, 1]}), ['a_ms', 'b_j'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_front_is_drawn_for_two_objectives_only(trials: pd.DataFrame) -> None:
    with pytest.raises(TableError, match="two objectives"):
        pareto_figure(trials, ["latency_p99_ms"])


def test_members_whose_scaled_sums_differ_by_rounding_alone_are_ties_of_the_knee() -> None:
    front = np.array([[0.0, 1.0], [0.1, 0.2], [0.15, 0.15], [1.0, 0.0]])
    sums = front.sum(axis=1)
    assert sums[1] > sums[2] and sums[1] == pytest.approx(sums[2], abs=1e-15)
    assert knee(front) == 1  # the better first objective, not the smaller last bit


def test_presence_of_the_wrong_length_is_refused_and_of_one_changes_nothing() -> None:
    values, none = np.array([[1.0, 2.0], [2.0, 1.0], [2.5, 2.5]]), np.full((3, 2), np.nan)
    with pytest.raises(ValueError, match="presence needs shape"):
        membership_probability(values, none, none, presence=[1.0])
    found = membership_probability(values, none, none, presence=[1.0, 1.0, 1.0], draws=10)
    assert found.tolist() == [1, 1, 0]


@pytest.mark.parametrize("objectives", [2, 3])
def test_what_is_absent_neither_is_a_member_nor_dominates(objectives: int) -> None:
    values = np.array([[1.0] * objectives, [2.0] * objectives, [3.0] * objectives])
    none = np.full(values.shape, np.nan)
    found = membership_probability(values, none, none, presence=[0.6, 0.5, 1.0], draws=2000)
    assert found == pytest.approx([0.6, 0.4 * 0.5, 0.4 * 0.5], abs=0.035)  # three standard errors


@pytest.mark.parametrize("tied", [False, True])
def test_many_drawn_sets_have_each_the_front_that_it_has_alone(tied: bool) -> None:
    """Absent points, infinite, are on no front and hide none."""
    random = np.random.default_rng(3)
    sets = random.integers(0, 12, (40, 30, 2)) * 1.0 if tied else random.normal(size=(40, 30, 2))
    absent = random.random((40, 30)) < 0.3
    sets[absent] = np.inf
    for drawn, gone, on in zip(sets, absent, _staircases(sets)):
        alone = [not any((other <= one).all() and (other < one).any() for other in drawn[~gone])
                 for one in drawn]
        assert (on & ~gone).tolist() == (np.array(alone) & ~gone).tolist()
