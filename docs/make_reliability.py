"""Write ``docs/tables/reliability.md``: what is promised, the tests that hold it, and what they went through.

    python docs/make_reliability.py

runs every test that is marked ``promise``, slow ones too but none that needs a GPU, and writes the table and
``docs/tables/reliability.json`` beside it. Words after ``--`` go to pytest, such as ``-- -n 2``. Where the tests ran
already, with ``pytest -m "not gpu" --junitxml FILE -o junit_family=xunit1``, ``--junit FILE`` takes what came of it
instead; given several times, a later file counts for the cases that it holds. The exit status is 1 where a test failed,
was skipped or did not run, or a promise has no test: the table is written all the same and says which. ``--check`` runs
and writes nothing; it fails where the committed table does not name exactly the promises and tests that there are.

Figures that tests report are added up by name; of those whose name begins with ``largest`` the largest counts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lightning_expedite.files import write_atomically  # noqa: E402

PAGE = ROOT / "docs" / "tables" / "reliability.md"
SELECTION = "promise and not gpu"
OUTCOMES = ("passed", "failed", "skipped", "not run")
FIGURE = "figure:"
LARGEST = "largest"

PROMISES = {
    "resume": "A run that was interrupted goes on with `--resume true`. Its results are those of a run that was not "
    "interrupted, and it refuses to go on with other settings, weights or data.",
    "one-run-per-folder": "Two runs never write to the same output folder at the same time.",
    "distribution": "Every image is counted exactly once, and scores do not depend on the number of processes.",
    "two-nodes": "Two nodes, each started by itself, give the results of one process.",
    "lost-process": "Where one of several processes is killed or stops with an error, the others end soon and say why. "
    "None waits forever for one that is gone.",
    "deterministic": "A run that is repeated gives the same results, to the last digit.",
    "bad-checkpoints": "A checkpoint that is damaged, incomplete or of another model is refused with one line that "
    "names it.",
    "bad-images": "An image that is damaged or of a kind that is not supported is refused with one line that names it.",
    "bad-labels": "A label that is damaged, of another size than its image or with values that are no class is refused "
    "with one line that names it.",
    "bad-lists": "Images and labels that do not pair, and lists of images that name what is not there, are refused.",
    "bad-configs": "A setting that is unknown, of the wrong type or out of its range is refused with one line that "
    "names it.",
    "finite": "Logits that are NaN or infinite never end up in a score: the run stops and names the image, the "
    "precision and the first part of the model that gave them.",
    "warnings": "What makes a score doubtful is said once, on screen and in the results. A usual run warns of nothing.",
    "oldest-versions": "The versions that `.ci/oldest` tests are the oldest ones that the set-up allows.",
    "audit": "The look-up of known vulnerabilities does not pass where a package was not looked up.",
    "downloads": "A download that breaks off or is not what it should be never takes the place of whole weights.",
    "no-code": "Nothing that was downloaded or loaded is executed: neither checkpoints nor repositories.",
    "escaped": "Names from files, such as those of classes and images, cannot bring code into a report's page.",
    "memory": "The memory that `test` takes at most follows from a formula.",
    "out-of-memory": "Where memory runs out, half as many windows go through the model at once from then on, and the "
    "labels stay the same. The second time the run ends and says what to give.",
    "soak": "Thousands of images take no more memory, files or time per image than the first hundreds.",
}


@dataclass
class Record:
    """What the tests of one promise went through."""

    tests: dict[str, Counter[str]] = field(default_factory=dict)  # cases by outcome
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        """Count the cases of all tests with one outcome."""
        return sum(cases[outcome] for cases in self.tests.values())

    def as_dict(self) -> dict[str, Any]:
        """Give it in JSON's types."""
        tests = {test: dict(cases) for test, cases in self.tests.items()}
        return {"tests": tests, "figures": self.figures, "seconds": round(self.seconds, 1)}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Record":
        """Give what `as_dict` made a dictionary of."""
        tests = {test: Counter(cases) for test, cases in stored["tests"].items()}
        figures = {name: float(amount) for name, amount in stored["figures"].items()}
        return cls(tests, figures, stored["seconds"])


# --- Finding and running -----------------------------------------------------------------------------


class Listing:
    """A plugin of pytest that keeps which tests there are, and what they hold."""

    def __init__(self) -> None:
        self.cases: list[tuple[str, str]] = []  # a promise and a test's case

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep them."""
        for item in session.items:
            for mark in item.iter_markers("promise"):
                self.cases.append((mark.args[0], item.nodeid))


def collect(root: Path) -> list[tuple[str, str]]:
    """Give each promise with each case of a test that holds it, by pytest's names.

    Raises:
        RuntimeError: The tests cannot be collected.
    """
    listing = Listing()
    words = [str(root / "tests"), "--rootdir", str(root), "-m", SELECTION, "--collect-only", "-qq", "--no-summary"]
    status = pytest.main([*words, "-p", "no:cacheprovider"], plugins=[listing])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest cannot collect the tests (status {int(status)})")
    return listing.cases


def run(root: Path, words: Sequence[str]) -> ElementTree.Element:
    """Run the tests; gives pytest's JUnit report.

    Raises:
        RuntimeError: pytest ended without one.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(root / "tests"), "--rootdir", str(root), "-m", SELECTION]
        command += [f"--junitxml={report}", "-o", "junit_family=xunit1"]  # the other families know no properties
        done = subprocess.run([*command, *words], cwd=root)
        if not report.exists():
            raise RuntimeError(f"pytest ended with status {done.returncode} and without a report")
        return ElementTree.parse(report).getroot()


