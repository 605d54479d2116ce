"""Samplers stay in their ranges and are seeded; goals judge points; fronts are those of brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.sweeps.figures import Figure
from slicesim.sweeps.goals import Goals, Limit, Score, pareto_front
from slicesim.sweeps.search import BayesianSearch, GridSearch, LatinHypercubeSearch, RandomSearch
from slicesim.sweeps.space import Choices, Range

DRAWN = [RandomSearch, LatinHypercubeSearch, BayesianSearch]

bounds = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).filter(lambda pair: pair[0] < pair[1])
plain = bounds.map(lambda pair: Range(low=pair[0], high=pair[1]))
logarithmic = st.tuples(st.floats(1e-6, 1e3), st.floats(1.001, 1e6)).map(
    lambda pair: Range(low=pair[0], high=pair[0] * pair[1], log=True)
)
stepped = st.tuples(st.integers(-50, 50), st.integers(1, 7), st.integers(1, 30)).map(
    lambda parts: Range(low=parts[0], step=parts[1], high=parts[0] + parts[1] * parts[2])
)
fine = st.tuples(st.integers(-50, 50), st.integers(1, 30)).map(
    lambda parts: Range(low=parts[0] / 10, step=0.1, high=(parts[0] + parts[1]) / 10)
)
ranges = st.one_of(plain, logarithmic, stepped, fine)
shares = st.floats(0, 1, exclude_max=True)


def search(method: type, keys: dict, points: int, seed: int = 0) -> object:
    more = {"batch": min(8, points)} if method is BayesianSearch else {}
    name = {RandomSearch: "random", LatinHypercubeSearch: "latin-hypercube", BayesianSearch: "bayesian"}[method]
    return method(method=name, keys=keys, points=points, seed=seed, **more)


def drawn(own: object, objective=lambda values: 0.0) -> list[dict]:
    """All points of a search, each batch told what the objective says."""
    figure = Figure("energy", "energy", 1.0)
    rounds, points = own.rounds(Goals(objectives=((figure, "minimise"),))), []
    while asked := rounds.ask():
        points += asked
        rounds.tell([Score((objective(values),), ()) for values in asked])
    return points


def holds(own: Range, value: float) -> bool:
    if own.step is None:
        return own.low <= value <= own.high
    steps = (value - own.low) / own.step
    return own.low <= value <= own.high and steps == pytest.approx(round(steps), abs=1e-6)


@given(ranges, shares, shares)
def test_a_range_rises_from_low_to_high_and_holds_its_values(own, first, second):
    low, high = own.at(min(first, second)), own.at(max(first, second))
    assert holds(own, low)
    assert holds(own, high)
    assert low <= high
    assert own.at(0.0) == pytest.approx(own.low)
    whole = isinstance(own.low, int) and isinstance(own.step, int)
    assert isinstance(low, int if whole else float)


def test_ranges_by_hand():
    assert Range(low=1, high=100, log=True).at(0.5) == pytest.approx(10)  # the geometric mean
    assert list(Range(low=2, high=8, step=3).levels) == [2, 5, 8]
    assert [Range(low=2, high=8, step=3).at(share) for share in (0.0, 0.33, 0.34, 0.99)] == [2, 2, 5, 8]
    assert Range(low=0.1, high=0.4, step=0.1).levels == [0.1, 0.2, 0.3, 0.4]
    assert Choices("abc").at(0.67) == "c"


@pytest.mark.parametrize("method", DRAWN)
@given(st.lists(ranges, min_size=1, max_size=4), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_points_are_in_bounds_and_seeded(method, domains, points, seed):
    keys = {f"k{place}": own for place, own in enumerate(domains)} | {"choice": ["x", 1, None, {"a": 2}]}
    first = drawn(search(method, keys, points, seed))
    assert len(first) == points
    assert all(list(values) == list(keys) for values in first)
    assert all(holds(own, values[f"k{place}"]) for values in first for place, own in enumerate(domains))
    assert all(values["choice"] in keys["choice"] for values in first)
    assert drawn(search(method, keys, points, seed)) == first


@pytest.mark.parametrize("method", DRAWN)
def test_another_seed_draws_other_points(method):
    keys = {"a": Range(low=0.0, high=1.0)}
    assert drawn(search(method, keys, 5, 1)) != drawn(search(method, keys, 5, 2))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_latin_hypercube_has_one_point_in_every_part_of_every_range(points, dimensions, seed):
    keys = {f"k{place}": Range(low=-3.0, high=5.0) for place in range(dimensions)}
    for key in keys:
        values = np.array([point[key] for point in drawn(search(LatinHypercubeSearch, keys, points, seed))])
        assert sorted(((values + 3) / 8 * points).astype(int)) == list(range(points))


def test_a_latin_hypercube_shares_choices_out_evenly():
    points = drawn(search(LatinHypercubeSearch, {"a": ["x", "y", "z"], "b": Range(low=0, high=3, step=1)}, 12))
    assert sorted(point["a"] for point in points) == [*"xxxxyyyyzzzz"]
    assert sorted(point["b"] for point in points) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_more_random_points_keep_the_first():
    keys = {"a": Range(low=0.0, high=1.0), "b": Range(low=0.0, high=1.0)}
    assert drawn(search(RandomSearch, keys, 9))[:4] == drawn(search(RandomSearch, keys, 4))


def test_a_grid_of_steps_and_lists():
    own = GridSearch(method="grid", keys={"a": Range(low=1, high=3, step=1), "b": ["x", "y"]})
    assert own.size == 6
    assert drawn(own) == [{"a": a, "b": b} for a in (1, 2, 3) for b in "xy"]


def test_a_bayesian_search_comes_closer_than_a_random_one():
    """Least of (a - 0.7)^2 + (b - 0.2)^2 on the unit square, 60 points, median of five seeds."""
    keys = {key: Range(low=0.0, high=1.0) for key in "ab"}
    loss = lambda point: (point["a"] - 0.7) ** 2 + (point["b"] - 0.2) ** 2  # noqa: E731
    best = {
        method: np.median([min(map(loss, drawn(search(method, keys, 60, seed), loss))) for seed in range(5)])
        for method in (RandomSearch, BayesianSearch)
    }
    assert best[BayesianSearch] < best[RandomSearch] / 2


def test_a_bayesian_search_heeds_constraints():
    """Least a, where a must be at least 0.6: of the last 20 of 60 points, most keep to it, and come close."""
    own = search(BayesianSearch, {"a": Range(low=0.0, high=1.0)}, 60)
    figure = Figure("a", "a", 1.0)
    goals = Goals(((figure, "minimise"),), ((figure, Limit(min=0.6)),))
    rounds, points = own.rounds(goals), []
    while asked := rounds.ask():
        points += [values["a"] for values in asked]
        rounds.tell(goals.score(values) for values in asked)
    kept = [value for value in points[-20:] if value >= 0.6]
    assert len(kept) >= 12
    assert min(kept) < 0.65


def test_a_bayesian_search_goes_on_where_points_are_not_valid_or_have_no_figures():
    own = search(BayesianSearch, {"a": Range(low=0.0, high=1.0)}, 24)
    figure = Figure("a", "a", 1.0)
    rounds, count = own.rounds(Goals(((figure, "maximise"),), ((figure, Limit(max=2)),))), 0
    while asked := rounds.ask():
        count += len(asked)
        rounds.tell([None if values["a"] < 0.3 else Score(None, (1e12,)) for values in asked])
    assert count == 24


values = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40)


@given(values, st.integers(1, 3))
def test_the_front_is_that_of_brute_force(points, objectives):
    rows = np.array(points, dtype=float)[:, :objectives]
    beaten = [any((other <= row).all() and (other < row).any() for other in rows) for row in rows]
    assert pareto_front(rows).tolist() == [not one for one in beaten]


@given(values)
def test_feasible_points_alone_make_the_front(points):
    goals = Goals(
        ((Figure("a", "a", 1.0), "minimise"), (Figure("b", "b", 1.0), "maximise")),
        ((Figure("c", "c", 1.0), Limit(max=2)),),
    )
    rows = [dict(zip("abc", point, strict=True)) for point in points]
    columns = goals.columns(rows)
    assert columns["feasible"].tolist() == [row["c"] <= 2 for row in rows]
    for row, on_front in zip(rows, columns["pareto"], strict=True):
        better = [
            other
            for other in rows
            if other["c"] <= 2 and other["a"] <= row["a"] and other["b"] >= row["b"]
            and (other["a"], other["b"]) != (row["a"], row["b"])
        ]  # fmt: skip
        assert on_front == (row["c"] <= 2 and not better)


def test_limits_by_hand():
    assert Limit(max=200).violation(250) == pytest.approx(0.25)  # a quarter above
    assert Limit(min=4, max=8).violation(3) == pytest.approx(0.25)
    assert Limit(max=0).violation(0.5) == pytest.approx(0.5)
    assert Limit(max=5).violation(5) <= 0
    assert Limit(max=5).violation(None) > 1e9
    goals = Goals(constraints=((Figure("a", "a", 1.0), Limit(max=1)),))
    assert goals.columns([{"a": 1}, {"a": 2}, {}])["feasible"].tolist() == [True, False, False]
    assert "pareto" not in goals.columns([{"a": 1}])
    assert Goals(((Figure("a", "a", 1.0), "minimise"),)).columns([{"a": 2}, {}, {"a": 2}])["pareto"].tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_figures_in_units_that_people_think_in():
    figures = {"decode.latency_ps.mean": 250e9, "decode.energy_pj_per_token.total": 3e11, "decode.tokens_per_s": 4.0}
    cases = {
        "decode.latency_ms.mean": 250, "decode.latency_s.mean": 0.25, "decode.latency_ps.mean": 250e9,
        "decode.energy_mj_per_token.total": 300, "decode.energy_j_per_token.total": 0.3, "decode.tokens_per_s": 4,
        "decode.miss_rate.slices": None, "prefill.ttft_s.mean": None, "decode.constraint.rate": None,
    }  # fmt: skip
    for name, expected in cases.items():
        found = Figure.of(name).value(figures)
        assert found == (None if expected is None else pytest.approx(expected)), name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("decode.latency_ms.maen", "decode.latency_ms.mean"),
        ("decode.energy_per_token", "decode.energy"),
        ("what", "see the columns"),
    ],
)
def test_figures_that_do_not_exist(name, hint):
    with pytest.raises(ValueError, match=f"no such figure .*{hint}"):
        Figure.of(name)


def test_every_figure_of_a_run_has_a_name(folder):
    import slicesim as api

    (folder / "s.yaml").write_text("scenario: c.yaml\npolicies: [slicemoe]\ngrid: {seed: [1]}\n")
    frame = api.sweep("s.yaml")
    words = ("name", "met")
    for column in frame.columns:
        if column.startswith(("decode.", "prefill.")) and not column.endswith(words):
            assert Figure.of(column) == Figure(column, column, 1.0)
