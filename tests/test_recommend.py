"""``recommend`` on made-up results: what is chosen, what is refused, and what is said about it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from recommend_files import QUALITIES, counts_of, tome, write_benchmark, write_sweep, write_test

from lightning_expedite.analysis.bootstrap import bootstrap_losses

ROOT = Path(__file__).parents[1]
WEIGHTS = {"weights": {"a": "1"}, "data": {"images": 60, "sha256": "x"}}


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "sweep")


@pytest.fixture
def recommend(run, tmp_path):
    """Runs the subcommand; gives the answer as data, and what was printed."""

    def call(*words):
        status, out, err = run("recommend", *words, "--json", tmp_path / "answer.json", "--overwrite")
        assert (status, err) == (0, "")
        return json.loads((tmp_path / "answer.json").read_text()), out

    return call


def bounds():
    """Bounds of the sweep's losses, by ratio."""
    losses = bootstrap_losses(counts_of(0.9), [counts_of(quality) for quality in QUALITIES.values()])
    return dict(zip(QUALITIES, losses.upper_bounds(0.95).tolist(), strict=True)), losses


def names(verdicts):
    return [verdict["name"] for verdict in verdicts]


def test_the_fastest_whose_bound_is_within_the_limit_is_chosen(sweep, recommend):
    upper, losses = bounds()
    limit = (upper[0.2] + upper[0.3]) / 2
    content, out = recommend(sweep, "--max_loss", limit)
    chosen = content["recommended"]
    assert chosen["name"] == "tome_ratio0.2"
    assert content["reduced_setting_found"]
    assert chosen["loss"] == pytest.approx(losses.estimates[1])
    assert chosen["loss_bound_of_all"] == pytest.approx(upper[0.2])
    assert chosen["loss_interval"] == pytest.approx(list(losses.interval(1, 0.95)))
    assert chosen["probability_within"] == 1
    assert names(content["others"]) == ["tome_ratio0.1", "none"]
    assert names(content["nearest"]) == ["tome_ratio0.3", "tome_ratio0.4"]
    assert content["config"] == str(sweep.relative_to(Path.cwd()) / "points/tome_ratio0.2/point.yaml")
    assert content["commands"]["test"].startswith(f"python -m lightning_expedite test --config {content['config']} ")
    assert "recommended: ToMe ratio 0.2 (tome_ratio0.2)" in out
    assert "4 settings at once" in out


def test_an_estimate_within_the_limit_is_not_enough_unless_the_user_says_so(sweep, recommend):
    upper, losses = bounds()
    limit = (losses.estimates[2] + upper[0.3]) / 2
    content, _ = recommend(sweep, "--max_loss", limit)
    assert content["recommended"]["name"] == "tome_ratio0.2"
    assert content["nearest"][0]["name"] == "tome_ratio0.3"
    relaxed, _ = recommend(sweep, "--max_loss", limit, "--by_estimate")
    assert relaxed["recommended"]["name"] == "tome_ratio0.3"


def test_less_confidence_lets_more_through(sweep, recommend):
    _, losses = bounds()
    between = (losses.upper_bounds(0.5)[2] + losses.upper_bounds(0.95)[2]) / 2
    assert recommend(sweep, "--max_loss", between)[0]["recommended"]["name"] == "tome_ratio0.2"
    assert recommend(sweep, "--max_loss", between, "--confidence", 0.5)[0]["recommended"]["name"] == "tome_ratio0.3"


def test_where_no_reduced_setting_keeps_the_limit_that_is_said_with_the_nearest(sweep, recommend):
    content, out = recommend(sweep, "--max_loss", 0)
    assert content["recommended"]["name"] == "none"
    assert not content["reduced_setting_found"]
    assert "recommended: keep the baseline. No reduced setting meets all limits" in out
    assert "nearest: ToMe ratio 0.1 (tome_ratio0.1): may lose" in out


def test_the_best_miou_of_those_that_are_fast_enough_is_chosen(sweep, recommend):
    content, out = recommend(sweep, "--min_throughput", 130)  # at batch 4: 2000 / ms images a second
    assert content["recommended"]["name"] == "tome_ratio0.3"
    assert content["recommended"]["speed"]["low_throughput"] == pytest.approx(2000 / 14)
    assert names(content["others"]) == ["tome_ratio0.4"]
    assert content["best_share"] == 1
    assert "has the best mIoU with a probability of 100%" in out


