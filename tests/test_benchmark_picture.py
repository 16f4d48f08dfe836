"""Pictures and tables of results, with made-up figures, and those in the docs."""

import json
import re
import sys
from pathlib import Path

import pytest
from benchmark_scripts import DOCS, REDUCERS, RESULTS, efficiency, made_up, made_up_row, picture, table_lines

SUFFIXES = {".md", ".png", ".svg"}


@pytest.fixture
def results(tmp_path):
    """A results file in which two rows reach their targets and three do not."""
    content = made_up(
        made_up_row("ade_tome_r30", 1.5, 1.275),  # 0.85: just reached
        made_up_row("ade_ours_h10", 1.5, 1.44),  # 0.96
        made_up_row("ade_evit_k80", 1.25, 1.15),  # 0.92
        made_up_row("ade_act_q32", 1.1, 0.99),
        made_up_row("city_ours_h12", 1.5, 1.41, size=768),  # 0.94
    )
    path = tmp_path / "made_up.json"
    path.write_text(json.dumps(content))
    return path


def drawn(results, *words):
    """Run picture.py; gives its status and the files it made."""
    pytest.importorskip("matplotlib")
    docs = results.parent / "docs"
    status = picture.main([str(results), "--docs", str(docs), *words])
    return status, {path.suffix: path for path in sorted(docs.rglob("*")) if path.is_file()}


def test_the_table_holds_what_follows_from_the_files(results):
    status, files = drawn(results)
    assert status == 0
    text = files[".md"].read_text()
    for said in (
        "Some Processor, 3 threads",
        "PyTorch 9.8.7",
        "commit: c0ffee",
        "bf16-true, not compiled",
        "- batch 1\n",
    ):
        assert said in text
    assert "crops of Photographs" in text
    assert "published, by 0.5\n" in text
    assert "a note of the benchmark" in text
    ours, evit, tome, act = table_lines(text, "ADE20K")  # in the order of the published table
    assert ours == [
        "ADE20K 640 x 640",
        "TokenClustering, 28 x 28 after layer 10",
        "600.0 → 400.0",
        "1.500",
        "3000",
        "2083",
        "1.440 [1.420, 1.450; 1.400, 1.490]",
        "7",
        "0.960",
        f"{9.51 / 6.55:.3f}",
        f"{9.51 / 6.55 / (658.98 / 443.84):.3f}",
    ]
    assert [row[1] for row in (evit, tome, act)] == [
        "EViT, 80% kept in layers 8, 14, 20",
        "ToMe, ratio 0.3",
        "ACT, 32 hashes",
    ]
    (city,) = table_lines(text, "Cityscapes 768 x 768")
    assert city[9] == f"{5.89 / 4.2:.3f}"


def test_rows_below_their_target_are_marked(results):
    text = drawn(results)[1][".md"].read_text()
    ours, evit, tome, act = table_lines(text, "ADE20K")
    assert (evit[8], tome[8]) == ("0.920†", "0.850")
    assert act[6].startswith("0.990† [")
    assert act[8] == "0.900"  # ACT has no target but a speed-up
    assert "†" not in "".join(ours + tome)
    assert table_lines(text, "Cityscapes")[0][8] == "0.940†"
    assert "3 of 5 rows are below a target (†)." in text
    assert "† below the target: efficiency 0.95 for TokenClustering, 0.95 for EViT, 0.85 for ToMe; speed-up 1" in text


def test_a_larger_batch_has_a_table_of_its_own(results):
    content = json.loads(results.read_text())
    content["rows"] = [
        made_up_row("ade_ours_h10", 1.5, 1.44, batch=8),
        made_up_row("ade_ours_h8", 1.5, 1.5, batch=1024),
        made_up_row("ade_tome_r30", 1.5, 1.3),
    ]
    results.write_text(json.dumps(content))
    text = drawn(results)[1][".md"].read_text()
    assert "- batch 1 and batch 8 to 1024\n" in text
    single, larger = text.split("## Batch 8 to 1024")
    assert [len(table_lines(part, "ADE20K")) for part in (single, larger)] == [3, 2]
    row = table_lines(larger, "ADE20K")[0]
    assert row[4:6] == ["2000", "1389"]  # of 0.5 and 0.72 images per second
    assert row[7] == "6"
    assert row[9] == f"{10.13 / 6.93:.3f}"


