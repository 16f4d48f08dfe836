"""Searches: ranges of settings, trials of the study, finalists, and all of it on a small data set."""

import json
import time
from pathlib import Path

import optuna
import pytest
import yaml
from recommend_files import write_sweep
from sweep_run import QUICK, QUICK_WORDS, steps_here  # noqa: F401 (a fixture)

from lightning_expedite.errors import OutputError
from lightning_expedite.reducers import ACT, EncoderShape, EViT, Reducer, Reduction, TokenClustering, ToMe
from lightning_expedite.reducers.spaces import FloatRange, GridRange, IntRange, LayerChoice
from lightning_expedite.search.search import Study, Subset, Tried, choose_finalists, spread


class Halving(Reducer):
    """Has a setting, but no search space."""

    def __init__(self, step: int = 2) -> None:
        self.step = step

    def start(self, layout):
        return Reduction(layout)


class Extreme:
    """A trial that always suggests the lowest or the highest."""

    def __init__(self, highest):
        self.highest = highest

    def suggest_int(self, name, low, high, *, step=1):
        return high if self.highest else low

    suggest_float = suggest_int


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [
        (ToMe, {"ratio": 0.05}, {"ratio": 0.5}),
        (EViT, {"locations": (1,), "keep_rate": 0.3}, {"locations": (11,), "keep_rate": 0.95}),
        (ACT, {"query_hashes": 8}, {"query_hashes": 32}),
        (TokenClustering, {"location": 1, "clusters": (4, 6)}, {"location": 11, "clusters": (16, 24)}),
    ],
)
def test_search_spaces_follow_from_the_encoder(kind, lowest, highest):
    encoder = EncoderShape(12, (16, 24))
    space = kind.search_space(encoder)
    for end, expected in ((False, lowest), (True, highest)):
        settings = {name: values.suggest(Extreme(end), name) for name, values in space.items()}
        assert settings == expected
        kind(**settings).check(encoder)


def test_all_values_of_the_spaces_suit_the_reducers():
    encoder = EncoderShape(4, (9, 5))
    for kind in (ToMe, EViT, ACT, TokenClustering):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(60):
            trial = study.ask()
            settings = {name: values.suggest(trial, name) for name, values in kind.search_space(encoder).items()}
            kind(**settings).check(encoder)


def test_layers_and_images_are_spaced_and_within_the_range():
    trial = optuna.trial.FixedTrial({"x_first": 3, "x_gap": 2, "x_count": 3})
    assert LayerChoice(1, 11).suggest(trial, "x") == (3, 5, 7)
    trial = optuna.trial.FixedTrial({"x_first": 5, "x_gap": 1, "x_count": 3})
    assert LayerChoice(1, 6).suggest(trial, "x") == (5, 6)
    assert GridRange(2, (10, 5)).suggest(optuna.trial.FixedTrial({"x_rows": 7}), "x") == (7, 4)
    assert [spread(100, 4), spread(3, 10), spread(7, 7)] == [[12, 37, 62, 87], [0, 1, 2], list(range(7))]


def test_finalists_are_on_the_front_and_around_the_limit():
    def tried(ratio, loss, gflops):
        return Tried({"ratio": ratio}, 80 - loss, loss, gflops)

    points = [tried(0.1, 0.1, 9), tried(0.2, 0.3, 8), tried(0.25, 0.5, 8.5), tried(0.3, 0.6, 6), tried(0.4, 2.0, 4)]

    def ratios(count, max_loss):
        return [chosen.settings["ratio"] for chosen in choose_finalists(points, count, max_loss)]

    assert ratios(3, 0.7) == [0.3, 0.2, 0.4]
    assert ratios(2, 0.05) == [0.1, 0.2]
    assert ratios(9, 9.0) == [0.4, 0.3, 0.2, 0.1]  # 0.25 loses more than 0.2 and costs more
    assert ratios(3, None) == [0.4, 0.2, 0.1]
    assert ratios(1, None) == [0.4]
    assert choose_finalists([], 3, 1.0) == []


SPACE = {"ratio": FloatRange(0.05, 0.5, 0.05)}  # ten values


