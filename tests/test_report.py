"""``report``: its files, what they say, what is missing, and how long it takes."""

import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image
from results_files import CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.comparison import compare
from lightning_expedite.analysis.figures_class import class_picture
from lightning_expedite.analysis.per_class import class_table, telling
from lightning_expedite.analysis.published import find_published, published_tables
from lightning_expedite.analysis.runs import Run, read_runs

ROOT = Path(__file__).parents[1]
TOME = ("ToMe", {"ratio": 0.5})
AXES = ("latency", "throughput", "speedup", "gflops", "memory")
ADE = "ade20k/seg_large_mask_640"


@pytest.fixture
def report(run, tmp_path):
    """Runs ``report`` on a folder; gives its output folder and what it printed."""

    def make(*paths, output="report"):
        status, out, err = run("report", *(paths or [tmp_path / "runs"]), "--output", tmp_path / output)
        assert (status, err) == (0, "")
        return tmp_path / output, out

    return make


def rows_of(folder, name="table.csv"):
    return list(csv.DictReader(io.StringIO((folder / name).read_text())))


def markdown_rows(text, first):
    """Cells of the table whose header begins with a column."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first}"))
    table = [line for line in lines[start:] if line.startswith("|") or not line.strip()]
    table = table[: table.index("")] if "" in table else table
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_a_sweep_makes_every_file(report, tmp_path):
    sweep(tmp_path / "runs", 10)
    folder, out = report()
    pictures = {
        f"{name}.{suffix}" for name in (*(f"front_{axis}" for axis in AXES), "per_class") for suffix in ("png", "svg")
    }
    tables = {"report.md", "report.html", "table.csv", "table.tex", "per_class.csv"}
    assert {path.name for path in folder.iterdir()} == pictures | tables
    assert str(folder / "report.html") in out
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50  # something is drawn
    text = (folder / "report.md").read_text()
    assert all(f"]({path.name})" in text for path in folder.glob("*.png"))


def test_the_table_has_a_row_for_each_run_with_its_figures(report, tmp_path):
    write(tmp_path / "runs/none/results.json", scores())
    write(tmp_path / "runs/ours/results.json", scores(CLUSTERING, 2.0))
    write(tmp_path / "runs/speed/benchmark.json", benchmark(row(CLUSTERING, 1.6, 1.44)))
    folder, _ = report()
    unreduced, ours = rows_of(folder)
    assert (unreduced["setting"], ours["setting"]) == ("unreduced", "TokenClustering location 4, clusters 8x8")
    assert float(ours["mIoU_difference"]) == pytest.approx(float(ours["mIoU"]) - float(unreduced["mIoU"]))
    assert unreduced["mIoU_difference"] == ""
    expected = {"gflops": 5.0, "flop_ratio": 1.6, "latency_ms": 20 / 1.44, "speedup": 1.44, "speedup_q1": 0.98 * 1.44}
    expected |= {"efficiency": 0.9, "throughput_images_per_s": 55 * 1.44, "throughput_batch_size": 4}
    for name, value in expected.items():
        assert float(ours[name]) == pytest.approx(value), name
    # The unreduced model has no benchmark of its own: its figures are those of the other side.
    assert (float(unreduced["latency_ms"]), float(unreduced["gflops"])) == (20.0, 8.0)
    assert "published_mIoU" not in ours
    header, _, first, second = markdown_rows((folder / "report.md").read_text(), "setting")
    cells = dict(zip(header, second, strict=True))
    assert cells["speed-up"] == "1.44 \\[1.41, 1.47\\]"
    assert cells["difference, points"] == f"−{abs(float(ours['mIoU_difference'])):.2f}"
    assert dict(zip(header, first, strict=True))["difference, points"] == "–"


def test_columns_of_what_was_not_measured_are_left_out(report, tmp_path):
    write(tmp_path / "runs/none/results.json", scores())
    write(tmp_path / "runs/tome/results.json", scores(TOME, 1.0))
    folder, out = report()
    header = markdown_rows((folder / "report.md").read_text(), "setting")[0]
    assert header == ["setting", "mIoU, %", "difference, points", "aAcc, %", "mAcc, %"]
    assert not list(folder.glob("front_*"))
    assert "no speed of unreduced, ToMe ratio 0.5" in out
    assert "python -m lightning_expedite benchmark --config" in out


def test_speeds_alone_make_a_report(report, tmp_path):
    write(tmp_path / "runs/speed/benchmark.json", benchmark(row(TOME, 1.5, 1.3, config="demo_tome")))
    folder, out = report()
    assert [line["speedup"] for line in rows_of(folder)] == ["", "1.3"]
    assert "no score of ToMe ratio 0.5" in out
    assert "no score of the unreduced model" in out
    assert not (folder / "per_class.csv").exists()


def test_without_the_unreduced_model_there_are_no_differences_and_the_command_is_named(report, tmp_path):
    runs = sweep(tmp_path / "runs", 4, unreduced=False)
    folder, out = report(runs)
    assert "mIoU_difference" not in rows_of(folder)[0]
    assert "no score of the unreduced model" in out
    config = (runs / "points/act_0/point.yaml").relative_to(tmp_path)
    assert f"python -m lightning_expedite test --config {config} --model.reducer null --output runs/none" in out
    assert "What is missing" in (folder / "report.md").read_text()


def test_a_report_that_is_there_is_replaced_only_when_asked(run, fails, tmp_path):
    sweep(tmp_path / "runs", 2)
    words = ("report", tmp_path / "runs", "--output", tmp_path / "out")
    assert run(*words)[0] == 0
    before = (tmp_path / "out/report.html").stat().st_mtime_ns
    assert "exists already; give --overwrite" in fails(*words)
    assert (tmp_path / "out/report.html").stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "runs/points/ours_0/test")
    shutil.rmtree(tmp_path / "runs/points/none")
    (tmp_path / "out/notes.txt").write_text("the user's")
    assert run(*words, "--overwrite")[0] == 0
    assert not (tmp_path / "out/front_latency.png").exists()  # of the earlier report
    assert (tmp_path / "out/notes.txt").exists()
    assert (tmp_path / "out/report.html").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("nowhere",), "nowhere does not exist"),
        ((".",), "no result in ."),
        ((), "the following arguments are required: paths"),
        ((".", "--outptu", "x"), "unknown option --outptu (did you mean --output?)"),
    ],
)
def test_mistakes_end_with_one_line(fails, words, part):
    assert part in fails("report", *words)


def test_the_same_results_make_the_same_files(report, tmp_path):
    sweep(tmp_path / "runs", 6)
    one, _ = report(output="one")
    other, _ = report(output="other")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


# --- Published figures -------------------------------------------------------------------------------


def test_the_packaged_figures_are_those_that_the_tests_hold(tmp_path):
    stored = json.loads((ROOT / "tests/data/published.json").read_text())
    assert {name: published_tables()[name] for name in stored} == stored


def test_every_published_row_is_found_by_the_settings_of_its_config():
    found = []
    for content in (json.loads((ROOT / "benchmarks/results/cpu_32-true.json").read_text()),):
        for line in content["rows"]:
            published = find_published(Run("", line["model"]["checkpoint"], line["reducer"], None, None))
            assert published is not None, line["config"]
            found.append(published)
    assert len(found) == len(set(found)) == 36
    best = find_published(Run("", ADE, None, None, None))
    assert (best.miou, best.gflops, best.speedup) == (51.82, 658.98, 1)


@pytest.mark.parametrize(
    ("checkpoint", "method", "data"),
    [
        (ADE, ("TokenClustering", {"location": 10, "clusters": [28, 27]}), "ADE20K"),
        (ADE, ("TokenClustering", {"location": 10, "clusters": [28, 28], "iterations": 6}), "ADE20K"),
        (ADE, ("EViT", {"locations": [8, 14], "keep_rate": 0.9}), "ADE20K"),
        (ADE, ("ToMe", {"ratio": 0.25}), "ADE20K"),
        (ADE, ("ToMe", {"ratio": 0.2}), "Folder"),
        ("ade20k/seg_large_mask", ("ToMe", {"ratio": 0.2}), "ADE20K"),
    ],
)
def test_what_differs_in_anything_is_compared_with_no_published_row(tmp_path, checkpoint, method, data):
    write(tmp_path / "results.json", scores(method, checkpoint=checkpoint, data=data))
    (found,) = read_runs([tmp_path])
    assert find_published(found) is None


def test_published_figures_stand_beside_the_measured_ones(report, tmp_path):
    method = ("TokenClustering", {"location": 10, "clusters": 28})
    write(tmp_path / "runs/a/results.json", scores(method, 1.0, checkpoint=ADE, data="ADE20K"))
    write(tmp_path / "runs/b/benchmark.json", benchmark(row(method, 1.5, 1.4, checkpoint=ADE)))
    folder, _ = report()
    ours = rows_of(folder)[1]
    assert float(ours["published_mIoU"]) == 51.56
    assert float(ours["mIoU_minus_published"]) == pytest.approx(float(ours["mIoU"]) - 51.56)
    assert float(ours["speedup_minus_published"]) == pytest.approx(1.4 - 9.51 / 6.55)
    text = (folder / "report.md").read_text()
    assert "published mIoU" in text
    assert "Expedit\\-Segmenter" in text or "Expedit-Segmenter" in text


# --- Classes -----------------------------------------------------------------------------------------


def test_every_class_of_every_setting_is_listed(report, tmp_path):
    sweep(tmp_path / "runs", 5)
    folder, _ = report()
    lines = rows_of(folder, "per_class.csv")
    assert len(lines) == 4 * 11
    stored = json.loads((tmp_path / "runs/points/tome_0/test/results.json").read_text())
    sky = next(line for line in lines if line["class"] == "sky" and line["setting"].startswith("ToMe"))
    assert float(sky["IoU_difference"]) == pytest.approx(stored["per_class"][0]["IoU"] - 90.0)


@pytest.mark.parametrize("count", [11, 150])
def test_pictures_of_few_and_many_classes_are_legible(tmp_path, count):
    (subject,) = compare(
        read_runs([sweep(tmp_path, 4, classes=tuple(f"some class {index}" for index in range(count)))])
    )
    files = class_picture(class_table(subject))
    with Image.open(io.BytesIO(files[".png"])) as image:
        width, height = image.size
    assert height > 0.18 * 150 * count  # 0.18 inches for a line of 8 points, at 150 dots per inch
    assert width < 1500
    texts = ElementTree.fromstring(files[".svg"]).iter("{http://www.w3.org/2000/svg}text")
    assert sum("".join(text.itertext()).startswith("some class") for text in texts) == count


def test_other_classes_are_not_compared(tmp_path):
    write(tmp_path / "none/results.json", scores())
    write(tmp_path / "a/results.json", scores(TOME, 1.0))
    write(tmp_path / "b/results.json", scores(CLUSTERING, 1.0, classes=("cat", "dog")))
    (subject,) = compare(read_runs([tmp_path]))
    assert [entry.method for entry, _ in class_table(subject).rows] == ["ToMe"]


def test_where_there_is_no_room_for_all_settings_those_on_the_front_are_shown(tmp_path):
    (subject,) = compare(read_runs([sweep(tmp_path, 25)]))
    table = class_table(subject)
    shown = telling(table, 6)
    assert len(table.rows) == 24
    assert len({id(entry) for entry in shown}) == len(shown) == 6
    assert len({entry.method for entry in shown}) > 1


# --- Time and packages -------------------------------------------------------------------------------


def timed(*words, cwd):
    """Runs Python; gives the answer and the seconds that processors worked for it: a busy machine adds none."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=cwd, timeout=120, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return answer, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick(tmp_path):
    answer, took = timed("-m", "lightning_expedite", "report", "--help", cwd=tmp_path)
    assert answer.returncode == 0
    assert "--overwrite" in answer.stdout
    assert took < 1.5


