"""``report``: compare any number of results."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..files import claim_output, write_atomically
from .parser import Parser

MADE_FILES = re.compile(r"(front_(latency|throughput|speedup|gflops|memory)|per_class)(_\d+)?\.(png|svg|csv)")


def run(arguments: Sequence[str]) -> int:
    """Read the results, write the report and say where it is."""
    options = make_parser().parse_args(list(arguments))
    # Only here: pictures and pages take a moment to import, and --help needs neither.
    from ..analysis.report import PAGE_FILE, make_report, report_files

    report = make_report(options.paths)
    claim_output(options.output, options.output / PAGE_FILE, options.overwrite)
    files = report_files(report)
    for name, content in files.items():
        write_atomically(options.output / name, content)
    remove_others(options.output, files)
    for caution in report.cautions:
        print(f"note: {caution}")
    for missing in report.missing:
        print(f"missing: {missing.what}\n  {missing.command}")
    print(f"the report is {options.output / PAGE_FILE}; tables and pictures are beside it")
    return 0


def remove_others(output: Path, files: Iterable[str]) -> None:
    """Remove pictures and tables of an earlier report that this one does not have: they would pass for its own."""
    for path in output.iterdir():
        if path.name not in files and MADE_FILES.fullmatch(path.name):
            path.unlink()


def make_parser() -> Parser:
    """Make the parser of the subcommand's options."""
    parser = Parser("report", "Compare any number of results: tables, Pareto fronts, gains per class, and one page.")
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="results.json, benchmark.json or folders that hold them")
    add("--output", type=Path, default=Path("runs/report"), help="folder to write to (runs/report)")
    add("--overwrite", action="store_true", help="replace a report that is there already")
    return parser