def made_up(settings, end):
    return Tried(settings, 80 - 10 * settings["ratio"], 10 * settings["ratio"], 5 - settings["ratio"])


def ratios_of(study):
    return [tried.settings["ratio"] for tried in study.tried]


def stopping(count):
    """Return what evaluates so many settings, and is interrupted by the next one."""
    done = []

    def evaluate(settings, end):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(settings)
        return made_up(settings, end)

    return evaluate


def test_an_interrupted_study_goes_on_and_ends_when_nothing_new_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Study(tmp_path, SPACE, {"images": [1]}).run(stopping(3), 60)
    study = Study(tmp_path, SPACE, {"images": [1]})
    assert len(study.tried) == 3
    study.run(made_up, 60)
    assert len(set(ratios_of(study))) == len(study.tried) >= 8
    small = Study(tmp_path / "small", {"hashes": IntRange(8, 10)}, {})
    small.run(lambda settings, end: Tried(settings, 1.0, 0.0, 1.0), 60)
    assert sorted(tried.settings["hashes"] for tried in small.tried) == [8, 9, 10]
    waits = []
    killed = Study(tmp_path / "killed", SPACE, {})
    killed._study.ask()  # whoever asked holds no lock
    killed.run(made_up, 0, lambda: waits.append(True))
    assert [trial.state.name for trial in killed._study.trials] == ["FAIL"]
    assert waits == [True]


def test_workers_share_the_trials_and_other_inputs_are_refused_until_they_end(tmp_path):
    inputs = {"images": [1], "max_loss": None}
    space = {"ratio": FloatRange(0.05, 0.5, 0.001)}
    study, other = Study(tmp_path, space, inputs), Study(tmp_path, space, inputs)
    met = []

    def evaluate(settings, end):
        if not met:
            met.append(True)
            with pytest.raises(OutputError, match=r"with other settings \(images \[1\] instead of \[2\]\)"):
                Study(tmp_path, space, {**inputs, "images": [2]}, overwrite=True)
            with pytest.raises(KeyboardInterrupt):
                other.run(stopping(2), 60)
        return made_up(settings, end)

    with pytest.raises(KeyboardInterrupt):
        study.run(lambda settings, end: evaluate(settings, end) if len(met) < 1 else interrupt(), 60)
    assert len(set(ratios_of(study))) == len(study.tried) == 3
    assert study.tried == other.tried
    with pytest.raises(OutputError, match="another --output, or --overwrite"):
        Study(tmp_path, space, {**inputs, "images": [2]})
    assert Study(tmp_path, space, {**inputs, "images": [2]}, overwrite=True).tried == []


def interrupt():
    raise KeyboardInterrupt


def test_the_budget_is_kept_over_several_calls(tmp_path):
    def slow(settings, end):
        time.sleep(min(0.2, max(end - time.perf_counter(), 0)))
        return made_up(settings, end) if time.perf_counter() < end else None

    start = time.perf_counter()
    Study(tmp_path, SPACE, {}).run(slow, 1.0)
    assert time.perf_counter() - start > 0.9
    study = Study(tmp_path, SPACE, {})
    before = len(study.tried)
    assert 1 <= before <= 5
    study.run(slow, 1.0)
    assert len(study.tried) <= before + 1
    study.run(slow, 2.0)
    assert len(study.tried) > before


def test_the_limit_of_the_loss_steers_the_study(tmp_path):
    found = {}
    for limit in (None, 0.9):
        study = Study(tmp_path / str(limit), {"ratio": FloatRange(0.05, 0.5, 0.001)}, {"max_loss": limit})
        with pytest.raises(KeyboardInterrupt):
            study.run(stopping(30), 60)
        found[limit] = sum(ratio <= 0.09 for ratio in ratios_of(study)[10:])
    assert found[0.9] > found[None]


