"""The scripts that time the published rows on a CPU and on a GPU."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_scripts import DOCS, RESULTS, ROOT, made_up, made_up_row, rows, table_lines

# --- rows.py -----------------------------------------------------------------------------------------


def test_the_calls_name_exactly_the_36_reduced_configs():
    names = [name for _, some, _ in rows.groups() for name in some]
    reduced = {
        path.stem
        for prefix, _ in rows.WINDOWS.values()
        for path in (ROOT / "configs").glob(f"{prefix}_*.yaml")
        if path.stem != f"{prefix}_none"
    }
    assert len(names) == 36
    assert set(names) == reduced
    published = json.loads(rows.PUBLISHED.read_text())["rows"]
    gflops = {rows.config_of(data_set, row): row["gflops"] for data_set in published for row in published[data_set][1:]}
    assert gflops.keys() == reduced
    for _, some, act_gflops in rows.groups():
        act = [name for name in some if "_act_" in name]
        assert act_gflops == (gflops[act[0]] if act else None)
        assert len(act) in (0, len(some))


@pytest.fixture
def benchmarked(monkeypatch, tmp_path):
    """rows.py with a stand-in for the benchmark; gives what runs it and the words of the calls it made."""
    calls = []

    def benchmark(words):
        calls.append(words)
        configs = [Path(word).stem for before, word in itertools.pairwise(words) if before == "--config"]
        failing = [name for name in configs if name in benchmark.fail]
        content = made_up(
            *(made_up_row(name, 1.5, 1.4) for name in configs if name not in failing), **benchmark.environment
        )
        content["settings"]["configs"] = configs
        folder = Path(words[words.index("--output") + 1])
        if content["rows"]:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "benchmark.json").write_text(json.dumps(content))
        return 2 if failing else 0

    benchmark.fail, benchmark.environment = (), {}
    monkeypatch.setattr(rows, "command_line", benchmark)
    output = tmp_path / "results" / "some.json"

    def run(*words, fail=(), **environment):
        benchmark.fail, benchmark.environment = fail, environment
        calls.clear()
        rows.main(["--output", str(output), *words])
        return [row["config"] for row in json.loads(output.read_text())["rows"]]

    run.calls, run.output = calls, output
    return run


def test_rows_that_are_there_already_are_kept(benchmarked):
    assert benchmarked("--only", "ade_ours_h10", "ade_act_q32", "--device", "cpu") == ["ade_ours_h10", "ade_act_q32"]
    assert len(benchmarked.calls) == 2
    assert all(call[call.index("--device") + 1] == "cpu" for call in benchmarked.calls)
    assert "--act_gflops" not in benchmarked.calls[0]
    assert benchmarked.calls[1][benchmarked.calls[1].index("--act_gflops") + 1] == "611.06"
    found = benchmarked("--only", "ade_ours_h10", "ade_ours_h8", commit="decade")
    assert found == ["ade_ours_h10", "ade_act_q32", "ade_ours_h8"]
    assert len(benchmarked.calls) == 1
    content = json.loads(benchmarked.output.read_text())
    assert [row["commit"] for row in content["rows"]] == ["c0ffee", "c0ffee", "decade"]
    assert "configs" not in content["settings"]
    assert not benchmarked.output.with_suffix(".part").exists()


def test_a_failing_row_does_not_cost_the_others(benchmarked):
    with pytest.raises(SystemExit, match="not measured: ade_ours_h8"):
        benchmarked("--only", "ade_ours_h10", "ade_ours_h8", "ade_evit_k80", fail=("ade_ours_h8",))
    assert benchmarked("--only", "ade_ours_h10") == ["ade_ours_h10", "ade_evit_k80"]
    assert benchmarked.calls == []


def test_rows_of_a_call_that_was_killed_are_taken_up(benchmarked):
    part = benchmarked.output.with_suffix(".part")
    part.mkdir(parents=True)
    left = made_up(made_up_row("ade_ours_h16", 1.2, 1.1))
    left["settings"]["configs"] = ["ade_ours_h16", "ade_ours_h10"]
    (part / "benchmark.json").write_text(json.dumps(left))
    assert benchmarked("--only", "ade_ours_h16", "ade_ours_h10") == ["ade_ours_h16", "ade_ours_h10"]
    assert len(benchmarked.calls) == 1


def test_rows_of_two_machines_do_not_share_a_file(benchmarked):
    benchmarked("--only", "ade_ours_h10")
    with pytest.raises(SystemExit, match="device Some Processor and Another"):
        benchmarked("--only", "ade_ours_h8", device="Another")


def test_names_that_are_no_rows_are_refused(benchmarked, capsys):
    with pytest.raises(SystemExit):
        benchmarked("--only", "ade_ours_h10", "ade_ours_h99")
    assert "--only names no row: ade_ours_h99" in capsys.readouterr().err


# --- gpu.sh ------------------------------------------------------------------------------------------

STAND_IN = """#!/usr/bin/env bash
if [ "$1" = -c ]; then echo Some_Card; exit; fi
echo "$@" >> "$LOG"
if [ "$1" = benchmarks/rows.py ]; then mkdir -p "$RESULTS"; echo "{}" > "$RESULTS/Some_Card.json"; fi
if [ "$1" = "$FAILING" ]; then exit 3; fi
"""


@pytest.fixture
def gpu_script(tmp_path):
    """Runs gpu.sh with a stand-in for Python; gives its status, output and the commands that Python was given."""
    stand_in, log, tables = tmp_path / "python", tmp_path / "log", tmp_path / "docs" / "tables"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    tables.mkdir(parents=True)
    (tables / "efficiency_Some_Card.md").write_text("the table\n")
    folders = {"RESULTS": str(tmp_path / "results"), "DOCS": str(tmp_path / "docs")}

    def run(*words, failing="", **variables):
        log.write_text("")
        environment = {
            **os.environ,
            **folders,
            "PYTHON": str(stand_in),
            "LOG": str(log),
            "FAILING": failing,
            **variables,
        }
        command = ["bash", ROOT / "benchmarks" / "gpu.sh", *words]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return answer.returncode, answer.stdout, log.read_text().splitlines()

    return run


def test_a_gpu_run_tests_measures_one_row_of_each_method_first_and_draws(gpu_script):
    status, out, commands = gpu_script("--seconds", "20")
    assert (status, out) == (0, "the table\n")
    tests, first, rest, draw = commands
    assert tests.startswith("-m pytest -m gpu tests/test_")
    assert "tests/test_compile.py" in tests
    assert "--device cuda --precision bf16-true" in rest
    assert "--compile true --batch_size auto --seconds 20" in rest
    headline = "ade_ours_h10 ade_evit_k80 ade_tome_r30 ade_act_q32"
    assert first == rest.replace("--seconds 20", f"--only {headline} --seconds 20")
    assert draw.startswith("benchmarks/picture.py ")
    names = {name for _, some, _ in rows.groups() for name in some}
    assert names.issuperset(headline.split())


def test_a_gpu_run_can_be_of_some_rows_and_without_tests(gpu_script):
    status, _, commands = gpu_script(ONLY="ade_ours_h10 city_act_q16", GPU_TESTS="no")
    assert status == 0
    assert [command.split()[0] for command in commands] == ["benchmarks/rows.py", "benchmarks/picture.py"]
    assert commands[0].endswith("--only ade_ours_h10 city_act_q16")


@pytest.mark.parametrize(("failing", "steps"), [("-m", 1), ("benchmarks/rows.py", 4), ("benchmarks/picture.py", 4)])
def test_a_gpu_run_fails_with_any_of_its_steps(gpu_script, failing, steps):
    status, out, commands = gpu_script(failing=failing)
    assert status == 3
    assert len(commands) == steps
    assert out == ("" if failing == "-m" else "the table\n")


@pytest.mark.slow
def test_a_dry_run_measures_the_demo_rows_and_keeps_nothing():
    pytest.importorskip("matplotlib")
    kept = (RESULTS, DOCS)
    before = [sorted(path.rglob("*")) for path in kept]
    variables = {name: value for name, value in os.environ.items() if name not in ("ONLY", "RESULTS", "DOCS")}
    answer = subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu.sh", "--dry-run"],
        env={**variables, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    table = answer.stdout[answer.stdout.index("# Efficiency: cpu") :]
    assert "- precision: bf16-true, not compiled" in table
    single, larger = table.split("## Batch 2")
    for part in (single, larger):
        found = table_lines(part, "Demo scenes 128 x 128")
        assert [row[1].split(",")[0] for row in found] == ["TokenClustering", "EViT", "ToMe", "ACT"]
        assert all(int(row[7]) >= 5 for row in found)
    assert before == [sorted(path.rglob("*")) for path in kept]
