"""``recommend`` on made-up results: what is chosen, what is refused, and what is said about it."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from recommend_files import ENVIRONMENT, QUALITIES, counts_of, tome, write_benchmark, write_sweep, write_test

from lightning_expedite.analysis.bootstrap import bootstrap_losses

ROOT = Path(__file__).parents[1]
WEIGHTS = {"weights": {"a": "1"}, "data": {"images": 60, "sha256": "x"}}
COMPARED = "settings that meet the limits this one has the best mIoU with a probability of 100%"


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("recommend") / "sweep")


@pytest.fixture
def sweep(written, tmp_path):
    return shutil.copytree(written, tmp_path / "sweep")


@pytest.fixture
def recommend(run, tmp_path):
    """Runs the subcommand; gives the answer as data, and what was printed."""

    def call(*words):
        status, out, err = run("recommend", *words, "--json", tmp_path / "answer.json", "--overwrite")
        assert (status, err) == (0, "")
        return json.loads((tmp_path / "answer.json").read_text()), out

    return call


@pytest.fixture
def settings(tmp_path):
    """Writes tests of ToMe with ratios of some qualities, and benchmarks of them; returns the folder."""

    def write(qualities, *rows, **environment):
        for ratio, quality in {None: 0.9, **qualities}.items():
            write_test(tmp_path / f"test_{ratio}", counts_of(quality), ratio and tome(ratio))
        write_benchmark(tmp_path / "speed", *((ratio and tome(ratio), *times) for ratio, *times in rows), **environment)
        return tmp_path

    return write


@pytest.fixture(scope="session")
def losses():
    return bootstrap_losses(counts_of(0.9), [counts_of(quality) for quality in QUALITIES.values()])


def names(verdicts):
    return [verdict["name"] for verdict in verdicts]


def test_the_fastest_whose_bound_is_within_the_limit_is_chosen(sweep, recommend, losses):
    upper = losses.upper_bounds(0.95)
    content, out = recommend(sweep, "--max_loss", (upper[1] + upper[2]) / 2)
    chosen = content["recommended"]
    assert chosen["name"] == "tome_ratio0.2"
    assert content["reduced_setting_found"]
    assert chosen["loss"] == pytest.approx(losses.estimates[1])
    assert chosen["loss_bound_of_all"] == pytest.approx(upper[1])
    assert chosen["loss_interval"] == pytest.approx(list(losses.interval(1, 0.95)))
    assert chosen["probability_within"] == 1
    assert names(content["others"]) == ["tome_ratio0.1", "none"]
    assert names(content["nearest"]) == ["tome_ratio0.3", "tome_ratio0.4"]
    assert content["config"] == str(sweep.relative_to(Path.cwd()) / "points/tome_ratio0.2/point.yaml")
    assert content["commands"]["test"].startswith(f"python -m lightning_expedite test --config {content['config']} ")
    assert "recommended: ToMe ratio 0.2 (tome_ratio0.2)" in out
    assert "4 settings at once" in out


def test_limits_are_judged_by_bounds_at_a_confidence_unless_the_user_says_otherwise(sweep, recommend, losses):
    strict, loose = (losses.upper_bounds(confidence)[2] for confidence in (0.95, 0.5))
    estimate = losses.estimates[2]
    for limit, words, name in (
        ((estimate + strict) / 2, (), "tome_ratio0.2"),
        ((estimate + strict) / 2, ("--by_estimate",), "tome_ratio0.3"),
        ((loose + strict) / 2, (), "tome_ratio0.2"),
        ((loose + strict) / 2, ("--confidence", 0.5), "tome_ratio0.3"),
    ):
        content, _ = recommend(sweep, "--max_loss", limit, *words)
        assert content["recommended"]["name"] == name
        assert content["nearest"][0]["name"] == ("tome_ratio0.3" if not words else "tome_ratio0.4")


def test_the_baseline_is_kept_or_nothing_recommended_where_no_setting_meets_the_limits(sweep, recommend):
    content, out = recommend(sweep, "--max_loss", 0)
    assert content["recommended"]["name"] == "none"
    assert not content["reduced_setting_found"]
    assert "recommended: keep the baseline. No reduced setting meets all limits" in out
    assert "nearest: ToMe ratio 0.1 (tome_ratio0.1): may lose" in out
    content, out = recommend(sweep, "--max_loss", 0.01, "--min_throughput", 150)
    assert content["recommended"] is content["config"] is content["commands"] is None
    assert content["others"] == []
    assert "recommended: nothing; neither a reduced setting nor the baseline meets all limits" in out


def test_the_best_miou_of_those_that_are_fast_enough_is_chosen(sweep, recommend):
    content, out = recommend(sweep, "--min_throughput", 130)  # at batch 4: 2000 / ms images a second
    assert content["recommended"]["name"] == "tome_ratio0.3"
    assert content["recommended"]["speed"]["low_throughput"] == pytest.approx(2000 / 14)
    assert names(content["others"]) == ["tome_ratio0.4"]
    assert content["best_share"] == 1
    assert COMPARED in out


def test_speed_is_judged_by_the_third_quartile_of_times(settings, recommend):
    folder = settings({0.2: 0.89, 0.3: 0.88}, (None, 20.0), (0.2, 14.0, 0.4), (0.3, 14.5, 0.01))
    content, _ = recommend(folder, "--min_throughput", 130)
    assert content["recommended"]["label"] == "ToMe ratio 0.3"
    assert content["nearest"][0]["misses"] == [f"{2000 / (14 * 1.2):.4g} images/s"]
    assert recommend(folder, "--min_throughput", 130, "--by_estimate")[0]["recommended"]["label"] == "ToMe ratio 0.2"
    assert recommend(folder, "--max_latency", 15)[0]["recommended"]["label"] == "ToMe ratio 0.3"


def test_memory_is_a_limit_and_a_cost(settings, recommend):
    folder = settings({0.2: 0.9, 0.3: 0.9}, (0.2, 10.0, 0, 150.0), (0.3, 12.0, 0, 90.0), device_type="cuda")
    fastest = recommend(folder, "--max_loss", 1)[0]
    assert fastest["recommended"]["label"] == "ToMe ratio 0.2"
    baseline = next(verdict for verdict in fastest["others"] if verdict["reducer"] is None)
    assert baseline["speed"]["latency_ms"] == 20  # it is timed beside every setting
    for words in (("--max_memory", 100), ("--by", "memory")):
        assert recommend(folder, "--max_loss", 1, *words)[0]["recommended"]["label"] == "ToMe ratio 0.3"


def test_a_setting_that_is_as_fast_and_loses_less_is_pointed_out(settings, recommend):
    content, _ = recommend(settings({0.2: 0.895, 0.3: 0.88}, (0.2, 14.2, 0.1), (0.3, 14.0, 0.1)), "--max_loss", 10)
    assert content["recommended"]["label"] == "ToMe ratio 0.3"
    assert any(note.startswith("tome_0.2 is as fast as far as the benchmarks can tell") for note in content["notes"])


def test_a_slower_setting_is_not_recommended_for_its_speed(settings, recommend):
    content, out = recommend(settings({0.2: 0.9}, (0.2, 21.0)), "--max_loss", 1)
    assert content["recommended"]["name"] == "test_None"
    assert "recommended: keep the baseline. No setting within the limits is faster" in out


def test_without_any_benchmark_gflops_decide(tmp_path, recommend, fails):
    sweep = write_sweep(tmp_path / "sweep", benchmarked=False)
    content, out = recommend(sweep, "--max_loss", 100)
    assert content["goal"]["by"] == "gflops"
    assert content["recommended"]["name"] == "tome_ratio0.4"
    assert content["recommended"]["gflops"] < content["others"][0]["gflops"] < content["others"][-1]["gflops"]
    assert "nothing was benchmarked: fastest means the fewest GFLOPs" in out
    assert "--min_throughput needs times or memory" in fails("recommend", sweep, "--min_throughput", 30)
    former = tome(0.3) | {"init_args": {"share": 0.3}}
    write_test(sweep / "points/tome_ratio0.3/test", counts_of(0.88), former)
    message = fails("recommend", sweep, "--max_loss", 100)
    assert "the reducer lightning_expedite.reducers.ToMe of a result no longer takes its settings: " in message
    assert "'share'" in message


def test_several_environments_need_a_choice(sweep, recommend, fails):
    write_benchmark(sweep / "gpu", (None, 20.0), (tome(0.1), 2.0), (tome(0.2), 3.0), device="Test GPU")
    for words, part in (
        ((), "choose one with --environment TEXT: Test CPU, 2 threads, 32-true; Test GPU, 2 threads, 32-true"),
        (("--environment", "tpu"), "'tpu' is part of none of the environments"),
        (("--environment", "test"), "is part of several"),
    ):
        assert part in fails("recommend", sweep, "--max_loss", 5, *words)
    content, _ = recommend(sweep, "--max_loss", 5, "--environment", "gpu")
    assert content["environment"] == "Test GPU, 2 threads, 32-true"
    assert content["recommended"]["name"] == "tome_ratio0.1"
    assert set(names(content["nearest"])) == {"tome_ratio0.3", "tome_ratio0.4"}
    assert content["nearest"][0]["misses"] == ["not benchmarked"]


def test_what_cannot_be_compared_is_left_out_by_name(sweep, recommend):
    points = sweep / "points"
    write_test(points / "tome_ratio0.1/test", counts_of(0.899), tome(0.1), run=WEIGHTS | {"weights": {"a": "other"}})
    write_test(points / "none/test", counts_of(0.9), None, run=WEIGHTS)
    write_test(points / "tome_ratio0.2/test", counts_of(0.894, seed=1), tome(0.2))
    write_test(points / "tome_ratio0.3/test", counts_of(0.88), tome(0.3), protocol={"window": 64})
    (points / "broken").mkdir()
    (points / "broken/failed.json").write_text(json.dumps({"step": "test", "error": "no memory"}))
    write_benchmark(sweep / "more", (tome(0.45), 8.0))
    content, _ = recommend(sweep, "--max_loss", 100)
    assert content["recommended"]["name"] == "tome_ratio0.4"
    assert {entry["name"]: entry["reason"] for entry in content["left_out"]} == {
        "tome_ratio0.1": "the weights changed between the runs (a)",
        "tome_ratio0.2": "images or labels changed between the runs (60 of 60, such as image_0)",
        "tome_ratio0.3": "tested with convention None, the baseline with mmseg",
        "tome_0.45": "not tested: its scores are not known",
        "broken": "test: no memory",
    }


def test_a_setting_scored_on_some_images_is_compared_with_the_baseline_on_these(sweep, recommend):
    some = [f"image_{number}" for number in range(20, 60)]
    part, whole = counts_of(0.83).select(some), counts_of(0.9)
    write_test(sweep / "points/tome_ratio0.4/test", part, tome(0.4), complete=False, images_total=60)
    content, _ = recommend(sweep, "--max_loss", 100)
    chosen = content["recommended"]
    assert chosen["name"] == "tome_ratio0.4"
    assert chosen["loss"] == pytest.approx(whole.select(some).miou - part.miou)
    assert chosen["loss"] != pytest.approx(whole.miou - part.miou, abs=1e-3)
    assert "tome_ratio0.4 is compared on the 40 images that the baseline has too, of 60" in content["warnings"]
    assert chosen["loss_interval"][0] < chosen["loss"] < chosen["loss_interval"][1]
    others = {verdict["name"]: verdict["loss"] for verdict in content["others"]}
    assert others["tome_ratio0.3"] == pytest.approx(whole.miou - counts_of(0.88).miou)


def test_reservations_are_named(sweep, recommend):
    precise = ENVIRONMENT | {"precision": "bf16-true"}
    write_test(sweep / "points/tome_ratio0.2/test", counts_of(0.894), tome(0.2), environment=precise)
    write_test(sweep / "points/none/test", counts_of(0.9), None, complete=False, images_total=90)
    content, out = recommend(sweep, "--max_loss", 100)
    assert "Scores differ in precision: 32-true, bf16-true." in content["warnings"]
    assert "warning: Scores of only some of the data set's images: baseline." in out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "recommend needs a goal"),
        (("--max_loss", "-1"), "--max_loss is -1.0: it must be 0 or more"),
        (("--max_loss", "nan"), "max_loss is nan"),
        (("--min_throughput", "0"), "--min_throughput is 0.0: it must be above 0"),
        (("--max_loss", "1", "--confidence", "1"), "--confidence is 1.0"),
        (("--max_loss", "1", "--environment", "GPU"), "'GPU' is part of none of the environments: Test CPU"),
        (("--max_loss", "1", "--by", "luck"), "by is luck: expected one of latency, throughput, gflops, memory"),
        (("--search", "--max_loss", "1"), "search needs --config, a config without a reducer"),
        (("--nothing",), "unknown option --nothing"),
    ],
)
def test_options_that_cannot_be_used(written, fails, words, part):
    assert part in fails("recommend", written, *words)


def test_the_deprecated_search_is_handed_on_to_the_command(sweep, run, monkeypatch):
    searched = []
    command = SimpleNamespace(run=lambda words: searched.append(words) or 0)
    monkeypatch.setitem(sys.modules, "lightning_expedite.cli.search", command)
    own = ("--max_loss", 100, "--confidence", 0.9)
    words = ("--search", *own, "--config", "none.yaml", "--reducer", "ToMe", "--data.count", "4", "--output", sweep)
    status, out, err = run("recommend", *words)
    assert status == 0
    assert "--search is deprecated" in err
    assert "recommended: ToMe ratio 0.4" in out
    words = ["--max_loss", "100", "--config", "none.yaml", "--reducer", "ToMe", "--data.count", "4", "--output"]
    assert searched == [[*words, str(sweep)]]


def test_results_that_cannot_be_used(tmp_path, sweep, fails):
    reduced = sweep / "points/tome_ratio0.1"
    camvid = {"class_path": "lightning_expedite.data.CamVid", "init_args": {}}
    config = {"data": camvid, "model": {"checkpoint": "demo", "reducer": None}}
    write_test(tmp_path / "other", counts_of(0.8), None, config=config)
    for paths, part in (
        ([tmp_path / "nowhere"], "does not exist"),
        ([], "recommend needs results"),
        ([reduced], "there is no test of the baseline demo"),
        ([reduced / "benchmark"], "benchmarks but no test"),
        ([sweep, tmp_path / "other"], "several models or data sets (demo on CamVid; demo on Demo, split val)"),
    ):
        assert part in fails("recommend", *paths, "--max_loss", 1)
    file = reduced / "benchmark/benchmark.json"
    content = json.loads(file.read_text())
    del content["rows"][0]["throughput"]["seconds"]
    file.write_text(json.dumps(content))
    message = fails("recommend", sweep, "--min_throughput", 1)
    assert "benchmark.json: a row lacks its 'seconds': run benchmark again" in message


def test_files_are_not_replaced_unless_that_is_said(written, run, fails, tmp_path):
    words = ("recommend", written, "--max_loss", "100", "--write_config", tmp_path / "chosen.yaml")
    assert run(*words)[0] == 0
    config = yaml.safe_load((tmp_path / "chosen.yaml").read_text())
    assert config["model"].items() >= {"checkpoint": "demo", "reducer": tome(0.4)}.items()
    assert "chosen.yaml exists already; use --overwrite" in fails(*words)
    assert run(*words, "--overwrite")[0] == 0


def test_an_answer_needs_no_torch_and_help_is_there_at_once(written):
    program = (
        "import sys\n"
        "for name in ('torch', 'pytorch_lightning', 'optuna'): sys.modules[name] = None\n"
        "from lightning_expedite.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for words, status in (((written, "--max_loss", "5"), 0), (("--help",), 0), ((written,), 2)):
        start = time.perf_counter()
        command = [sys.executable, "-c", program, "recommend", *map(str, words)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (answer.returncode, answer.stderr.count("\n")) == (status, 1 if status else 0)
        assert time.perf_counter() - start < 10