def read_reports(files: Sequence[Path]) -> list[ElementTree.Element]:
    """Read JUnit reports of runs that were made before.

    Raises:
        RuntimeError: One cannot be read, or holds no case of a test.
    """
    reports = []
    for file in files:
        try:
            report = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise RuntimeError(f"{file} cannot be read as a JUnit report: {error}") from error
        if report.find(".//testcase") is None:
            raise RuntimeError(f"{file} holds no test: give what pytest --junitxml wrote")
        reports.append(report)
    return reports


def seconds_of(reports: Iterable[ElementTree.Element]) -> float:
    """Add up how long the runs took by the clock."""
    return sum(float(suite.get("time", 0)) for report in reports for suite in report.iter("testsuite"))


def reported_name(case: str) -> tuple[str, str]:
    """Give what a JUnit report calls a case that pytest calls ``tests/test_x.py::test_y[z]``: its class and name."""
    path, bracket, parameters = case.partition("[")
    file, *names = path.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *names[:-1]]), names[-1] + bracket + parameters


def outcomes_of(report: ElementTree.Element) -> Iterator[tuple[tuple[str, str], str, float, dict[str, float]]]:
    """Give the cases of a JUnit report: class and name, outcome, seconds and figures."""
    for case in report.iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        figures = {
            found.get("name", "").removeprefix(FIGURE): float(found.get("value", "nan"))
            for found in case.iter("property")
            if found.get("name", "").startswith(FIGURE)
        }
        yield (case.get("classname", ""), case.get("name", "")), outcome, float(case.get("time", 0)), figures


def gather(cases: Iterable[tuple[str, str]], reports: Iterable[ElementTree.Element]) -> dict[str, Record]:
    """Put together what was to be run and what came of it, promise by promise.

    Of two outcomes of a case in one report the worse counts; of two reports the later.
    """
    came: dict[tuple[str, str], list[tuple[str, float, dict[str, float]]]] = {}
    for report in reports:
        here: dict[tuple[str, str], list[tuple[str, float, dict[str, float]]]] = {}
        for name, outcome, seconds, figures in outcomes_of(report):
            here.setdefault(name, []).append((outcome, seconds, figures))
        came |= here
    records = {promise: Record() for promise in PROMISES}
    for promise, case in cases:
        record = records.setdefault(promise, Record())
        parts = came.get(reported_name(case), [("not run", 0.0, {})])
        worst = max((outcome for outcome, _, _ in parts), key=("passed", "skipped", "not run", "failed").index)
        record.tests.setdefault(case.partition("[")[0], Counter())[worst] += 1
        for _, seconds, figures in parts:
            record.seconds += seconds
            for name, amount in figures.items():
                add_figure(record.figures, name, amount)
    return records


def add_figure(figures: dict[str, float], name: str, amount: float) -> None:
    """Add a test's figure to those of others."""
    if name not in figures:
        figures[name] = amount
    elif name.startswith(LARGEST):
        figures[name] = max(figures[name], amount)
    else:
        figures[name] += amount


# --- Judging -----------------------------------------------------------------------------------------


def complaints(records: Mapping[str, Record]) -> Iterator[str]:
    """Give what stands against the promises: one line each."""
    for promise, record in records.items():
        if promise not in PROMISES:
            yield f"{promise!r} is no promise: {', '.join(record.tests)}"
        if not record.tests:
            yield f"{promise}: no test holds it"
        for test, cases in record.tests.items():
            bad = [f"{cases[outcome]} {outcome}" for outcome in OUTCOMES[1:] if cases[outcome]]
            if bad:
                yield f"{promise}: {test}: {', '.join(bad)}"


