"""Pareto fronts, and what is read off them."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from results_files import benchmark, row, scores, sweep, write

from lightning_expedite.analysis.front import AXES, answers, pareto_front, views
from lightning_expedite.analysis.results import read_results

numbers = st.one_of(st.integers(0, 5).map(float), st.floats(0, 1e6))  # few integers: many ties
points = st.lists(st.tuples(numbers, numbers), max_size=40)
LATENCY, THROUGHPUT = AXES[0], AXES[1]


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(points, st.randoms())
def test_the_front_is_all_that_nothing_dominates_by_rising_cost_whatever_the_order(places, random):
    front = pareto_front(places)
    expected = {index for index, place in enumerate(places) if not any(dominates(other, place) for other in places)}
    assert set(front) == expected
    assert len(front) == len(expected)
    for one, other in itertools.pairwise(places[index] for index in front):
        assert one == other or (one[0] < other[0] and one[1] < other[1])
    shuffled = random.sample(places, len(places))
    assert [places[index] for index in front] == [shuffled[index] for index in pareto_front(shuffled)]


def view_of(folder, *settings):
    """Write settings of ToMe, each with its loss and speed-up, and the baseline; returns the view of them."""
    for index, (loss, speedup) in enumerate(settings):
        method = ("ToMe", {"ratio": 0.1 * (index + 1)})
        write(folder / f"{index}/results.json", scores(method, loss))
        write(folder / f"{index}/benchmark.json", benchmark(row(method, max(speedup, 1.1), speedup)))
    write(folder / "points/none/test/results.json", scores())
    (view,) = views(read_results([folder]))
    return view


def test_more_throughput_is_better_and_less_latency(tmp_path):
    view = view_of(sweep(tmp_path, 13))
    latency, throughput = view.front(LATENCY), view.front(THROUGHPUT)
    assert latency["latency_ms"].is_monotonic_increasing
    # Throughput is the inverse of latency in these results, so the same settings are on both fronts, in other order.
    assert latency["setting"].tolist() == throughput["setting"].tolist()[::-1]
    assert latency["is_baseline"].iloc[-1]
    assert 1 < len(latency) < 13


def test_each_environment_has_a_front_of_its_own(tmp_path):
    methods = [("ToMe", {"ratio": 0.2}), ("ToMe", {"ratio": 0.4})]
    for name, content in {"0": scores(methods[0], 1.0), "1": scores(methods[1], 2.0), "none": scores()}.items():
        write(tmp_path / name / "results.json", content)
    slow = benchmark(row(methods[0], 1.2, 1.1), row(methods[1], 1.5, 1.3))
    write(tmp_path / "slow/benchmark.json", slow)
    fast = benchmark(row(methods[0], 1.2, 1.2, baseline_ms=2.0), precision="bf16-true")
    write(tmp_path / "fast/benchmark.json", fast)
    found = {view.environment: view.front(LATENCY)["setting"].tolist() for view in views(read_results([tmp_path]))}
    assert found == {
        "Some Processor, 2 threads, bf16-true": ["ToMe ratio 0.2", "baseline"],
        "Some Processor, 2 threads, 32-true": ["ToMe ratio 0.4", "ToMe ratio 0.2", "baseline"],
    }


def test_the_answer_is_the_fastest_setting_within_a_loss(tmp_path):
    one, two = answers(view_of(tmp_path, (0.3, 1.2), (0.4, 1.5), (0.9, 1.4), (1.8, 1.9), (9.0, 3.0)))
    assert one.startswith("At most 0.5 or 1 points of mIoU lost: ToMe ratio 0.2, 1.50 times as fast (quartiles 1.47 to")
    assert "ToMe ratio 0.4, 1.90 times as fast" in two
    assert "mIoU −1." in two


def test_a_setting_that_is_slower_is_no_answer(tmp_path):
    (sentence,) = answers(view_of(tmp_path, (0.1, 0.9)))
    assert sentence == "At most 0.5, 1 or 2 points of mIoU lost: no setting is faster than the baseline."
