"""The search for better settings: its ranges, its trials, and all of it on a small data set."""

import contextlib
import json
import time

import pytest
import yaml
from recommend_files import write_sweep
from small_run import command_line

from lightning_expedite.analysis.comparison import read_counts
from lightning_expedite.analysis.results import read_results
from lightning_expedite.errors import ConfigError, OutputError
from lightning_expedite.reducers import ACT, EncoderShape, EViT, Reducer, Reduction, TokenClustering, ToMe
from lightning_expedite.reducers.spaces import FloatRange, GridRange, IntRange, LayerChoice

optuna = pytest.importorskip("optuna")
from lightning_expedite.search import finalists, search  # noqa: E402
from lightning_expedite.search.study import Study, Tried, choose_finalists, pareto_front  # noqa: E402
from lightning_expedite.search.subset import SearchCLI, Subset, spread  # noqa: E402

QUICK = ("iterations", 5), ("seconds", 0.01), ("batch_size", 1), ("warmup", 1), ("whole_images", 0)
QUICK_WORDS = tuple(word for name, value in QUICK for word in (f"--benchmark.{name}", value))


class Halving(Reducer):
    """Has a setting, but declares nothing to search."""

    def __init__(self, step: int = 2) -> None:
        self.step = step

    def start(self, layout):
        return Reduction(layout)


class Extreme:
    """A trial that always chooses the lowest or the highest."""

    def __init__(self, highest):
        self.highest = highest

    def suggest_int(self, name, low, high, *, step=1):
        return high if self.highest else low

    def suggest_float(self, name, low, high, *, step=None):
        return high if self.highest else low


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [
        (ToMe, {"ratio": 0.05}, {"ratio": 0.5}),
        (EViT, {"locations": (1,), "keep_rate": 0.3}, {"locations": (11,), "keep_rate": 0.95}),
        (ACT, {"query_hashes": 8}, {"query_hashes": 32}),
        (TokenClustering, {"location": 1, "clusters": (4, 6)}, {"location": 11, "clusters": (16, 24)}),
    ],
)
def test_declared_ranges_follow_from_the_encoder(kind, lowest, highest):
    encoder = EncoderShape(12, (16, 24))
    space = kind.search_space(encoder)
    for end, expected in ((False, lowest), (True, highest)):
        settings = {name: span.suggest(Extreme(end), name) for name, span in space.items()}
        assert settings == expected
        kind(**settings).check(encoder)


def test_all_values_of_the_ranges_suit_the_reducers():
    encoder = EncoderShape(4, (9, 5))
    for kind in (ToMe, EViT, ACT, TokenClustering):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(60):
            trial = study.ask()
            settings = {name: span.suggest(trial, name) for name, span in kind.search_space(encoder).items()}
            kind(**settings).check(encoder)


def test_layers_are_spaced_and_within_the_range():
    trial = optuna.trial.FixedTrial({"x_first": 3, "x_gap": 2, "x_count": 3})
    assert LayerChoice(1, 11).suggest(trial, "x") == (3, 5, 7)
    assert LayerChoice(1, 6).suggest(optuna.trial.FixedTrial({"x_first": 5, "x_gap": 1, "x_count": 3}), "x") == (5, 6)
    assert GridRange(2, (10, 5)).suggest(optuna.trial.FixedTrial({"x_rows": 7}), "x") == (7, 4)


def test_the_subset_is_spread_evenly_and_fixed():
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(7, 7) == list(range(7))


def tried(ratio, loss, gflops):
    return Tried({"ratio": ratio}, 80 - loss, loss, gflops, 1.0)


POINTS = [tried(0.1, 0.1, 9), tried(0.2, 0.3, 8), tried(0.25, 0.5, 8.5), tried(0.3, 0.6, 6), tried(0.4, 2.0, 4)]


def ratios(some):
    return [one.settings["ratio"] for one in some]


def test_the_front_leaves_out_what_is_beaten_in_both():
    assert ratios(pareto_front(POINTS)) == [0.4, 0.3, 0.2, 0.1]


def test_finalists_are_the_cheapest_within_the_limit_and_the_next_beyond():
    assert ratios(choose_finalists(POINTS, 3, 0.7)) == [0.3, 0.2, 0.4]
    assert ratios(choose_finalists(POINTS, 2, 0.05)) == [0.1, 0.2]
    assert ratios(choose_finalists(POINTS, 9, 9.0)) == [0.4, 0.3, 0.2, 0.1]
    assert ratios(choose_finalists(POINTS, 3, None)) == [0.4, 0.2, 0.1]
    assert ratios(choose_finalists(POINTS, 1, None)) == [0.4]
    assert choose_finalists([], 3, 1.0) == []