def differences(records: Mapping[str, Record], cases: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Give where the committed records do not name exactly the tests that there are: one line each."""
    there: dict[str, set[str]] = {promise: set() for promise in PROMISES}
    for promise, case in cases:
        there.setdefault(promise, set()).add(case.partition("[")[0])
    for promise in dict.fromkeys((*there, *records)):
        tests, named = there.get(promise, set()), set(records[promise].tests if promise in records else ())
        if promise not in PROMISES:
            yield f"{promise!r} is no promise: {', '.join(sorted(tests | named))}"
        elif not tests:
            yield f"{promise}: no test holds it"
        yield from (f"{promise}: the table misses {test}" for test in sorted(tests - named))
        yield from (f"{promise}: the table names {test}, which does not hold it" for test in sorted(named - tests))


# --- The page ----------------------------------------------------------------------------------------

PAGE_TEXT = """\
<!-- Written by docs/make_reliability.py: not to be edited. -->
# Reliability: the tests

What the promises mean stands in [Reliability](../reliability.md). A test is counted once for each set of its
parameters. Figures are those that the tests report themselves. {made}

{summary}

## Promise by promise

{sections}
"""


def page(made: Mapping[str, Any], records: Mapping[str, Record]) -> str:
    """Make the whole page."""
    said = (
        f"The tests ran for {made['seconds'] / 60:.0f} minutes; the table was made at commit {made['commit']} with "
        f"Python {made['python']} and PyTorch {made['torch']}."
    )
    return PAGE_TEXT.format(made=said, summary=summary(records), sections="\n\n".join(sections(records)))


def summary(records: Mapping[str, Record]) -> str:
    """Make the table with one line for each promise."""
    lines = ["| promise | tests | passed | failed | skipped | figures | seconds |", "|---|:-:|:-:|:-:|:-:|---|:-:|"]
    for promise, record in records.items():
        numbers = [shown_bad(record, outcome) for outcome in ("failed", "skipped")]
        passed = f"{record.count('passed')}" if record.tests else "**no test**"
        cells = [said(promise), f"{sum(record.count(outcome) for outcome in OUTCOMES)}", passed, *numbers]
        lines.append(f"| {' | '.join([*cells, figures_of(record), f'{record.seconds:.0f}'])} |")
    return "\n".join(lines)


def said(promise: str) -> str:
    """Give a promise's name and words."""
    return f"**{promise}**: {PROMISES.get(promise, 'not a promise')}"


def shown_bad(record: Record, outcome: str) -> str:
    """Show how many cases failed or were skipped, so that nobody overlooks any; what did not run has failed."""
    number = record.count(outcome) + (record.count("not run") if outcome == "failed" else 0)
    return f"**{number}**" if number else "0"


def figures_of(record: Record) -> str:
    """Show figures, large numbers with separators."""
    return ", ".join(f"{name}: {shown(amount)}" for name, amount in record.figures.items()) or "-"


def shown(amount: float) -> str:
    """Show a whole number as it is, any other with three digits."""
    return f"{int(amount):,}" if amount.is_integer() else f"{amount:,.3g}"


def sections(records: Mapping[str, Record]) -> Iterator[str]:
    """Make a section with the tests of each promise."""
    for promise, record in records.items():
        lines = [f"### {promise}", "", PROMISES.get(promise, "Not a promise."), ""]
        for test, cases in record.tests.items():
            counted = ", ".join(f"{cases[outcome]} {outcome}" for outcome in OUTCOMES if cases[outcome])
            lines.append(f"- `{test}`: {counted}")
        yield "\n".join(lines if record.tests else [*lines, "No test."])


# --- The command -------------------------------------------------------------------------------------


def make(root: Path, target: Path, files: Sequence[Path], words: Sequence[str]) -> int:
    """Run the tests, or read what came of them, and write the table; gives the exit status."""
    cases = collect(root)
    reports = read_reports(files) if files else [run(root, words)]
    records = gather(cases, reports)
    made = {
        "seconds": round(seconds_of(reports)),
        "commit": commit_of(ROOT),
        "python": sys.version.split()[0],
        "torch": version("torch"),
    }
    stored = {"made": made, "promises": {promise: record.as_dict() for promise, record in records.items()}}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target.with_suffix(".json"), (json.dumps(stored, indent=1) + "\n").encode())
    write_atomically(target, page(made, records).encode())
    return tell(complaints(records))


def commit_of(folder: Path) -> str:
    """Give the commit of a checkout, with ``-dirty`` where files differ from it."""
    command = ["git", "-C", str(folder), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def check(root: Path, target: Path) -> int:
    """Compare the committed table with the tests that there are; gives the exit status."""
    try:
        stored = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        written = target.read_text(encoding="utf-8")
    except OSError as error:
        return tell([f"{error.filename} cannot be read ({error.strerror}); run docs/make_reliability.py"])
    records = {promise: Record.of(record) for promise, record in stored["promises"].items()}
    found = list(differences(records, collect(root)))
    if written != page(stored["made"], records):
        found.append(f"{target} is not what docs/make_reliability.py makes of {target.with_suffix('.json').name}")
    return tell(found)


def tell(lines: Iterable[str]) -> int:
    """Print errors; gives the exit status."""
    status = 0
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
        status = 1
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or compare it; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with the folder of the tests (this repository)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the table (docs/tables/reliability.md)")
    parser.add_argument("--check", action="store_true", help="run nothing; fail where the table names other tests")
    parser.add_argument(
        "--junit",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="run nothing; take a JUnit report of pytest (may be given several times)",
    )
    parser.add_argument("pytest", nargs="*", help="words for pytest, after --")
    known = parser.parse_args(arguments)
    try:
        if known.check:
            return check(known.root, known.page)
        return make(known.root, known.page, known.junit, known.pytest)
    except RuntimeError as error:
        return tell([str(error)])


if __name__ == "__main__":
    sys.exit(main())
