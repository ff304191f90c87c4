from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tuner.analysis.cart import tree_importance


def shares(importance: np.ndarray) -> np.ndarray:
    return importance / importance.sum()


def test_importance_of_boolean_options_agrees_with_an_independent_tree() -> None:
    from sklearn.tree import DecisionTreeRegressor

    random = np.random.default_rng(0)
    x = random.integers(0, 2, (400, 6))
    y = 5 * x[:, 0] + 3 * x[:, 1] * x[:, 2] + random.normal(0, 1, 400)
    tree = DecisionTreeRegressor(min_samples_split=10, random_state=0).fit(x, y)
    assert shares(tree_importance(x, y)) == pytest.approx(tree.feature_importances_, abs=1e-3)


def test_importance_is_the_loss_of_squared_error_per_split() -> None:
    x = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 10, axis=0)
    y = 4.0 * x[:, 0]
    # One split takes the whole variance, 4; nothing is left to split.
    assert tree_importance(x, y) == pytest.approx([4.0, 0.0])


def test_a_categorical_split_is_the_best_of_all_subsets_of_levels() -> None:
    random = np.random.default_rng(3)
    level = random.integers(0, 5, 18)
    y = random.normal(size=18)
    best = 0.0
    for size in range(1, 5):
        for left in combinations(range(5), size):
            inside = np.isin(level, left)
            if inside.any() and not inside.all():
                within = sum(((y[p] - y[p].mean()) ** 2).sum() for p in (inside, ~inside))
                best = max(best, ((y - y.mean()) ** 2).sum() - within)
    # Nodes under 18 rows stay whole, so there is exactly one split.
    found = tree_importance(level[:, None], y, minimum_parent=18)
    assert found == pytest.approx([best / 18])


def test_small_nodes_are_not_split() -> None:
    x = np.array([[0], [1]] * 4)
    assert tree_importance(x, x[:, 0]).tolist() == [0.0]
    assert tree_importance(np.tile(x, (2, 1)), np.tile(x[:, 0], 2))[0] > 0


def test_among_equal_splits_the_first_option_is_taken() -> None:
    x = np.tile([[0, 0], [1, 1]], (10, 1))
    assert tree_importance(x, x[:, 0])[1] == 0


def test_an_empty_cell_is_a_level_of_its_own() -> None:
    x = np.array([[-1], [0], [1]] * 10)
    y = (x[:, 0] == -1).astype(float)
    assert tree_importance(x, y) == pytest.approx([y.var()])


def test_a_constant_response_has_no_important_option() -> None:
    assert tree_importance(np.random.default_rng(0).integers(0, 3, (50, 4)), np.ones(50)).sum() == 0
