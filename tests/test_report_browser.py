"""The report's page in a browser without a network: sorting, filtering, hovering, and how it looks."""

import re
import shutil

import pytest
from nasty import NASTY
from results_files import benchmark, row, scores, sweep, write

from lightning_expedite.analysis.report import make_report, report_files

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
CONTRAST = """
(selector) => {
  const light = (color) => {
    const full = color.startsWith("color(srgb") ? 1 : 255;  // of a mixed color
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / full)
      .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    const color = one ? getComputedStyle(one).backgroundColor : "rgb(255, 255, 255)";
    return color === "rgba(0, 0, 0, 0)" ? behind(one.parentElement) : color;
  };
  const of = (one) => {
    const style = getComputedStyle(one);
    const own = light(one instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [own, light(behind(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  return Math.min(...[...document.querySelectorAll(selector)].map(of));
}
"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    sweep(folder / "runs", 13)
    write(folder / "runs/untimed/results.json", scores(("ToMe", {"ratio": 0.99}), 40.0))
    return report_files(make_report([folder / "runs"]))


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page offline; at the end there must have been no request, dialog or error."""
    contexts, trouble = [], []

    def visit(content, width=1200, scheme="light"):
        path = tmp_path / "report.html"
        path.write_bytes(content)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        own = path.as_uri()
        page.on("request", lambda one: None if one.url.startswith(("data:", own)) else trouble.append(one.url))
        page.on("console", lambda one: trouble.append(one.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.goto(own)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert trouble == []


def column(table, index):
    return table.locator("tbody tr").evaluate_all(
        "(rows, index) => rows.map((row) => row.cells[index].dataset.value ?? null)", index
    )


def test_columns_are_sorted_by_mouse_and_keyboard_with_missing_values_last(files, open_page):
    page = open_page(files["report.html"])
    table = page.locator("table.sortable").first
    heads = table.locator("thead th")
    index = next(place for place, name in enumerate(heads.all_inner_texts()) if name.startswith("speed-up"))
    button = heads.nth(index).locator("button")
    button.click()
    values = column(table, index)
    assert values[-1] is None
    numbers = [float(value) for value in values[:-1]]
    assert numbers == sorted(numbers)
    assert heads.nth(index).get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert heads.nth(index).get_attribute("aria-sort") == "descending"
    assert column(table, index) == [*values[-2::-1], None]
    heads.nth(0).locator("button").click()
    assert [heads.nth(one).get_attribute("aria-sort") for one in (index, 0)] == ["none", "ascending"]


def test_rows_are_filtered_by_words(files, open_page):
    page = open_page(files["report.html"])
    rows, words = page.locator("#table-1 tbody tr:visible"), page.locator("input[data-table=table-1]")
    words.fill("tome 0.05")
    assert rows.locator("th").all_inner_texts() == ["ToMe ratio 0.05"]
    words.fill("")
    assert rows.count() == 14


def test_every_marker_shows_its_setting_and_figures_to_the_mouse_and_to_the_keyboard(files, open_page):
    page = open_page(files["report.html"])
    markers = page.locator("#chart .points path")
    assert markers.count() == 13
    label = page.locator("#chart .hoverlayer .hovertext")
    for place in range(0, 13, 4):
        markers.nth(place).focus()
        label.wait_for()
        shown = label.text_content()
        assert shown.startswith(markers.nth(place).get_attribute("aria-label").partition(", mIoU")[0])
        assert re.search(r"mIoU, %: [\d.]+", shown)
        assert re.search(r"latency, ms: [\d.]+ \[", shown)
    markers.nth(12).evaluate("(one) => one.blur()")
    label.wait_for(state="detached")
    box = markers.nth(3).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label.wait_for()


def test_the_axis_can_be_chosen_and_a_method_hidden(files, open_page):
    page = open_page(files["report.html"])
    title = page.locator("#chart .xtitle")
    for index, part in enumerate(("latency of one window", "images/s (batch 4)", "speed-up over", "multiply-adds")):
        page.select_option("#chart-axis", str(index))
        sync_api.expect(title).to_contain_text(part)
    page.locator("#chart .legendtoggle").nth(2).click()
    sync_api.expect(page.locator("#chart .points path")).to_have_count(10)


def test_a_narrow_page_scrolls_its_tables_and_not_itself(files, open_page):
    page = open_page(files["report.html"], width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".scroll").first.evaluate("(one) => one.scrollWidth > one.clientWidth")
    page.locator("#chart svg").first.wait_for()
    assert page.locator("#chart svg").first.bounding_box()["width"] <= 360
    sizes = page.locator("td, th, p, li, summary").evaluate_all(
        "(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(files, open_page, scheme):
    page = open_page(files["report.html"], scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    page.locator("#chart .xtitle").wait_for()
    assert page.evaluate(CONTRAST, "h1, h2, p, li, th, td, button, summary, label, #chart text") >= 4.5


def test_nasty_names_do_nothing(open_page, tmp_path):
    write(tmp_path / "runs/none/results.json", scores(classes=NASTY))
    for index, text in enumerate(NASTY):
        method = (f"some.{text}", {"ratio": text})
        write(tmp_path / f"runs/{index}/results.json", scores(method, 1.0 + index, classes=NASTY))
        write(tmp_path / f"runs/{index}/benchmark.json", benchmark(row(method, 1.2, 1.1)))
    page = open_page(report_files(make_report([tmp_path / "runs"]))["report.html"])
    page.locator("#chart .points path").first.focus()
    page.locator("#chart .hoverlayer .hovertext").wait_for()
    assert page.locator("img[src='x'], script[src], #chart a[href]").count() == 0
    assert page.locator("#class-table-1 th").filter(has_text="<script>alert(1)</script>").count() >= 1
