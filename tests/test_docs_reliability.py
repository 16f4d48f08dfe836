"""The table of promises, the tests that hold them and their figures."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from docs_scripts import ROOT, make_reliability

CONFTEST = """
import pytest

def pytest_configure(config):
    for mark in ("promise(name)", "slow", "gpu"):
        config.addinivalue_line("markers", mark)

@pytest.fixture
def figure(record_property):
    return lambda name, amount: record_property(f"figure:{name}", amount)
"""
TESTS = """
import pytest

@pytest.mark.promise("soak")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["a::b", "c[d]"])
def test_many(figure, name):
    figure("images", 2000)
    figure("largest growth", 1.5 if name == "a::b" else 0.25)

@pytest.mark.promise("soak")
@pytest.mark.promise("memory")
def test_both(figure):
    figure("images", 10)

@pytest.mark.promise("memory")
@pytest.mark.gpu
def test_elsewhere():
    raise AssertionError("never run")
"""
BAD = """
import pytest

@pytest.fixture
def broken():
    yield
    raise OSError("after the test")

@pytest.mark.promise("audit")
def test_skipped():
    pytest.skip("no network")

@pytest.mark.promise("audit")
def test_failing(broken):
    assert False

@pytest.mark.promise("finite")
def test_passing():
    pass
"""


@pytest.fixture
def table(tmp_path):
    """Runs the script on made-up tests; gives its status, errors, the page and what is stored beside it."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -m 'not slow'\n")

    def make(*words, **files):
        for name, text in files.items():
            (tmp_path / "tests" / f"{name}.py").write_text(text)
        target = tmp_path / "tables" / "reliability.md"
        command = [sys.executable, ROOT / "docs" / "make_reliability.py", "--root", tmp_path, "--page", target, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        stored = target.with_suffix(".json")
        return done.returncode, errors, target.read_text(), json.loads(stored.read_text())["promises"]

    return make


def test_the_table_says_what_ran_and_what_is_missing_and_check_compares_it(table, tmp_path):
    status, errors, page, stored = table(test_good=TESTS)
    assert status == 1
    assert "error: resume: no test holds it" in errors
    assert not any(line.startswith(("error: soak", "error: memory")) for line in errors)
    assert stored["soak"]["tests"] == {
        "tests/test_good.py::test_many": {"passed": 2},
        "tests/test_good.py::test_both": {"passed": 1},
    }
    assert stored["soak"]["figures"] == {"images": 4010.0, "largest growth": 1.5}
    assert stored["memory"]["tests"] == {"tests/test_good.py::test_both": {"passed": 1}}
    line = next(line for line in page.splitlines() if line.startswith("| **soak**"))
    assert "| 3 | 3 | 0 | 0 | images: 4,010, largest growth: 1.5 |" in line
    assert "| 0 | **no test** | 0 | 0 | - |" in next(line for line in page.splitlines() if "**resume**" in line)

    status, errors, *_ = table("--check")
    assert status == 1
    assert not any("the table" in line or "soak" in line for line in errors)
    more = TESTS.replace("test_both", "test_each") + '\n@pytest.mark.promise("nothing")\ndef test_odd(): pass\n'
    errors = table("--check", test_good=more)[1]
    assert "error: soak: the table misses tests/test_good.py::test_each" in errors
    assert "error: memory: the table names tests/test_good.py::test_both, which does not hold it" in errors
    assert "error: 'nothing' is no promise: tests/test_good.py::test_odd" in errors
    (tmp_path / "tables" / "reliability.md").write_text(page.replace("4,010", "5,000"))
    assert any("is not what docs/make_reliability.py makes" in line for line in table("--check", test_good=TESTS)[1])


def test_what_failed_or_was_skipped_shows(table):
    status, errors, page, stored = table(test_bad=BAD)
    assert status == 1
    assert "error: audit: tests/test_bad.py::test_skipped: 1 skipped" in errors
    assert "error: audit: tests/test_bad.py::test_failing: 1 failed" in errors
    assert stored["finite"]["tests"] == {"tests/test_bad.py::test_passing": {"passed": 1}}
    assert "| 2 | 0 | **1** | **1** | - |" in next(line for line in page.splitlines() if "| **audit**" in line)


def test_reports_of_earlier_runs_are_taken_and_the_later_counts(table, tmp_path):
    """Made by two processes at once, as a whole run is; figures come through."""
    pytest.importorskip("xdist")
    (tmp_path / "tests" / "test_bad.py").write_text(BAD)
    (tmp_path / "tests" / "test_good.py").write_text(TESTS)
    first, second = tmp_path / "first.xml", tmp_path / "second.xml"
    command = [sys.executable, "-m", "pytest", "tests", "-n", "2", "-m", "not gpu", "-o", "junit_family=xunit1"]
    subprocess.run([*command, f"--junitxml={first}"], cwd=tmp_path, capture_output=True, timeout=120)
    _, errors, _, stored = table("--junit", first)
    assert stored["soak"]["figures"] == {"images": 4010.0, "largest growth": 1.5}
    assert stored["soak"]["tests"]["tests/test_good.py::test_many"] == {"passed": 2}
    assert "error: audit: tests/test_bad.py::test_failing: 1 failed" in errors

    second.write_text('<s><testcase classname="tests.test_bad" name="test_failing" time="1"/></s>')
    _, errors, _, stored = table("--junit", first, "--junit", second)
    assert stored["audit"]["tests"]["tests/test_bad.py::test_failing"] == {"passed": 1}
    assert stored["soak"]["figures"] == {"images": 4010.0, "largest growth": 1.5}
    assert not any("test_failing" in error for error in errors)


@pytest.mark.parametrize("text", [None, "no XML", "<testsuites/>"])
def test_a_report_that_is_none_is_an_error(tmp_path, text):
    file = tmp_path / "report.xml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RuntimeError, match=r"report\.xml"):
        make_reliability.read_reports([file])


def test_a_case_that_never_ran_is_an_error():
    cases = [("soak", "tests/a/test_x.py::test_y[1::2]"), ("soak", "tests/a/test_x.py::test_y[3]")]
    report = '<s><testcase classname="tests.a.test_x" name="test_y[1::2]" time="2.5"/></s>'
    records = make_reliability.gather(cases, [ElementTree.fromstring(report)])
    assert records["soak"].tests == {"tests/a/test_x.py::test_y": {"passed": 1, "not run": 1}}
    assert records["soak"].seconds == 2.5
    assert "soak: tests/a/test_x.py::test_y: 1 not run" in list(make_reliability.complaints(records))


def test_a_test_that_passes_and_then_breaks_in_its_fixture_has_failed():
    case = '<testcase classname="tests.test_x" name="test_y" time="1">{}</testcase>'
    report = ElementTree.fromstring(f"<s>{case.format('')}{case.format('<error/>')}</s>")
    records = make_reliability.gather([("soak", "tests/test_x.py::test_y")], [report])
    assert records["soak"].tests == {"tests/test_x.py::test_y": {"failed": 1}}


def test_the_committed_table_names_the_tests_that_there_are():
    script = ROOT / "docs" / "make_reliability.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
