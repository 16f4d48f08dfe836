"""The report's page in a browser without a network: sorting, hovering, choosing, and how it looks."""

import re
import shutil

import pytest
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
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map((value) => value / 255)
      .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const of = (one) => {
    const style = getComputedStyle(one);
    const own = one instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(own), light(behind(one))].sort((x, y) => y - x);
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
    names = heads.all_inner_texts()
    index = next(place for place, name in enumerate(names) if name.startswith("speed-up"))
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
    values = column(table, index)
    assert values[-1] is None
    assert [float(value) for value in values[:-1]] == numbers[::-1]
    heads.nth(0).locator("button").click()
    assert heads.nth(index).get_attribute("aria-sort") == "none"
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"


def test_pointing_at_any_sign_shows_its_setting_and_figures(files, open_page):
    page = open_page(files["report.html"])
    points = page.locator("#chart .point")
    assert points.count() == 13
    front = page.locator("#chart .point:not(.beaten)")
    assert 1 < front.count() < 13
    for index in range(front.count()):
        front.nth(index).hover()
        tip = page.locator(".tip")
        assert tip.is_visible()
        label = front.nth(index).get_attribute("aria-label")
        lines = tip.locator("strong, span").all_inner_texts()
        assert label == ", ".join(lines)
        assert any(re.fullmatch(r"mIoU [\d.]+ %( \(.*points\))?", line) for line in lines)
        assert any(re.match(r"latency [\d.]+ ms", line) for line in lines)
    page.mouse.move(0, 0)
    assert not tip.is_visible()
    front.nth(0).focus()
    assert tip.is_visible()


def test_the_horizontal_axis_can_be_chosen(files, open_page):
    page = open_page(files["report.html"])
    titles = []
    for index in range(5):
        page.select_option("#chart-axis", str(index))
        titles.append(page.locator("#chart svg").get_attribute("aria-label"))
        assert page.locator("#chart .front").count() == 1
    assert len(set(titles)) == 5
    assert "images/s (batch 4; Some Processor, 2 threads, 32-true)" in titles[1]


def test_settings_that_lose_much_can_be_left_out_of_the_chart(open_page, tmp_path):
    sweep(tmp_path / "runs", 13)
    for loss in (4.0, 30.0):
        method = ("ToMe", {"ratio": 0.9 + loss / 1000})
        write(tmp_path / f"runs/{loss}/results.json", scores(method, loss))
        write(tmp_path / f"runs/{loss}/benchmark.json", benchmark(row(method, 2.0, 3.0 + loss)))
    page = open_page(report_files(make_report([tmp_path / "runs"]))["report.html"])
    assert page.locator("#chart .point").count() == 15
    page.check("#chart-near")
    assert page.locator("#chart .point").count() == 14
    assert page.locator("#chart .front").count() == 1
    page.uncheck("#chart-near")
    assert page.locator("#chart .point").count() == 15


def test_the_classes_of_another_setting_can_be_chosen(files, open_page):
    page = open_page(files["report.html"])
    differences = []
    for index in (0, 13 - 1):
        page.select_option("#class-setting", str(index))
        differences.append([float(value) for value in column(page.locator("#class-table"), 2)])
    assert differences[0] != differences[1]
    assert differences[1] == sorted(differences[1])
    assert len(differences[1]) == 11
    assert page.locator("#class-table .down").count() == 11


def test_a_narrow_page_scrolls_its_tables_and_not_itself(files, open_page):
    page = open_page(files["report.html"], width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".scroll").first.evaluate("(one) => one.scrollWidth > one.clientWidth")
    assert page.locator("#chart svg").bounding_box()["width"] <= 360
    sizes = page.locator("text, td, th, p, li, summary").evaluate_all(
        "(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(files, open_page, scheme):
    page = open_page(files["report.html"], scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST, "h1, h2, p, li, th, td, button, summary, label, .chart text") >= 4.5


def test_nasty_names_do_nothing(open_page, tmp_path):
    from test_report_cautions import NASTY

    write(tmp_path / "runs/none/results.json", scores(classes=NASTY))
    for index, text in enumerate(NASTY):
        method = (f"some.{text}", {"ratio": text})
        write(tmp_path / f"runs/{index}/results.json", scores(method, 1.0 + index, classes=NASTY))
        write(tmp_path / f"runs/{index}/benchmark.json", benchmark(row(method, 1.2, 1.1)))
    page = open_page(report_files(make_report([tmp_path / "runs"]))["report.html"])
    page.locator("#chart .point").first.hover()
    page.select_option("#class-setting", "3")
    assert page.locator("img[src='x'], script[src]").count() == 0
    assert page.locator("#class-table th").filter(has_text="<script>alert(1)</script>").count() >= 1