def test_the_subset_is_scored_and_counted_as_by_test_and_benchmark(run, config):
    from lightning_expedite.cli.test import ScoringCLI

    words = ("--config", config, "--model.reducer", "ToMe", "--model.reducer.ratio", 0.3)
    assert run("test", *words, "--output", "tested")[0] == 0
    quick = [word for name, value in QUICK for word in (f"--{name}", value)]
    assert run("benchmark", *words, *quick, "--device", "cpu", "--output", "timed")[0] == 0
    tested = json.loads(Path("tested/results.json").read_text())
    timed = json.loads(Path("timed/benchmark.json").read_text())
    cli = ScoringCLI(["--config", str(config)])
    subset = Subset(cli.model, cli.datamodule, 9, cli.trainer.strategy.root_device, "32-true")
    assert (subset.positions, subset.total) == ([0, 1, 2, 3], 4)
    assert subset.miou(ToMe(0.3)) == tested["scores"]["mIoU"]
    assert subset.gflops(ToMe(0.3)) == timed["rows"][0]["gflops"]["reduced"]
    assert 0 < subset.gflops(ACT(32)) < 1.5 * subset.gflops(None)
    assert subset.miou(None, end=0) is None


def words_of(config, *more, command=("search",)):
    words = (*command, "--config", config, "--output", "out", "--reducer", "EViT", "--images", 2)
    return (*words, "--finalists", 2, *QUICK_WORDS, *more)


def test_a_search_leaves_what_a_sweep_leaves(run, fails, config, steps_here):  # noqa: F811
    status, printed, err = run(*words_of(config, "--seconds", 2, "--max_loss", 90))
    assert status == 0, err
    assert "points, " in printed
    content = json.loads(Path("out/sweep.json").read_text())
    assert content["kind"] == "sweep"
    names = [point["name"] for point in content["points"]]
    assert 2 <= len(names) <= 3
    assert steps_here == [(name, step) for name in names for step in ("test", "benchmark")]
    point = yaml.safe_load(Path(f"out/points/{names[1]}/point.yaml").read_text())
    assert point["model"]["reducer"]["class_path"] == "lightning_expedite.reducers.EViT"
    assert point["model"]["reducer"]["init_args"]["keep_rate"] < 1
    assert names[0] == "none"
    assert json.loads(Path(f"out/points/{names[1]}/test/results.json").read_text())["images"] == 4  # all of them

    steps_here.clear()
    command = ("recommend", "--search")  # the former name, with the answer in the same call
    status, printed, err = run(*words_of(config, "--seconds", 2, "--max_loss", 90, "--json", "a.json", command=command))
    assert (status, steps_here) == (0, [])
    assert "deprecated: use search" in err
    assert "recommended: " in printed
    assert json.loads(Path("a.json").read_text())["settings_compared"] == len(names) - 1
    message = fails(*words_of(config, "--max_loss", 90, "--images", 3))
    assert "has a search with other settings (images" in message


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--reducer", "Nothing"), "'Nothing' is not a reducer: choose ACT, "),
        (("--reducer", "nowhere.Nothing"), "reducer 'nowhere.Nothing' cannot be imported"),
        (("--reducer", "test_search.Halving"), "declares no settings to search: add the class method"),
        (("--images", 0), "--images is 0"),
        (("--finalists", 0), "--finalists is 0"),
        (("--max_loss", -1), "--max_loss is -1"),
        (("--seconds", "0"), "--seconds is 0.0"),
        (("--seconds", "0.000001"), "was not enough for one setting"),
        (("--model.reducer.ratio", 0.1), "search sets the reducer"),
        (("--trainer.precision", "64-true", "--benchmark.precision", "64-true"), "precision"),
        (("--grid", "a.yaml"), "--grid"),
    ],
)
def test_searches_that_cannot_be_made(fails, config, steps_here, more, expected):  # noqa: F811
    assert expected in fails(*words_of(config, *more))


def test_a_sweeps_folder_is_refused(fails, config, tmp_path, steps_here):  # noqa: F811
    write_sweep(tmp_path / "out")
    assert "holds results of a sweep" in fails(*words_of(config, "--overwrite"))
    assert (tmp_path / "out/points/none/test/results.json").exists()


def test_a_search_needs_a_config_and_a_reducer(fails, config):
    for words in (("--reducer", "ToMe"), ("--config", config)):
        assert "search needs --config, a config without a reducer, and --reducer" in fails("search", *words)
