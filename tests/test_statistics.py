"""Intervals over objects: coverage, grouping, and paired differences."""

import numpy as np
import pytest

from vcgen.evaluation.statistics import bootstrap_interval, mean, paired_difference


def names(count: int) -> list[str]:
    return [f"object{i}" for i in range(count)]


def test_interval_agrees_with_the_normal_formula_on_many_objects():
    values = np.random.default_rng(3).normal(25, 2, size=400)
    low, high = bootstrap_interval(values.tolist(), names(400))
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_interval_covers_the_true_mean_about_95_times_in_100():
    random = np.random.default_rng(0)
    draws = [random.normal(0, 1, size=60).tolist() for _ in range(200)]
    intervals = [bootstrap_interval(values, names(60), resamples=400) for values in draws]
    covered = sum(low <= 0 <= high for low, high in intervals) / len(intervals)
    assert 0.89 <= covered <= 0.99


def test_copies_within_a_group_add_no_certainty():
    values = np.random.default_rng(1).normal(size=30).tolist()
    once = bootstrap_interval(values, names(30))
    copied = bootstrap_interval(values * 5, names(30) * 5)
    pretended = bootstrap_interval(values * 5, names(150))
    assert copied == pytest.approx(once, abs=1e-12)
    assert pretended[1] - pretended[0] < 0.6 * (once[1] - once[0])


def test_interval_is_the_same_for_any_order_and_any_names():
    values = np.random.default_rng(2).normal(size=12).tolist()
    groups = [f"group{i // 2}" for i in range(12)]
    order = np.random.default_rng(5).permutation(12)
    renamed = [f"{99 - int(groups[i][5:])}" for i in order]
    assert bootstrap_interval([values[i] for i in order], renamed) == bootstrap_interval(values, groups)


def test_groups_of_unequal_size_are_weighted_by_their_objects():
    low, high = bootstrap_interval([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"])
    assert (low, high) == (0.0, 1.0)
    means = {0.0, 0.75, 1.0}  # the three outcomes of drawing two of the groups (0 of 1) and (3 of 3)
    one = bootstrap_interval([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"], resamples=1, seed=4)[0]
    assert one in means


def test_single_group_has_no_interval():
    assert bootstrap_interval([1.0, 2.0], ["same", "same"]) is None


def test_mean_of_tiny_and_large_values_is_formed_in_float64():
    assert mean([1e8, 1.0, -1e8]) == pytest.approx(1 / 3, abs=1e-12)


def test_paired_difference_removes_what_objects_have_in_common():
    difficulty = np.random.default_rng(7).normal(0, 10, size=50)
    second = dict(zip(names(50), difficulty.tolist()))
    first = {name: value + 0.5 for name, value in second.items()}
    result = paired_difference(first, second, {name: name for name in second})
    assert result.mean == pytest.approx(0.5)
    assert result.interval == pytest.approx((0.5, 0.5))
    assert result.improved == 1.0


def test_improvement_counts_the_objects_that_got_better_in_the_metrics_own_direction():
    first, second = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, {"a": 0.2, "b": 0.1, "c": 0.4, "d": 0.5}
    groups = {name: name for name in first}
    assert paired_difference(first, second, groups, higher_is_better=False).improved == 0.75
    assert paired_difference(first, second, groups).improved == 0.25


def test_unpaired_objects_are_refused():
    with pytest.raises(ValueError, match="same objects"):
        paired_difference({"a": 1.0}, {"b": 1.0}, {"a": "a"})