def test_the_picture_is_drawn_in_both_formats_and_says_on_what(results):
    _, files = drawn(results)
    assert set(files) == set(SUFFIXES)
    from PIL import Image

    with Image.open(files[".png"]) as image:
        assert image.width >= 1000
        assert len(image.convert("RGB").resize((200, 100)).getcolors(1 << 16)) > 20
    svg = files[".svg"].read_text()
    for method in efficiency.METHODS[:4]:
        assert method.color.lower() in svg
    assert "dc:date" not in svg
    content = json.loads(results.read_text())
    said = picture.caption(content, efficiency.views(content))
    assert said.startswith("Some Processor, 3 threads; PyTorch 9.8.7; bf16-true, not compiled; batch 1.\n")


def test_the_demo_rows_have_one_panel_and_nothing_published(tmp_path):
    path = tmp_path / "cpu.json"
    path.write_text(json.dumps(made_up(*(made_up_row(f"demo_{name}", 1.4, 1.2, size=128) for name in REDUCERS))))
    status, files = drawn(path)
    assert status == 0
    found = table_lines(files[".md"].read_text(), "Demo scenes 128 x 128")
    assert len(found) == 4
    assert all(row[-2:] == ["-", "-"] for row in found)


def test_check_notices_every_change(results, capsys):
    _, files = drawn(results)
    assert drawn(results, "--check")[0] == 0
    assert capsys.readouterr().err == ""
    for suffix in SUFFIXES:
        path, before = files[suffix], files[suffix].read_bytes()
        if suffix == ".png":
            change_a_pixel(path)
        else:
            path.write_bytes(
                before.replace(b"0", b"1", 1) if suffix == ".md" else before.replace(b"<path", b"<path ", 1)
            )
        assert drawn(results, "--check")[0] == 1
        assert capsys.readouterr().err == f"error: {path} is not what benchmarks/picture.py makes of the results\n"
        path.write_bytes(before)
    files[".svg"].unlink()
    assert drawn(results, "--check")[0] == 1
    assert not files[".svg"].exists()


def change_a_pixel(path):
    from PIL import Image, PngImagePlugin

    with Image.open(path) as image:
        changed, said = image.copy(), PngImagePlugin.PngInfo()
        for name in ("Software", "Description"):
            said.add_text(name, image.info[name])
    changed.putpixel((5, 5), (1, 2, 3, 255))
    changed.save(path, pnginfo=said)


def test_check_notices_other_results_but_not_another_matplotlib(results, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    drawn(results)
    monkeypatch.setattr(matplotlib, "__version__", "0.0.1")
    monkeypatch.setitem(picture.STYLE, "font.size", 9.5)  # as if that version drew a little differently
    assert drawn(results, "--check")[0] == 0
    results.write_text(results.read_text().replace('"crops": 5', '"crops": 6'))  # which no table shows
    assert drawn(results, "--check")[0] == 1


def test_without_matplotlib_there_is_a_table(results, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    docs = results.parent / "docs"
    assert picture.main([str(results), "--docs", str(docs)]) == 1
    assert "pip install -e '.[notebooks]'" in capsys.readouterr().err
    assert [path.suffix for path in docs.rglob("*") if path.is_file()] == [".md"]


STEMS = sorted(path.stem.removeprefix("efficiency_") for path in (DOCS / "tables").glob("efficiency_*.md"))


@pytest.mark.parametrize("stem", STEMS)
def test_pictures_and_tables_in_the_docs_are_those_of_the_results(stem):
    pytest.importorskip("matplotlib")
    assert picture.main([str(RESULTS / f"{stem}.json"), "--check"]) == 0


def test_what_the_docs_link_to_is_there_where_its_results_are():
    links = set(re.findall(r"\((?:pictures|tables)/efficiency_[^)]+\)", (DOCS / "efficiency.md").read_text()))
    assert links
    for link in (link.strip("()") for link in links):
        stem = Path(link).stem.removeprefix("efficiency_")
        assert not (RESULTS / f"{stem}.json").exists() or (DOCS / link).exists()
