"""Write ``docs/concepts/determinism.md`` from what ``benchmarks/determinism.py`` measured.

    python docs/make_determinism.py

``--check`` writes nothing and fails where the page is not what would be written.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from efficiency import cells  # noqa: E402

from lightning_expedite.files import write_atomically  # noqa: E402

PAGE = ROOT / "docs" / "concepts" / "determinism.md"
RESULTS = ROOT / "benchmarks" / "results" / "determinism.json"

TEXT = """\
<!-- Written by docs/make_determinism.py: not to be edited. -->
# What repeats exactly

Pixel counts are whole numbers, and the same command gives the same ones. They stay the same to the last pixel

- in a second run, in another process or the same one;
- with any number of processes, on one node or several, and any division of the images among them;
- with any `--data.batch_size` and `--data.num_workers`: windows of two images never share a pass through the model;
- with `ACT`, whose random directions come from `--model.reducer.seed` and are the same for every window.

Tests compare them. What floating point makes of other settings is a matter of rounding: libraries add in another order
when a product has another size, number of threads or program. Where two classes are all but equally likely, or two
tokens all but equally far from a third, that decides otherwise. So it is with another `--model.window_batch_size`,
another number of threads, packed weights or not, compiled or not, another precision, device or version of a library.

## How much that changes

Measured by `benchmarks/determinism.py` with the bundled model on the first {images} bundled scenes, {pixels:,} pixels
({device}, PyTorch {torch}, commit `{commit}`). Each row changes one setting; otherwise 4 windows go through the model
at once, on 1 thread, uncompiled, with packed weights. Cells hold the number of pixels with another label and, where
there are any, the change of mIoU in points.

{table}

The largest number of pixels that change within `32-true` is {most_32:,}, and the largest change {largest_32:.4f} points
of mIoU; within `bf16-true` these are {most_16:,} and {largest_16:.4f} points. These are figures of one model on one
machine: 0 there is no promise for others. To compare two results to the last digit, keep these settings alike;
`results.json` holds all of them.
"""


def page(content: Mapping[str, Any]) -> str:
    """Make the whole page."""
    rows = content["rows"]
    within = {
        precision: [row for row in rows if row["before"]["precision"] == row["after"]["precision"] == precision]
        for precision in ("32-true", "bf16-true")
    }
    most = [max(row["changed"] for row in some) for some in within.values()]
    largest = [max(abs(difference(row)) for row in some) for some in within.values()]
    return TEXT.format(
        **content["environment"],
        images=content["images"],
        pixels=rows[0]["pixels"],
        table=table(rows),
        most_32=most[0],
        most_16=most[1],
        largest_32=largest[0],
        largest_16=largest[1],
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Show each change in a line and each config in a column."""
    configs = list(dict.fromkeys(row["config"] for row in rows))
    found = {(row["change"], row["config"]): row for row in rows}
    lines = [cells(["change", *(f"`{config}`" for config in configs)]), cells(["---", *["---:"] * len(configs)])]
    for change in dict.fromkeys(row["change"] for row in rows):
        lines.append(cells([change, *(cell(found[change, config]) for config in configs)]))
    return "\n".join(lines)


def cell(row: Mapping[str, Any]) -> str:
    """Show one measurement."""
    return f"{row['changed']:,} ({difference(row):+.4f})" if row["changed"] else "0"


def difference(row: Mapping[str, Any]) -> float:
    """Give by how many points a change raised mIoU."""
    before, after = row["mIoU"]
    return after - before


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not as it would be")
    known = parser.parse_args(arguments)
    made = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    if not known.check:
        write_atomically(PAGE, made.encode())
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
        print(f"error: {PAGE} is not what docs/make_determinism.py makes; run it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