def test_speed_is_judged_by_the_third_quartile_of_times(tmp_path, recommend):
    for ratio, quality in ((None, 0.9), (0.2, 0.89), (0.3, 0.88)):
        write_test(tmp_path / f"test_{ratio}", counts_of(quality), ratio and tome(ratio))
    write_benchmark(tmp_path / "speed", (None, 20.0), (tome(0.2), 14.0, 0.4), (tome(0.3), 14.5, 0.01))
    content, _ = recommend(tmp_path, "--min_throughput", 130)
    assert content["recommended"]["label"] == "ToMe ratio 0.3"
    assert content["nearest"][0]["misses"] == [f"{2000 / (14 * 1.2):.4g} images/s"]
    assert recommend(tmp_path, "--min_throughput", 130, "--by_estimate")[0]["recommended"]["label"] == "ToMe ratio 0.2"
    assert recommend(tmp_path, "--max_latency", 15)[0]["recommended"]["label"] == "ToMe ratio 0.3"


def test_both_goals_together_may_have_no_answer(sweep, recommend):
    content, out = recommend(sweep, "--max_loss", 0.01, "--min_throughput", 150)
    assert content["recommended"] is content["config"] is content["commands"] is None
    assert content["others"] == []
    assert "recommended: nothing; neither a reduced setting nor the baseline meets all limits" in out


def test_memory_is_a_limit_and_a_cost(tmp_path, recommend):
    for ratio, quality in ((None, 0.9), (0.2, 0.9), (0.3, 0.9)):
        write_test(tmp_path / f"test_{ratio}", counts_of(quality), ratio and tome(ratio))
    write_benchmark(tmp_path / "speed", (tome(0.2), 10.0, 0, 150.0), (tome(0.3), 12.0, 0, 90.0), device_type="cuda")
    fastest = recommend(tmp_path, "--max_loss", 1)[0]
    assert fastest["recommended"]["label"] == "ToMe ratio 0.2"
    baseline = next(verdict for verdict in fastest["others"] if verdict["reducer"] is None)
    assert baseline["speed"]["latency_ms"] == 20  # it is timed beside every setting
    for words in (("--max_memory", 100), ("--by", "memory")):
        assert recommend(tmp_path, "--max_loss", 1, *words)[0]["recommended"]["label"] == "ToMe ratio 0.3"


def test_a_setting_that_is_as_fast_and_loses_less_is_pointed_out(tmp_path, recommend):
    for ratio, quality in ((None, 0.9), (0.2, 0.895), (0.3, 0.88)):
        write_test(tmp_path / f"test_{ratio}", counts_of(quality), ratio and tome(ratio))
    write_benchmark(tmp_path / "speed", (tome(0.2), 14.2, 0.1), (tome(0.3), 14.0, 0.1))
    content, _ = recommend(tmp_path, "--max_loss", 10)
    assert content["recommended"]["label"] == "ToMe ratio 0.3"
    assert any(note.startswith("tome_0.2 is as fast as far as the benchmarks can tell") for note in content["notes"])


def test_a_slower_setting_is_not_recommended_for_its_speed(tmp_path, recommend):
    for ratio, quality in ((None, 0.9), (0.2, 0.9)):
        write_test(tmp_path / f"test_{ratio}", counts_of(quality), ratio and tome(ratio))
    write_benchmark(tmp_path / "speed", (tome(0.2), 21.0))
    content, out = recommend(tmp_path, "--max_loss", 1)
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


def test_a_reducer_that_no_longer_takes_its_settings_is_named(tmp_path, fails):
    sweep = write_sweep(tmp_path / "sweep", benchmarked=False)
    former = {"class_path": "lightning_expedite.reducers.ToMe", "init_args": {"share": 0.3}}
    write_test(sweep / "points/tome_ratio0.3/test", counts_of(0.88), former)
    message = fails("recommend", sweep, "--max_loss", 100)
    assert "the reducer lightning_expedite.reducers.ToMe of a result no longer takes its settings: " in message
    assert "'share'" in message


def test_several_environments_need_a_choice(sweep, recommend, fails):
    write_benchmark(sweep / "gpu", (None, 20.0), (tome(0.1), 2.0), (tome(0.2), 3.0), device="Test GPU")
    message = fails("recommend", sweep, "--max_loss", 5)
    assert "choose one with --environment TEXT: Test CPU, 2 threads, 32-true; Test GPU, 2 threads, 32-true" in message
    content, _ = recommend(sweep, "--max_loss", 5, "--environment", "gpu")
    assert content["environment"] == "Test GPU, 2 threads, 32-true"
    assert content["recommended"]["name"] == "tome_ratio0.1"
    assert {verdict["name"] for verdict in content["nearest"]} == {"tome_ratio0.3", "tome_ratio0.4"}
    assert content["nearest"][0]["misses"] == ["not benchmarked"]
    assert "'tpu' is part of none of the environments" in fails(
        "recommend", sweep, "--max_loss", 5, "--environment", "tpu"
    )
    assert "is part of several" in fails("recommend", sweep, "--max_loss", 5, "--environment", "test")