SPACE = {"ratio": FloatRange(0.05, 0.5)}


def made_up(settings, end):
    return Tried(settings, 80 - 10 * settings["ratio"], 10 * settings["ratio"], 5 - settings["ratio"], 0.0)


def test_a_study_goes_on_where_it_was_stopped(tmp_path):
    seen = []

    def attempt(settings, end):
        if len(seen) == 3:
            raise KeyboardInterrupt
        return made_up(settings, end)

    study = Study(tmp_path, SPACE, {"images": [1]}, 0, None)
    with pytest.raises(KeyboardInterrupt):
        study.run(attempt, 60, seen.append)
    again = Study(tmp_path, SPACE, {"images": [1]}, 0, None)
    assert again.tried == seen
    more = []
    again.run(made_up, 60, more.append)  # ends by itself: there are 46 ratios
    assert len(seen) + len(more) >= 15
    assert len({one.settings["ratio"] for one in seen + more}) == len(seen + more) == len(again.tried)


def test_a_small_space_ends_the_study_when_nothing_new_is_left(tmp_path):
    done = []
    study = Study(tmp_path, {"hashes": IntRange(8, 10)}, {}, 0, None)
    study.run(lambda settings, end: Tried(settings, 1.0, 0.0, 1.0, 0.0), 60, done.append)
    assert sorted(one.settings["hashes"] for one in done) == [8, 9, 10]


def test_the_budget_is_kept_over_several_calls(tmp_path):
    def slow(settings, end):
        time.sleep(min(0.2, max(end - time.perf_counter(), 0)))
        return made_up(settings, end) if time.perf_counter() < end else None

    start = time.perf_counter()
    Study(tmp_path, SPACE, {}, 0, None).run(slow, 1.0, lambda one: None)
    assert 0.9 < time.perf_counter() - start < 3
    study = Study(tmp_path, SPACE, {}, 0, None)
    before = len(study.tried)
    assert 1 <= before <= 5
    study.run(slow, 1.0, lambda one: None)
    assert len(study.tried) <= before + 1
    study.run(slow, 2.0, lambda one: None)
    assert len(study.tried) > before


def test_the_limit_of_the_loss_steers_the_study(tmp_path):
    found = {}
    for limit in (None, 0.9):
        done = []
        study = Study(tmp_path / str(limit), {"ratio": FloatRange(0.05, 0.5, 0.001)}, {}, 0, limit)
        with contextlib.suppress(KeyboardInterrupt):
            study.run(made_up, 60, lambda one, done=done: done.append(one) if len(done) < 30 else interrupt())
        found[limit] = sum(one.loss <= 0.9 for one in done[10:])
    assert found[0.9] > found[None]


def interrupt():
    raise KeyboardInterrupt


def test_the_subset_is_scored_and_counted_as_test_and_benchmark_do(run, config):
    words = ("--config", config, "--model.reducer", "ToMe", "--model.reducer.ratio", 0.3)
    assert run("test", *words, "--output", "tested")[0] == 0
    quick = [word for name, value in QUICK for word in (f"--{name}", value)]
    assert run("benchmark", *words, *quick, "--device", "cpu", "--output", "timed")[0] == 0
    expected = read_counts(read_results(["tested"])["evaluation"][0])
    subset = Subset(SearchCLI(["--config", str(config)]), images=9)
    counts = subset.score(ToMe(0.3))
    assert counts.images == expected.images
    assert all(
        (getattr(counts, name) == getattr(expected, name)).all() for name in ("intersection", "prediction", "label")
    )
    assert subset.gflops(ToMe(0.3)) == read_results(["timed"])["gflops"].min()
    assert 0 < subset.gflops(ACT(32)) < 1.5 * subset.gflops(None)
    assert subset.score(None, until=0) is None
    some = Subset(SearchCLI(["--config", str(config)]), images=2).score(ToMe(0.3))
    assert some.images == (expected.images[1], expected.images[3])
    assert (some.intersection == expected.intersection[[1, 3]]).all()


@pytest.fixture
def steps_here(monkeypatch, capsys):
    """Finalists are tested in this process; gives the steps that were asked for."""
    asked = []

    def run_step(folder, step, options):
        asked.append((folder.name, step))
        words = [step, "--config", folder.config, "--output", folder.step(step), "--overwrite", *options]
        status, _, err = command_line(capsys, *words)
        return None if status == 0 else err

    monkeypatch.setattr(finalists, "run_step", run_step)
    return asked


