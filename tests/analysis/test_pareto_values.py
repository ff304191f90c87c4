"""Fronts, hypervolumes, knees and probabilities whose values follow by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tuner.analysis.pareto import hypervolume, knee, membership_probability, non_dominated

NAN = np.nan


@pytest.mark.parametrize("values", [[1.0, 2.0], 3.0, [[[1.0, 2.0]]]])
def test_objective_values_are_a_table_of_points_by_objectives(values: object) -> None:
    with pytest.raises(ValueError, match="shape"):
        non_dominated(values)


def test_of_one_objective_the_smallest_known_values_are_the_front() -> None:
    assert non_dominated([[3], [1], [NAN], [1], [2]]).tolist() == [False, True, False, True, False]
    assert non_dominated([[NAN], [NAN]]).tolist() == [False, False]
    assert non_dominated(np.empty((0, 2))).tolist() == []


def test_of_two_objectives_a_tie_in_one_is_decided_by_the_other() -> None:
    points = [[1, 5], [1, 4], [2, 4], [3, 3], [3, 3], [4, 3], [5, 1], [NAN, 0], [0, NAN]]
    assert non_dominated(points).tolist() == [
        False, True, False, True, True, False, True, False, False,
    ]


def test_of_three_objectives_equal_points_are_members_together() -> None:
    points = [[1, 2, 3], [1, 2, 3], [1, 2, 4], [3, 2, 1], [2, 2, 2], [2, NAN, 0], [2, 3, 2]]
    assert non_dominated(points).tolist() == [True, True, False, True, True, False, False]


@pytest.mark.parametrize("n", [255, 256, 257, 1023, 1025, 1500])
def test_a_front_longer_than_a_block_is_whole_and_rules_out_what_lies_behind(n: int) -> None:
    t = np.linspace(0.0, 1.0, n)
    front = np.column_stack([t, 1 - t, np.ones(n)])
    both = np.concatenate([front + [0.0, 0.0, 0.5], front])
    assert non_dominated(both).tolist() == [False] * n + [True] * n


def test_each_point_behind_one_of_many_is_no_member() -> None:
    t = np.linspace(0.0, 1.0, 1300)
    front = np.column_stack([t, 1 - t, t * (1 - t)])
    behind = front[::100] + 1e-9
    assert non_dominated(np.concatenate([front, behind])).tolist() == [True] * 1300 + [False] * 13


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([[2.0], [5.0], [7.0]], [6.0], 4.0),
        ([[7.0]], [6.0], 0.0),
        ([[1, 3], [2, 1]], [4, 5], 3 * 2 + 2 * 2),
        ([[1, 3], [2, 1], [2, 2], [1, 3]], [4, 5], 3 * 2 + 2 * 2),
        ([[2, 1]], [4, 5], 2 * 4),
        ([[1, 1], [4, 0], [0, 5]], [4, 5], 3 * 4),  # on the reference's edge: nothing
        ([[1, 2, 3]], [4, 4, 4], 3 * 2 * 1),
        # Boxes 3 x 2 x 1 and 1 x 2 x 3 from their corners; both hold 1 x 2 x 1.
        ([[1, 2, 3], [3, 2, 1]], [4, 4, 4], 6 + 6 - 2),
        ([[1, 2, 3], [3, 2, 1], [4, 0, 0]], [4, 4, 4], 10),
    ],
)
def test_hypervolume_is_the_union_of_boxes(
    points: list[list[float]], reference: list[float], volume: float
) -> None:
    assert hypervolume(points, reference) == pytest.approx(volume)


@pytest.mark.parametrize("reference", [[4.0], [4.0, 4.0, 4.0], [[4.0, 4.0]]])
def test_a_reference_has_as_many_values_as_there_are_objectives(reference: object) -> None:
    with pytest.raises(ValueError, match="reference needs 2 values"):
        hypervolume([[1.0, 2.0]], reference)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_of_members_on_a_straight_line_the_best_in_the_first_objective_is_the_knee(
    order: list[int],
) -> None:
    line = np.array([[0.0, 0.3], [0.1, 0.2], [0.3, 0.0]])  # sums of 1 but for rounding
    assert knee(line[order]) == order.index(0)


def test_of_members_that_tie_in_sum_and_first_objective_the_second_decides() -> None:
    # Scaled sums are 2, 0.75, 0.75 and 2.
    front = np.array([[1, 0, 4], [0, 2, 1], [0, 1, 2], [1, 4, 0]], dtype=float)
    assert non_dominated(front).all()
    assert knee(front) == 2
    assert knee(front[::-1]) == 1


def test_an_objective_that_is_equal_for_all_members_has_no_say() -> None:
    assert knee([[5, 0, 10], [5, 1, 2], [5, 10, 0]]) == 1
    assert knee([[5, 5]]) == 0


def test_the_knee_is_counted_among_all_points() -> None:
    assert knee([[9, 9], [NAN, 0], [0, 10], [1, 2], [10, 0]]) == 3


def test_small_differences_of_the_sums_are_no_ties() -> None:
    front = np.array([[0.0, 1.0], [0.5, 0.5 - 1e-9], [1.0, 0.0]])
    assert knee(front) == 1


def test_probabilities_are_shares_of_two_thousand_draws_of_one_seed() -> None:
    values = np.array([[1.0, 1.0], [1.05, 1.0]])
    low, high = values - [0.2, 0.0], values + [0.2, 0.0]
    chance = membership_probability(values, low, high)
    assert chance * 2000 == pytest.approx(np.round(chance * 2000), abs=1e-9)
    assert chance.tolist() == membership_probability(values, low, high, seed=0).tolist()
    assert chance.tolist() != membership_probability(values, low, high, seed=1).tolist()


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_an_interval_is_of_its_level(level: float) -> None:
    values = np.array([[1.0, 1.0], [1.1, 1.0]])
    half = norm.ppf((1 + level) / 2) * np.array([[0.1, 0.0], [0.0, 0.0]])
    expected = norm.cdf(1.0)
    chance = membership_probability(values, values - half, values + half, level=level, draws=20_000)
    assert chance == pytest.approx([expected, 1 - expected], abs=0.01)


def test_without_a_word_an_interval_is_of_95_percent() -> None:
    values = np.array([[1.0, 1.0], [1.1, 1.0]])
    half = 1.959964 * np.array([[0.1, 0.0], [0.0, 0.0]])
    chance = membership_probability(values, values - half, values + half, draws=20_000)
    assert chance[0] == pytest.approx(norm.cdf(1.0), abs=0.01)


@pytest.mark.parametrize("objectives", [2, 3])
def test_what_is_on_every_front_has_probability_one_however_many_points(objectives: int) -> None:
    t = np.linspace(0.0, 1.0, 100)
    values = np.column_stack([t, 1 - t, np.ones(100)])[:, :objectives]
    chance = membership_probability(values, values, values, draws=1457)
    assert chance.tolist() == [1.0] * 100


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_point_without_a_measurement_has_no_chance_and_takes_none(objectives: int) -> None:
    values = np.array([[1.0, 2.0, 1.0], [NAN, 0.0, 0.0], [2.0, 1.0, 1.0], [0.0, NAN, 0.0]])
    values = values[:, :objectives]
    width = np.full_like(values, 0.1)
    chance = membership_probability(values, values - width, values + width, draws=50)
    assert chance.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_errors_of_three_objectives_are_independent() -> None:
    # The rival ties in the third objective and is on the front unless it is worse in both others.
    values = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    half = np.array([[0.3, 0.3, 0.0], [0.3, 0.3, 0.0]])
    chance = membership_probability(values, values - half, values + half, draws=2000)
    assert chance == pytest.approx([0.75, 0.75], abs=0.04)


def test_a_point_five_deviations_behind_still_has_its_chance_by_another_objective() -> None:
    values = np.array([[1.0, 1.0], [1.5, 1.0]])
    half = 1.959964 * np.array([[0.0, 0.0], [0.1, 0.1]])
    # Worse by 5 deviations in the first; in the second better in half of the draws.
    chance = membership_probability(values, values - half, values + half, draws=20_000)
    assert chance == pytest.approx([1.0, 0.5], abs=0.012)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_a_point_that_another_one_may_not_dominate_for_certain_is_drawn(unit: float) -> None:
    values = unit * np.array([[1.0, 1.0], [1.2, 1.0]])
    low, high = unit * np.ones((2, 2)), unit * np.array([[1.0, 1.0], [1.4, 1.0]])
    # The second is better than 1.0 where its error is below -1.96 deviations: 2.5 %.
    chance = membership_probability(values, low, high, draws=40_000)
    assert chance == pytest.approx([0.975, 0.025], abs=0.004)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 2)])
def test_intervals_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    values = np.ones((2, 2))
    good, bad = np.full((2, 2), NAN), np.full((3, *shape), NAN)
    for low, high in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="intervals need the values' shape"):
            membership_probability(values, low, high)


def test_from_a_presence_of_999_in_1000_on_a_point_rules_out_what_it_dominates_for_certain() -> None:
    values, exact = np.array([[1.0, 1.0], [2.0, 2.0]]), np.full((2, 2), NAN)
    ruled_out = membership_probability(values, exact, exact, presence=[0.9992, 1.0], draws=20_000)
    drawn = membership_probability(values, exact, exact, presence=[0.9988, 1.0], draws=20_000)
    assert ruled_out[1] == 0 and drawn[1] == pytest.approx(0.0012, abs=0.0008) and drawn[1] > 0


def test_half_a_deviation_above_a_value_is_drawn_from_the_upper_side_alone() -> None:
    values, exact = np.array([[1.0, 1.0], [1.05, 1.0]]), np.zeros((2, 2))
    reach = 1.959964 * np.array([[0.1, 0.0], [0.0, 0.0]])
    above = membership_probability(values, values - exact, values + reach, draws=20_000)
    assert above == pytest.approx([norm.cdf(0.5), norm.cdf(-0.5)], abs=0.012)
    values[1, 0] = 0.95
    below = membership_probability(values, values - reach, values + exact, draws=20_000)
    assert below == pytest.approx([norm.cdf(-0.5), norm.cdf(0.5)], abs=0.012)


def test_of_two_that_tie_in_the_first_objective_the_better_second_one_is_a_member() -> None:
    assert non_dominated([[1.0, 2.0], [1.0, 1.0], [2.0, 0.0], [2.0, 0.5]]).tolist() == [
        False, True, True, False
    ]


def test_points_none_of_which_is_always_there_are_absent_as_often_as_they_say() -> None:
    values = np.array([[1.0, 2.0], [2.0, 1.0]])
    none = np.full((2, 2), np.nan)
    found = membership_probability(values, none, none, presence=[0.3, 0.7], draws=20_000)
    assert found == pytest.approx([0.3, 0.7], abs=0.02)
