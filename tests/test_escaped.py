"""Texts from files stay texts: on a terminal, in loggers and in a model's card. Pages: `test_report_cautions`."""

import io
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nasty import NASTY, TERMINAL, Seen
from recommend_files import counts_of, tome, write_benchmark, write_test
from results_files import benchmark, row, scores
from rich.console import Console
from tiny import tiny_model

from lightning_expedite.benchmarking.tables import benchmark_table
from lightning_expedite.evaluation.run_logger import markdown_table
from lightning_expedite.evaluation.tables import literal, per_class_table, summary_table
from lightning_expedite.search.points import Point, sweep_table
from lightning_expedite.search.workers import say
from lightning_expedite.text import visible

pytestmark = pytest.mark.promise("escaped")
ALL = [*NASTY, *TERMINAL]


def shown(*things, terminal=False):
    """Print; gives the text, without the codes of colours where it is for a terminal."""
    stream = io.StringIO()
    console = Console(file=stream, width=400, force_terminal=terminal, color_system=None, legacy_windows=False)
    for thing in things:
        console.print(thing)
    return stream.getvalue()


def holds(output, texts):
    """Return whether each text is present unchanged, line by line, without terminal commands."""
    lines = [line for text in texts for line in visible(text).split("\n")]
    return all(line.strip() in output for line in lines) and "\x1b" not in output and "\r" not in output


@given(st.text())
def test_any_text_is_printed_as_it_is(text):
    output = shown(literal(f"<{text}>"))
    assert holds(output, [f"<{text}>"])
    assert all(sign.isprintable() or sign == "\n" for sign in output)


def test_hostile_names_of_classes_and_files():
    content = scores(classes=ALL, label=[1] * len(ALL))
    assert holds(shown(per_class_table(content), terminal=True), ALL)
    for path in map(Path, (text.replace("\x00", "") for text in ALL)):
        assert holds(shown(summary_table(content, path)), [str(path)])


def test_hostile_benchmarks():
    rows = [row(None, config=text) | {"tokens": {"unreduced": 65, "attention": [65], "mlp": [65]}} for text in ALL]
    content = benchmark(*rows, precision=TERMINAL[1], device=TERMINAL[0])
    content["notes"] = list(ALL)
    assert holds(shown(benchmark_table(content)).replace("\n", " "), [text.replace("\n", " ") for text in TERMINAL])
    assert holds(shown(benchmark_table(content)), [text for text in ALL if len(text) < 20])


def test_hostile_points_of_a_sweep(tmp_path):
    names = [text.replace("/", "|").replace("\x00", "") for text in ALL]
    assert holds(shown(sweep_table([Point(tmp_path, name, None, {}) for name in names], ("test",))), names)
    stream = io.StringIO()
    for name in names:
        say(Console(file=stream, width=400, force_terminal=False), name)
    assert holds(stream.getvalue(), names)


def test_hostile_names_of_settings_are_recommended(run, tmp_path):
    folder = tmp_path / "runs"
    names = [text.replace("/", "|") for text in TERMINAL]
    specs = [tome(round(0.1 + number / 100, 2)) for number in range(len(names))]
    write_test(folder / "none", counts_of(0.9), None)
    for name, spec in zip(names, specs, strict=True):
        write_test(folder / name, counts_of(0.88), spec)
    write_benchmark(folder / "speed", *((spec, 15.0) for spec in specs))
    status, out, err = run("recommend", folder, "--max_loss", 50)
    assert status == 0, err
    assert "\x1b" not in out
    assert any(name in out for name in ("[|]", "[red]x", "[|red]"))


def test_a_run_with_hostile_class_names_shows_its_scores(run, config):
    content = yaml.safe_load(config.read_text())
    names = [TERMINAL[0], TERMINAL[6], TERMINAL[3], NASTY[0], NASTY[2]]
    content["data"]["init_args"]["classes"] = names
    config.write_text(yaml.safe_dump(content))
    status, out, err = run("test", "--config", config, "--output", "out [/] :car:", "--trainer.limit_test_batches", 1)
    assert status == 0, err
    assert holds(out, names[:2])
    assert [one["name"] for one in json.loads(Path("out [/] :car:/results.json").read_text())["per_class"]] == names


def test_tables_of_loggers_and_cards_hold_no_markup(tmp_path):
    names = [text for text in ALL if "\x00" not in text]
    table = markdown_table([[name, 1.0, None, 5] for name in names])
    card = tmp_path / "model" / "README.md"
    tiny_model(num_classes=len(names)).save_pretrained(card.parent, classes=names)
    for text in (table, card.read_text().rpartition("---\n")[2].partition("## Classes")[2]):
        seen = Seen()
        seen.feed(MarkdownIt("commonmark").enable("table").render(text))
        assert set(seen.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "p", "ol", "li"}
        assert seen.links == []
    assert len(table.splitlines()) == 2 + len(names)