def left_out(content):
    return {entry["name"]: entry["reason"] for entry in content["left_out"]}


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
    reasons = left_out(content)
    assert reasons["tome_ratio0.1"] == "the weights changed between the runs (a)"
    assert reasons["tome_ratio0.2"] == "images or labels changed between the runs (60 of 60, such as image_0)"
    assert reasons["tome_ratio0.3"] == "tested with convention None, the baseline with mmseg"
    assert reasons["tome_0.45"] == "not tested: its scores are not known"
    assert reasons["broken"] == "test: no memory"


def test_a_setting_scored_on_some_images_is_compared_with_the_baseline_on_these(sweep, recommend):
    some = [f"image_{number}" for number in range(20, 60)]
    part, whole = counts_of(0.83).select(some), counts_of(0.9)
    write_test(sweep / "points/tome_ratio0.4/test", part, tome(0.4), complete=False, images_total=60)
    content, _ = recommend(sweep, "--max_loss", 100)
    assert content["recommended"]["name"] == "tome_ratio0.4"
    assert content["recommended"]["loss"] == pytest.approx(whole.select(some).miou - part.miou)
    assert content["recommended"]["loss"] != pytest.approx(whole.miou - part.miou, abs=1e-3)
    assert "tome_ratio0.4 is compared on the 40 images that the baseline has too, of 60" in content["warnings"]
    low, high = content["recommended"]["loss_interval"]
    assert low < content["recommended"]["loss"] < high
    assert {verdict["name"]: verdict["loss"] for verdict in content["others"]}["tome_ratio0.3"] == pytest.approx(
        whole.miou - counts_of(0.88).miou
    )


def test_reservations_are_named(sweep, recommend):
    from recommend_files import ENVIRONMENT

    write_test(
        sweep / "points/tome_ratio0.2/test",
        counts_of(0.894),
        tome(0.2),
        environment={**ENVIRONMENT, "precision": "bf16-true"},
    )
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
        (("--search", "--max_loss", "1"), "search needs --config, a config without a reducer"),
    ],
)
def test_options_that_cannot_be_used(sweep, fails, words, part):
    assert part in fails("recommend", sweep, *words)


def test_usage_errors(sweep, fails):
    assert "unknown option --nothing" in fails("recommend", sweep, "--nothing")
    assert "by is luck: expected one of latency, throughput, gflops, memory" in fails(
        "recommend", sweep, "--max_loss", "1", "--by", "luck"
    )


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
    assert "does not exist" in fails("recommend", tmp_path / "nowhere", "--max_loss", 1)
    assert "recommend needs results" in fails("recommend", "--max_loss", 1)
    reduced = sweep / "points/tome_ratio0.1"
    assert "there is no test of the baseline demo" in fails("recommend", reduced, "--max_loss", 1)
    assert "benchmarks but no test" in fails("recommend", reduced / "benchmark", "--max_loss", 1)
    file = reduced / "benchmark/benchmark.json"
    content = json.loads(file.read_text())
    whole = file.read_text()
    del content["rows"][0]["throughput"]["seconds"]
    file.write_text(json.dumps(content))
    assert "benchmark.json: a row lacks its 'seconds': run benchmark again" in fails(
        "recommend", sweep, "--min_throughput", 1
    )
    file.write_text(whole)
    data = {"class_path": "lightning_expedite.data.CamVid", "init_args": {}}
    config = {"data": data, "model": {"checkpoint": "demo", "reducer": None}}
    write_test(tmp_path / "other", counts_of(0.8), None, config=config)
    message = fails("recommend", sweep, tmp_path / "other", "--max_loss", 1)
    assert "several models or data sets (demo on CamVid; demo on Demo)" in message


def test_files_are_not_replaced_unless_that_is_said(sweep, run, fails, tmp_path):
    words = ("recommend", sweep, "--max_loss", "100", "--write_config", tmp_path / "chosen.yaml")
    assert run(*words)[0] == 0
    config = yaml.safe_load((tmp_path / "chosen.yaml").read_text())
    assert config["model"] == {"checkpoint": "demo", "reducer": tome(0.4)}
    assert "chosen.yaml exists already; use --overwrite" in fails(*words)
    assert run(*words, "--overwrite")[0] == 0


def test_an_answer_needs_no_torch_and_help_is_there_at_once(tmp_path):
    sweep = write_sweep(tmp_path / "sweep")
    program = (
        "import sys\n"
        "for name in ('torch', 'pytorch_lightning', 'optuna'): sys.modules[name] = None\n"
        "from lightning_expedite.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "recommend"]
    for words in ((str(sweep), "--max_loss", "5"), ("--help",)):
        start = time.perf_counter()
        answer = subprocess.run([*command, *words], capture_output=True, text=True, check=False, cwd=ROOT)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert time.perf_counter() - start < 10
    failed = subprocess.run([*command, str(sweep)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