PROGRAM = """
import sys
from lightning_expedite.cli import main

status = main(sys.argv[1:])
print([name for name in ("torch", "pytorch_lightning", "timm", "lightning_fabric") if name in sys.modules])
sys.exit(status)
"""


def test_fifty_results_are_reported_quickly_and_without_torch(tmp_path):
    sweep(tmp_path / "runs", 50)
    answer, took = timed("-c", PROGRAM, "report", "runs", "--output", "out", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "[]"
    assert len(rows_of(tmp_path / "out")) == 50
    assert took < 15
    assert (tmp_path / "out/report.html").stat().st_size < 1_000_000


def test_an_error_needs_no_torch_either(tmp_path):
    answer, _ = timed("-c", PROGRAM, "report", "nowhere", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: nowhere does not exist")
    assert answer.stdout == "[]\n"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_table_compiles(report, tmp_path):
    sweep(tmp_path / "runs", 6)
    write(tmp_path / "runs/odd/results.json", scores((r"a.Me_thod$#%&~^\{}", {"ratio": '--"<é中'}), 3.0))
    folder, _ = report()
    document = "\\documentclass{article}\\usepackage{booktabs,textcomp}\\begin{document}\\input{table}\\end{document}"
    (folder / "document.tex").write_text(document)
    answer = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout[-2000:]
