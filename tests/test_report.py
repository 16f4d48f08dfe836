"""``report``: its files, what they say, what is missing, and texts from files that look like markup."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nasty import NASTY, TERMINAL, Seen
from results_files import CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.report import make_report, report_files
from lightning_expedite.text import csv_cell, latex, markdown, plain, signed

ROOT = Path(__file__).parents[1]
TOME = ("ToMe", {"ratio": 0.5})
ADE = "ade20k/seg_large_mask_640"


@pytest.fixture
def report(run, tmp_path):
    """Runs ``report`` on a folder; returns its output folder and what it printed."""

    def make(*paths, output="report"):
        status, out, err = run("report", *(paths or [tmp_path / "runs"]), "--output", tmp_path / output)
        assert (status, err) == (0, "")
        return tmp_path / output, out

    return make


def rows_of(folder, name="table.csv"):
    return list(csv.DictReader(io.StringIO((folder / name).read_text())))


def markdown_rows(text, first):
    """Cells of the table whose header begins with a column."""
    table = re.search(rf"^\| {first}(?:.*\n)(?:\|.*\n)+", text, flags=re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def test_a_sweep_makes_every_file_and_again_the_same_ones(report, tmp_path):
    sweep(tmp_path / "runs", 10)
    folder, out = report()
    tables = {"report.md", "report.html", "table.csv", "table.tex", "per_class.csv"}
    assert {path.name for path in folder.iterdir()} == tables
    assert str(folder / "report.html") in out
    again, _ = report(output="again")
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_the_table_has_a_row_for_each_run_with_its_figures(report, tmp_path):
    write(tmp_path / "runs/none/results.json", scores())
    write(tmp_path / "runs/ours/results.json", scores(CLUSTERING, 2.0))
    write(tmp_path / "runs/speed/benchmark.json", benchmark(row(CLUSTERING, 1.6, 1.44)))
    folder, _ = report()
    baseline, reduced = rows_of(folder)
    assert (baseline["setting"], reduced["setting"]) == ("baseline", "TokenClustering location 4, clusters 8x8")
    assert float(reduced["mIoU_difference"]) == pytest.approx(float(reduced["mIoU"]) - float(baseline["mIoU"]))
    assert baseline["mIoU_difference"] == ""
    expected = {"gflops": 5.0, "flop_ratio": 1.6, "latency_ms": 20 / 1.44, "speedup": 1.44, "speedup_q1": 0.98 * 1.44}
    expected |= {"efficiency": 0.9, "throughput_images_per_s": 55 * 1.44, "throughput_batch_size": 4}
    for name, value in expected.items():
        assert float(reduced[name]) == pytest.approx(value), name
    assert (float(baseline["latency_ms"]), float(baseline["gflops"])) == (20.0, 8.0)
    assert "published_mIoU" not in reduced
    header, _, first, second = markdown_rows((folder / "report.md").read_text(), "setting")
    cells = dict(zip(header, second, strict=True))
    assert cells["speed-up"] == "1.44 \\[1.41, 1.47\\]"
    assert cells["difference, points"] == f"−{abs(float(reduced['mIoU_difference'])):.2f}"
    assert dict(zip(header, first, strict=True))["difference, points"] == "–"


def test_what_was_not_measured_has_no_column_and_is_named_with_the_command_that_makes_it(report, tmp_path):
    write(tmp_path / "runs/none/results.json", scores())
    write(tmp_path / "runs/tome/results.json", scores(TOME, 1.0))
    folder, out = report()
    header = markdown_rows((folder / "report.md").read_text(), "setting")[0]
    assert header == ["setting", "mIoU, %", "difference, points", "aAcc, %", "mAcc, %"]
    assert "no times of baseline, ToMe ratio 0.5" in out
    assert "python -m lightning_expedite benchmark --config" in out
    write(tmp_path / "speed/benchmark.json", benchmark(row(TOME, 1.5, 1.3, config="demo_tome")))
    folder, out = report(tmp_path / "speed", output="speeds")
    assert [line["speedup"] for line in rows_of(folder)] == ["1.0", "1.3"]
    assert "no score of ToMe ratio 0.5" in out
    assert "no score of the baseline" in out
    assert not (folder / "per_class.csv").exists()


def test_without_the_baseline_there_are_no_differences_and_the_command_is_named(report, tmp_path):
    runs = sweep(tmp_path / "runs", 4, baseline=False)
    folder, out = report(runs)
    assert "mIoU_difference" not in rows_of(folder)[0]
    assert "test --config runs/points/act_0/point.yaml --model.reducer null --output runs/none" in out
    assert "What is missing" in (folder / "report.md").read_text()


def test_folders_whose_names_have_commands_for_a_terminal_are_shown_with_signs_instead(report, tmp_path):
    name = "tome\x1b[31m"
    (tmp_path / "configs").mkdir()
    write(tmp_path / f"runs/{name}/results.json", scores(TOME, 1.0))
    (tmp_path / f"runs/{name}/config.yaml").write_text("")
    folder, out = report(output=name)
    shown = "tome\N{REPLACEMENT CHARACTER}[31m"
    assert f"runs/{shown}/config.yaml" in out
    assert f"the report is {tmp_path / shown}/report.html" in out
    assert f"runs/{shown}/config.yaml" in (folder / "report.html").read_text()
    for text in (out, *(path.read_text() for path in folder.iterdir())):
        assert "\x1b" not in text


def test_an_existing_report_is_replaced_only_when_asked(run, fails, tmp_path):
    sweep(tmp_path / "runs", 2)
    words = ("report", tmp_path / "runs", "--output", tmp_path / "out")
    assert run(*words)[0] == 0
    before = (tmp_path / "out/report.html").stat().st_mtime_ns
    assert "exists already; use --overwrite" in fails(*words)
    assert (tmp_path / "out/report.html").stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "runs/points/none")
    for name in ("notes.txt", "front_latency.png"):
        (tmp_path / "out" / name).touch()
    assert run(*words, "--overwrite")[0] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "notes.txt" in names  # the user's
    assert not names & {"front_latency.png", "per_class.csv"}  # of an earlier report
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


def test_published_figures_stand_beside_the_measured_ones(report, tmp_path):
    method = ("TokenClustering", {"location": 10, "clusters": 28})
    write(tmp_path / "runs/a/results.json", scores(method, 1.0, checkpoint=ADE, data="ADE20K"))
    write(tmp_path / "runs/b/benchmark.json", benchmark(row(method, 1.5, 1.4, checkpoint=ADE)))
    folder, _ = report()
    reduced = rows_of(folder)[1]
    assert float(reduced["published_mIoU"]) == 51.56
    assert float(reduced["mIoU_minus_published"]) == pytest.approx(float(reduced["mIoU"]) - 51.56)
    assert float(reduced["speedup_minus_published"]) == pytest.approx(1.4 - 9.51 / 6.55)
    text = (folder / "report.md").read_text()
    assert "published mIoU" in text
    assert "Expedit-Segmenter" in text.replace("\\", "")


def test_every_class_of_every_setting_is_listed(report, tmp_path):
    sweep(tmp_path / "runs", 5)
    folder, _ = report()
    lines = rows_of(folder, "per_class.csv")
    assert len(lines) == 4 * 11
    stored = json.loads((tmp_path / "runs/points/tome_0/test/results.json").read_text())
    sky = next(line for line in lines if line["class"] == "sky" and line["setting"].startswith("ToMe"))
    assert float(sky["IoU_difference"]) == pytest.approx(stored["per_class"][0]["IoU"] - 90.0)
    header, _, first, *_ = markdown_rows((folder / "report.md").read_text(), "class")
    assert dict(zip(header, first, strict=True))["ToMe ratio 0.05"] == signed(float(sky["IoU_difference"]))


def test_fifty_results_are_reported_without_torch(tmp_path):
    sweep(tmp_path / "runs", 50)
    program = (
        "import sys\n"
        "for name in ('torch', 'pytorch_lightning', 'timm'): sys.modules[name] = None\n"
        "from lightning_expedite.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", program, "report", "runs", "--output", "out"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert len(rows_of(tmp_path / "out")) == 50


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_table_compiles(report, tmp_path):
    sweep(tmp_path / "runs", 6)
    write(tmp_path / "runs/odd/results.json", scores((r"a.Me_thod$#%&~^\{}", {"ratio": '--"<é中'}), 3.0))
    folder, _ = report()
    document = "\\documentclass{article}\\usepackage{booktabs,textcomp}\\begin{document}\\input{table}\\end{document}"
    (folder / "document.tex").write_text(document)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, timeout=60)
    assert answer.returncode == 0, answer.stdout[-2000:]


# --- Texts from files ------------------------------------------------------------------------------------------------

ESCAPED = pytest.mark.promise("escaped")
CELLS = ("table", "thead", "tbody", "tr", "th", "td")


def files_of(folder):
    return report_files(make_report([folder]))


@pytest.fixture(scope="module")
def nasty_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nasty")
    classes = [*NASTY, "road"]
    write(folder / "none/results.json", scores(classes=classes, checkpoint=NASTY[1]))
    for index, text in enumerate(NASTY):
        method = (f"some.{text}", {"ratio": text, text: 1.0})
        content = scores(method, 1.0 + index, classes=classes, checkpoint=NASTY[1])
        content["protocol"]["window"] = text
        content["environment"]["device"] = text
        write(folder / f"{index}/results.json", content)
        timed = row(method, 1.2, 1.1, config=text, checkpoint=NASTY[1])
        timed["input"]["source"] = text
        write(folder / f"{index}/benchmark.json", benchmark(timed, failed=[{"config": text, "error": text}]))
    terminal = scores((f"some.{TERMINAL[0]}", {TERMINAL[1]: TERMINAL[7]}), 1.0, classes=classes, checkpoint=NASTY[1])
    write(folder / "terminal/results.json", terminal)
    return files_of(folder)


@ESCAPED
def test_no_file_has_commands_for_a_terminal(nasty_files):
    assert not any(b"\x1b" in content for name, content in nasty_files.items())


@ESCAPED
def test_the_page_holds_nasty_names_as_text_alone_and_forbids_requests(nasty_files, tmp_path):
    sweep(tmp_path, 5)
    seen, clean = Seen(), Seen()
    page = nasty_files["report.html"].decode()
    seen.feed(page)
    clean.feed(files_of(tmp_path)["report.html"].decode())
    assert set(seen.tags) <= {*clean.tags, "code"}
    assert seen.tags.count("script") == clean.tags.count("script") == 3
    assert set(seen.attributes) <= set(clean.attributes)
    assert all(link.startswith("data:") for link in seen.links)
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules["img-src"].split()) == {"data:", "blob:"}
    assert all(source.startswith("'sha256-") for source in rules["script-src"].split())


@ESCAPED
def test_no_cell_of_the_csv_is_a_formula(nasty_files):
    for name in ("table.csv", "per_class.csv"):
        for line in csv.DictReader(io.StringIO(nasty_files[name].decode())):
            for cell in line.values():
                number = re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", cell)
                assert number or not cell.startswith(("=", "+", "-", "@"))


@ESCAPED
def test_markdown_with_nasty_names_renders_as_text_alone(nasty_files):
    text = nasty_files["report.md"].decode()
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) >= 2
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    seen = Seen()
    seen.feed(MarkdownIt("commonmark").enable("table").render(text))
    assert set(seen.tags) <= {*("h1", "h2", "ul", "li", "p", "code", "pre"), *CELLS}
    assert seen.links == []


@ESCAPED
@given(st.text())
def test_any_text_becomes_one_line(text):
    for escape in (plain, markdown, latex):
        result = escape(text)
        assert len(result.splitlines()) <= 1
        result.encode()
    assert not re.search(r"(?<!\\)[|<>]", markdown(text).replace("&lt;", "").replace("&gt;", ""))
    assert latex(text).isascii()
    bare = re.sub(r"\\[&%$#_{}]", "", latex(text))
    assert not re.search(r"[&%#_~]", re.sub(r"\\[~`'^\"cv] ?\{[a-zA-Z]\}", "", bare))
    assert bare.count("{") == bare.count("}")


@ESCAPED
@given(st.text(max_size=5), st.sampled_from("=+-@"))
def test_a_text_is_never_a_formula(text, sign):
    assert str(csv_cell(sign + text)).startswith("'")
    assert csv_cell(-1.5) == -1.5


def test_differences_show_their_sign():
    assert [signed(value) for value in (1.234, -0.5, -0.001, 0.0, None)] == ["+1.23", "−0.50", "0.00", "0.00", "–"]
