"""Runs that are not comparable, and texts from files that look like markup."""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nasty import NASTY, Seen
from results_files import CLASSES, CLUSTERING, benchmark, row, scores, sweep, write

from lightning_expedite.analysis.cautions import cautions, missing
from lightning_expedite.analysis.comparison import compare
from lightning_expedite.analysis.report import make_report, report_files
from lightning_expedite.analysis.runs import read_failures, read_runs
from lightning_expedite.text import csv_cell, latex, markdown, plain, signed

TOME = ("ToMe", {"ratio": 0.5})


def said(folder):
    return cautions(compare(read_runs([folder])), read_failures([folder]))


def test_runs_that_are_alike_need_no_caution(tmp_path):
    sweep(tmp_path, 9)
    assert said(tmp_path) == []
    assert missing(compare(read_runs([tmp_path]))) == []


def other_scores(environment=None, protocol=None, **changes):
    content = scores(TOME, 1.0, **changes)
    content["environment"] |= environment or {}
    content["protocol"] |= protocol or {}
    return content


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (other_scores(images=3), ["Numbers of scored images differ: 4, 3."]),
        (
            other_scores(complete=False, images_total=9),
            ["Scores of a part of the images only, which are not the data set's: ToMe ratio 0.5."],
        ),
        (other_scores({"device": "Other"}), ["Scores were computed on several devices: Some Processor, Other."]),
        (other_scores({"precision": "bf16-true"}), ["Scores were computed at several precisions: 32-true, bf16-true."]),
        (other_scores({"commit": "beef"}), ["Scores are of several commits: c0ffee, beef."]),
        (other_scores({"torch": "1.2"}), ["Scores are of several versions of PyTorch: 9.8.7, 1.2."]),
        (other_scores(protocol={"window": 64}), ["The protocol differs in window: 128, 64."]),
        (other_scores(protocol={"stride": 64}), ["The protocol differs in stride: 96, 64."]),
        (other_scores(protocol={"short_side": 512}), ["The protocol differs in short_side: not set, 512."]),
        (other_scores(protocol={"scales": [1.0, 2.0]}), ["The protocol differs in scales: [1.0], [1.0, 2.0]."]),
        (other_scores(checkpoint="other"), ["Weights or data differ", "demo on Demo, split val; other on Demo"]),
        (other_scores(data="Folder"), ["Weights or data differ", "demo on Folder"]),
        (other_scores(classes=CLASSES[:5]), ["Lists of classes differ"]),
    ],
)
def test_scores_that_are_not_alike_are_named(tmp_path, content, parts):
    write(tmp_path / "none/results.json", scores())
    write(tmp_path / "some/results.json", content)
    (text,) = said(tmp_path)
    for part in parts:
        assert part in text


UNTRAINED = "Trained ones take the same time, but not with a method that adapts to content (ACT)."


def untrained(line, **changes):
    line["model"] |= {"untrained": True}
    return line | changes


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (benchmark(row(TOME), device="Other"), ["Times were taken on several devices: Some Processor, Other."]),
        (benchmark(row(TOME), threads=8), ["Times were taken with several numbers of threads: 2, 8."]),
        (benchmark(row(TOME), compiled=True), ["Times were taken compiled in several ways: False, True."]),
        (benchmark(row(TOME), commit="beef"), ["Times are of several commits: c0ffee, beef."]),
        (benchmark(row(TOME) | {"commit": "beef"}), ["Times are of several commits: c0ffee, beef."]),
        (benchmark(row(TOME, batch=8)), ["Throughput is at several batch sizes: 4, 8."]),
        (benchmark(untrained(row(TOME))), [f"Times are of untrained weights: ToMe ratio 0.5. {UNTRAINED}"]),
        (
            benchmark(row(TOME), precision="bf16-true"),
            [
                "Times were taken at several precisions: 32-true, bf16-true.",
                "Scored at 32-true, timed at bf16-true: unreduced, ToMe ratio 0.5.",
            ],
        ),
        (
            benchmark(row(TOME) | {"input": {"source": "Demo", "size": [64, 64]}}),
            [
                "Times are of several input sizes: 128 x 128, 64 x 64.",
                "Timed on inputs of another size than the scored windows: ToMe ratio 0.5.",
            ],
        ),
        (
            benchmark(row(TOME, unreduced_ms=30.0)),
            [
                "The unreduced model took 20.00 to 30.00 ms in different rows (Some Processor, 2 threads, 32-true): "
                "the machine was not equally fast throughout, so compare speed-ups, not latencies."
            ],
        ),
        (benchmark(row(TOME, unreduced_ms=21.5)), []),
        (benchmark(row(TOME), failed=[{"config": "a", "error": "b c"}]), ["a failed: b c"]),
    ],
)
def test_times_that_are_not_alike_are_named(tmp_path, content, parts):
    write(tmp_path / "none/results.json", scores())
    write(tmp_path / "tome/results.json", scores(TOME, 1.0))
    write(tmp_path / "a/benchmark.json", benchmark(row(None), row(CLUSTERING, 1.2, 1.1)))
    write(tmp_path / "ours/results.json", scores(CLUSTERING, 1.0))
    write(tmp_path / "b/benchmark.json", content)
    assert said(tmp_path) == parts


# --- Texts from files --------------------------------------------------------------------------------

ESCAPED = pytest.mark.promise("escaped")


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
    return files_of(folder)


@ESCAPED
def test_the_page_holds_nasty_names_as_text_alone(nasty_files, tmp_path, figure):
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
    figure("hostile texts in results", len(NASTY))


@ESCAPED
def test_the_page_asks_for_nothing(nasty_files):
    page = nasty_files["report.html"].decode()
    assert "default-src 'none'" in page
    own = re.sub(r"base64,[^\"]*", "", page)
    assert set(re.findall(r"\w+://[^\s\"']*", own)) == {"http://www.w3.org/2000/svg"}  # a name that nothing fetches
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", own)


@ESCAPED
def test_no_cell_of_the_csv_is_a_formula(nasty_files):
    for name in ("table.csv", "per_class.csv"):
        for line in csv.DictReader(io.StringIO(nasty_files[name].decode())):
            for cell in line.values():
                number = re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", cell)
                assert number or not cell.startswith(("=", "+", "-", "@"))


@ESCAPED
def test_the_tables_of_markdown_keep_their_columns(nasty_files):
    text = nasty_files["report.md"].decode()
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) >= 2
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@ESCAPED
def test_markdown_with_nasty_names_renders_as_text_alone(nasty_files):
    seen = Seen()
    seen.feed(MarkdownIt("commonmark").enable("table").render(nasty_files["report.md"].decode()))
    assert set(seen.tags) <= {"h1", "h2", "ul", "li", "p", "img", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert seen.links
    assert all(re.fullmatch(r"(front_\w+|per_class)\.png", link) for link in seen.links)


@ESCAPED
def test_pictures_with_nasty_names_are_drawn_and_are_whole_svg(nasty_files):
    for name in (name for name in nasty_files if name.endswith(".svg")):
        root = ElementTree.fromstring(nasty_files[name])
        assert not [one for one in root.iter() if one.tag.endswith("}script")]
    assert sum(name.endswith(".svg") for name in nasty_files) >= 5


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
