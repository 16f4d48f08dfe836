"""``report``: compare any number of results."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..files import claim_output, write_atomically
from ..text import visible
from .parser import Parser

PAGE_FILE = "report.html"
_OWN_FILES = re.compile(r"(front_\w+|per_class)\.(png|svg|csv)")


def run(arguments: Sequence[str]) -> int:
    """Read the results, write the report and print where it is."""
    options = make_parser().parse_args(list(arguments))
    # Only here: pandas and plotly take a moment to import, and --help needs neither.
    from ..analysis.report import make_report, report_files

    report = make_report(options.paths)
    claim_output(options.output, options.output / PAGE_FILE, options.overwrite)
    files = report_files(report)
    for name, content in files.items():
        write_atomically(options.output / name, content)
    for path in options.output.iterdir():
        if path.name not in files and _OWN_FILES.fullmatch(path.name):
            path.unlink()  # of an earlier report: it would be taken for a part of this one
    for caution in report.cautions:
        print(f"note: {caution}")
    for missing in report.missing:
        print(f"missing: {missing.what}\n  {missing.command}")
    print(f"the report is {visible(options.output / PAGE_FILE)}; tables are beside it")
    return 0


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser("report", "Compare any number of results: tables, Pareto fronts, IoU per class, and one page.")
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="results.json, benchmark.json or folders that hold them")
    add("--output", type=Path, default=Path("runs/report"), help="folder to write to (runs/report)")
    add("--overwrite", action="store_true", help="replace an existing report")
    return parser
