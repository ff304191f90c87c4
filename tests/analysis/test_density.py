from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gaussian_kde, norm

from tuner.analysis.density import (
    kernel_density,
    kl_divergence,
    robust_bandwidth,
    round_edges,
    shape,
)


def test_bandwidth_of_a_known_sample() -> None:
    # Median 3, absolute deviations 2 1 0 1 97: their median is 1.
    assert robust_bandwidth([1, 2, 3, 4, 100]) == pytest.approx(1 / 0.6745 * (4 / 15) ** 0.2)


def test_bandwidth_falls_back_to_the_range_and_then_to_one() -> None:
    assert robust_bandwidth([5, 5, 5, 7]) == pytest.approx(2 * (4 / 12) ** 0.2)
    assert robust_bandwidth([5, 5, 5]) == 1


@pytest.mark.parametrize("low,high", [(0.1234, 0.9876), (13.9, 26.4), (-3.7, 1200.0), (1e6, 1.1e6)])
def test_edges_are_equal_cover_the_data_and_step_at_round_numbers(low: float, high: float) -> None:
    edges = round_edges(low, high)
    widths = np.diff(edges)
    assert len(edges) == 1001
    assert edges[0] <= low and edges[-1] >= high and edges[-2] <= high
    assert widths == pytest.approx(widths[0], rel=1e-6)
    digits = f"{float(f'{widths[0]:.10g}'):e}".split("e")[0].rstrip("0").replace(".", "")
    assert len(digits) <= 5


def test_edges_of_nearly_constant_data_have_a_width() -> None:
    edges = round_edges(5.0, 5.0)
    assert len(edges) == 1001 and edges[0] < 5 < edges[-1]


def test_density_agrees_with_an_independent_one_away_from_the_cut_off() -> None:
    values = np.random.default_rng(0).normal(10, 2, 500)
    at = np.linspace(6, 14, 101)
    bandwidth = robust_bandwidth(values) / values.std(ddof=1)
    expected = gaussian_kde(values, bw_method=bandwidth)(at)
    assert kernel_density(values, at) == pytest.approx(expected, rel=2e-3)


def test_kernel_is_cut_off_at_four_bandwidths_in_large_problems_only() -> None:
    at = np.linspace(-10, 10, 1001)
    many, few = np.zeros(40), np.zeros(20)
    assert kernel_density(many, at)[0] == 0
    assert kernel_density(few, at)[0] == pytest.approx(norm.pdf(10))


def test_a_sample_does_not_diverge_from_itself_nor_from_its_scaled_copy() -> None:
    values = np.random.default_rng(1).gamma(2, 1, 800)
    assert kl_divergence(shape(values), shape(values)) == pytest.approx(0, abs=1e-9)
    assert kl_divergence(shape(values), shape(1000 * values)) == pytest.approx(0, abs=1e-6)


def test_divergence_of_other_shapes_is_positive_and_not_symmetric() -> None:
    random = np.random.default_rng(2)
    skewed, even = shape(random.gamma(1, 1, 800)), shape(random.random(800))
    there, back = kl_divergence(skewed, even), kl_divergence(even, skewed)
    assert there is not None and back is not None
    assert there > 0.1 and back > 0.1 and abs(there - back) > 0.05


def test_divergence_from_nothing_is_undefined() -> None:
    assert kl_divergence(shape([]), shape([1.0, 2.0])) is None