def words_of(config, *more):
    words = ("recommend", "--search", "--config", config, "--output", "out", "--reducer", "ToMe", "--images", 2)
    return (*words, "--finalists", 2, *QUICK_WORDS, *more)


def test_a_search_leaves_what_a_sweep_leaves(run, config, steps_here):
    start = time.perf_counter()
    status, out, err = run(*words_of(config, "--seconds", 2, "--max_loss", 90, "--json", "answer.json"))
    assert status == 0, err
    assert time.perf_counter() - start < 60
    assert "recommended: " in out
    answer = json.loads(open("answer.json").read())  # noqa: PTH123, SIM115
    content = json.loads(open("out/sweep.json").read())  # noqa: PTH123, SIM115
    assert content["kind"] == "sweep"
    names = [point["name"] for point in content["points"]]
    assert names[0] == "none"
    assert 2 <= len(names) <= 3
    assert answer["settings_compared"] == len(names) - 1
    assert steps_here == [(name, step) for name in names for step in ("test", "benchmark")]
    point = yaml.safe_load(open(f"out/points/{names[1]}/point.yaml"))  # noqa: PTH123, SIM115
    assert point["model"]["reducer"]["class_path"] == "lightning_expedite.reducers.tome.ToMe"
    assert names[1] == f"tome_ratio{point['model']['reducer']['init_args']['ratio']}"
    results = json.loads(open(f"out/points/{names[1]}/test/results.json").read())  # noqa: PTH123, SIM115
    assert results["images"] == 4  # all of them

    steps_here.clear()
    status, _, err = run(*words_of(config, "--seconds", 2, "--max_loss", 90))
    assert status == 0
    assert steps_here == []
    assert "is of a search with another images" in run(*words_of(config, "--max_loss", 90, "--images", 3))[2]


def test_a_failed_finalist_is_reported_and_the_others_go_on(run, config, steps_here, monkeypatch):
    here = finalists.run_step
    monkeypatch.setattr(
        finalists, "run_step", lambda folder, *more: "broken" if folder.name != "none" else here(folder, *more)
    )
    status, _, err = run(*words_of(config, "--seconds", 2))
    assert status == 2
    assert "test failed: broken" in err
    assert steps_here == [("none", "test"), ("none", "benchmark")]


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--reducer", "Nothing"), "--reducer Nothing is no reducer; there are ACT, "),
        (("--reducer", "lightning_expedite.reducers.Reducer"), "Reducer is no reducer; there are"),
        (("--reducer", "nowhere.Nothing"), "--reducer nowhere.Nothing cannot be imported"),
        (("--reducer", "test_recommend_search.Halving"), "declares no settings to search: add the class method"),
        (("--images", 0), "--images is 0"),
        (("--seconds", "0"), "--seconds is 0.0"),
        (("--seconds", "0.000001"), "was not enough for one setting"),
        (("--model.reducer.ratio", 0.1), "the search gives the reducer its settings"),
        (("--trainer.precision", "64-true"), "trainer.precision 64-true cannot be searched with"),
        (("--model.reducer", "ToMe"), "the search gives the reducer its settings"),
        (("--json", "x.json"), "give a goal"),
    ],
)
def test_searches_that_cannot_be_made(fails, config, more, part):
    assert part in fails(*words_of(config, *more))


def test_a_sweep_s_folder_is_refused(fails, config, tmp_path):
    write_sweep(tmp_path / "out")
    assert "holds results of a sweep" in fails(*words_of(config, "--overwrite"))
    assert (tmp_path / "out/points/none/test/results.json").exists()


def test_a_search_needs_a_config_and_a_reducer(fails, config):
    assert "--search needs --config" in fails("recommend", "--search", "--reducer", "ToMe")
    assert "--search needs --reducer" in fails("recommend", "--search", "--config", config)


def test_a_damaged_journal_is_named(tmp_path):
    (tmp_path / "journal.log").write_text("no journal\n")
    with pytest.raises(OutputError, match=r"journal\.log is damaged"):
        Study(tmp_path, SPACE, {}, 0, None)


def test_no_declared_space_is_an_error():
    with pytest.raises(ConfigError, match=r"Halving declares no settings to search.*test_recommend_search\.py"):
        search.search_space(Halving, EncoderShape(4, (8, 8)))
