"""What is put into the documentation's pages by scripts: the published rows, help texts, parts of the README."""

import json
import re

import pytest
from benchmark_scripts import made_up, made_up_row
from docs_scripts import ROOT, make_tables

# --- make_tables.py ----------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Makes the page from results with made-up figures and counts; gives its status and text."""
    results, target = tmp_path / "results.json", tmp_path / "reproduce.md"
    monkeypatch.setattr(make_tables, "count", lambda config: None if "ACT" in str(config) else 500.0)

    def make(*rows, check=False):
        results.write_text(json.dumps(made_up(*rows)))
        words = ["--results", str(results), "--page", str(target)]
        return make_tables.main([*words, *(["--check"] if check else [])]), target

    return make


def lines_of(text, heading):
    """The cells of a data set's lines under a heading."""
    section = text[text.index(heading) :]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]


def test_the_page_holds_what_follows_from_the_files(page):
    status, target = page(made_up_row("ade_ours_h10", 1.5, 1.44))
    assert status == 0
    text = target.read_text()
    scores = [line for line in text.splitlines() if "python -m lightning_expedite test" in line]
    assert len(scores) == 39
    assert (
        "| TokenClustering, 28 x 28 after layer 10 | "
        "`python -m lightning_expedite test --config configs/ade_ours_h10.yaml` | 51.56 | not reproduced |" in scores
    )
    costs = {line[0]: line[1:] for line in lines_of(text, "### FLOPs and speed")}
    assert costs["reducer"][-1] == "CPU, 3 threads, bf16-true"
    found = next(
        line for line in text.splitlines() if line.startswith("| TokenClustering, 28 x 28 after layer 10 | 443.84")
    )
    assert [cell.strip() for cell in found.split("|")[2:-1]] == [
        "443.84",
        "500.00",
        f"{100 * (500 / 443.84 - 1):+.2f}",
        "counted, differs",
        f"{9.51 / 6.55:.2f}",
        "1.44 [1.42, 1.45]",
    ]
    act = next(line for line in text.splitlines() if line.startswith("| ACT, 32 hashes | 611.06"))
    assert "| - | - | depends on content |" in act
    assert "1 of 36 reduced rows timed" in text
    assert "30 of 39 rows counted" in text


def test_every_command_names_a_config():
    commands = re.findall(r"configs/[\w.]+", (ROOT / "docs" / "reproduce.md").read_text())
    assert len(set(commands)) == 39
    assert all((ROOT / command).is_file() for command in commands)


def test_check_notices_a_change(page, capsys):
    row = made_up_row("ade_ours_h10", 1.5, 1.44)
    page(row)
    assert page(row, check=True)[0] == 0
    status, target = page(made_up_row("ade_ours_h10", 1.5, 1.45), check=True)
    assert status == 1
    assert capsys.readouterr().err == f"error: {target} is not what docs/make_tables.py makes; run it\n"
    assert "1.44 [" in target.read_text()


def test_the_committed_page_is_that_of_the_committed_files():
    assert make_tables.main(["--check"]) == 0


def test_counts_on_the_page_are_the_reference_implementations_own():
    expected = json.loads((ROOT / "tests" / "data" / "flops.json").read_text())["rows"]
    lines = [line.split(" | ") for line in make_tables.PAGE.read_text().splitlines() if " | counted, " in line]
    counted = [(float(line[1]), float(line[2])) for line in lines]
    rows = [row for data_set in expected.values() for row in data_set]
    assert [published for published, _ in counted] == [row["published"] for row in rows]
    assert [count for _, count in counted] == pytest.approx([row["gflops"] for row in rows], rel=5e-4)


# --- hooks.py ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs")
    from docs_scripts import load

    return load("hooks")


def test_parts_of_the_readme(hooks):
    text = hooks.on_page_markdown("Before.\n\n<!-- readme: use-reducer -->\n\nAfter.\n")
    assert text.startswith("Before.\n\n```bash\n")
    assert "--model.reducer TokenPooling" in text
    assert text.endswith("```\n\nAfter.\n")
    assert "| `demo_none` |" in hooks.on_page_markdown("<!-- readme: demo-table -->\n")


def test_a_part_that_is_not_there_fails_the_build(hooks):
    with pytest.raises(Exception, match="no part named 'nothing'"):
        hooks.on_page_markdown("<!-- readme: nothing -->\n")


def test_every_place_in_the_pages_is_filled(hooks):
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text().replace("<!-- commands -->", "")
        filled = hooks.on_page_markdown(text)
        assert "<!-- readme:" not in filled, path
        assert "<!-- table:" not in filled, path


def test_a_table_of_another_page(hooks, tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, "TABLES", tmp_path)
    (tmp_path / "some.md").write_text("# Some\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|\n")
    assert hooks.on_page_markdown("Before.\n<!-- table: some -->\n") == "Before.\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    with pytest.raises(Exception, match=r"docs/tables/none\.md has no table"):
        hooks.on_page_markdown("<!-- table: none -->\n")


def test_help_texts_of_all_subcommands(hooks, monkeypatch):
    texts = {
        ("one",): "usage: python -m lightning_expedite one [options]\n\noptions:\n  --first X  Said.\n",
        ("two",): "usage: python -m lightning_expedite two {kind} [options]\n",
        ("two", "kind"): "usage: python -m lightning_expedite two kind [options]\n\nmany:\n" + "  --x X  Said.\n" * 60,
    }
    monkeypatch.setattr(hooks, "SUBCOMMANDS", {"one": "do one thing", "two": "do two"})
    monkeypatch.setattr(hooks, "help_text", lambda words, columns: texts[words])
    text = hooks.on_page_markdown("<!-- commands -->\n")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## one", "## two", "### two kind"]
    assert "Do one thing." in text
    assert "**options**\n\n``` { .text .help }\n  --first X  Said.\n```" in text
    assert '??? note "many"\n\n    ``` { .text .help }\n      --x X  Said.' in text


def test_tables_of_the_efficiency_pages_are_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "docs" / "tables").glob("*.md"):
        assert f"tables/{path.name}" in navigation
