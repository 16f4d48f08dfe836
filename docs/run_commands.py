"""Run the commands that the README and the documentation show.

    python docs/run_commands.py

runs every block of Bash in ``README.md`` and below ``docs``, each page's in a temporary copy of the tracked and new
files, one after another and from its top folder. A block stays out where the line above it says why:

    <!-- not run: needs the user's data -->

or names the part of ``.ci/run`` that runs it (``<!-- ci: demo -->``). What a page takes for granted is made by a
command that readers do not see:

    <!-- before: python -m lightning_expedite test --config configs/demo_none.yaml --output runs/none -->

A copy has a folder ``photos`` of three pictures, as a user has some, and a home folder of its own; ``pip`` does nothing
there, as what it installs has to be there already. Two pages run side by side, each with half of the cores: threads in
excess of the cores wait for each other, and all become ten times slower. What was run, how long it took and what was
left out is printed; the exit status is 1 where a command failed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\w*)")
NOT_RUN = re.compile(r"^\s*<!-- not run: (.+) -->\s*$")
BEFORE = re.compile(r"^\s*<!-- before: (.+) -->\s*$")
IN_CI = re.compile(r"^\s*<!-- ci: ([\w-]+) -->\s*$")
SECONDS = 600  # a block may take
PHOTOS = 3
TAIL = 4000  # characters that are shown of a failing block's output


@dataclass(frozen=True)
class Block:
    """A block of commands: where it begins, what it is, and why it is not run here."""

    page: str
    line: int
    commands: str
    reason: str | None

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Outcome:
    """What came of running a block."""

    block: Block
    seconds: float
    status: int
    output: str


# --- Finding -----------------------------------------------------------------------------------------


def find_blocks(root: Path) -> list[Block]:
    """List the blocks of Bash in the README and in all pages, page by page."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [block for page in pages for block in blocks_of(page.read_text("utf-8"), str(page.relative_to(root)))]


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """List the blocks of Bash of one page, those in lists and notes too, and what is to be run before them."""
    indent: str | None = None  # of the fence that is open
    language, start, above = "", 0, ""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = FENCE.match(line)
        if indent is None and fence:
            indent, language, start, lines = fence.group(1), fence.group(2), number, []
        elif indent is not None and line.strip() == "```":
            if language in ("bash", "sh", "shell", "console"):
                yield Block(page, start, "\n".join(lines) + "\n", why_not(above))
            indent, above = None, ""
        elif indent is not None:
            lines.append(line.removeprefix(indent))
        elif before := BEFORE.match(line):
            yield Block(page, number, f"{before.group(1)}\n", None)
        elif line.strip():
            above = line


def why_not(above: str) -> str | None:
    """Read from the line above a block why it is not run."""
    said, named = NOT_RUN.match(above), IN_CI.match(above)
    if named:
        return f".ci/run runs it as {named.group(1)!r}"
    return said.group(1) if said else None


# --- Running -----------------------------------------------------------------------------------------


def copy_tree(root: Path, target: Path) -> None:
    """Copy the files that git tracks or would, with a ``.venv`` that is the running interpreter's environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    (target / ".venv").symlink_to(sys.prefix)


def make_photos(folder: Path) -> None:
    """Draw the pictures of a stand-in for a user's folder."""
    from PIL import Image

    from lightning_expedite.data.scenes import VALIDATION, draw_scene

    folder.mkdir()
    for number, scene in enumerate(VALIDATION[:PHOTOS]):
        Image.fromarray(draw_scene(scene)[0]).save(folder / f"photo_{number}.png")


def disarm_pip(folder: Path) -> None:
    """Make a ``pip`` that does nothing, as a command and as a module: the environment is not the copy's own."""
    command, module = folder / "bin" / "pip", folder / "modules" / "pip" / "__main__.py"
    for path in (command, module):
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    module.with_name("__init__.py").touch()


def run_page(blocks: Sequence[Block], root: Path, threads: int) -> list[Outcome]:
    """Run a page's blocks in one copy, in their order; those after a failing one too."""
    with tempfile.TemporaryDirectory(prefix="docs_commands_") as folder:
        tree = Path(folder) / "tree"
        for path in (tree, tree.parent / "home"):
            path.mkdir()
        disarm_pip(tree.parent)
        copy_tree(root, tree)
        make_photos(tree / "photos")
        return [run_block(block, tree, threads) for block in blocks]


def run_block(block: Block, tree: Path, threads: int) -> Outcome:
    """Run a block in a tree, as a user whose environment is active would, on so many threads."""
    search = os.pathsep.join([str(tree.parent / "bin"), str(tree / ".venv" / "bin"), os.environ["PATH"]])
    modules = os.pathsep.join([str(tree), str(tree.parent / "modules")])
    home = str(tree.parent / "home")
    environment = {**os.environ, "PATH": search, "PYTHONPATH": modules, "HOME": home, "COLUMNS": "100"}
    environment["OMP_NUM_THREADS"] = str(threads)
    start = time.monotonic()
    try:
        answer = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.commands],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        status, output = answer.returncode, answer.stdout
    except subprocess.TimeoutExpired as error:
        status, output = 124, (error.stdout or b"") + f"\nstopped after {SECONDS} s".encode()
    outcome = Outcome(block, time.monotonic() - start, status, output.decode(errors="replace"))
    lines = [f"{'ok    ' if status == 0 else 'FAILED'} {outcome.seconds:6.1f} s  {block.place}"]
    if status != 0:
        lines += [f"--- it ended with {status}:", block.commands, outcome.output[-TAIL:], "---"]
    print("\n".join(lines), flush=True)  # in one piece: pages run side by side
    return outcome


def report(outcomes: Sequence[Outcome], left_out: Sequence[Block]) -> int:
    """Print how many failed and what was left out; gives the exit status."""
    print("\nNot run:")
    for block in left_out:
        print(f"  {block.place}: {block.reason}")
    seconds, ran = sum(outcome.seconds for outcome in outcomes), sum(outcome.status == 0 for outcome in outcomes)
    print(f"\n{ran} of {len(outcomes)} blocks ran, in {seconds:.0f} s of all jobs; {len(left_out)} were left out")
    return 0 if ran == len(outcomes) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the blocks, or list them; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="pages, by their paths from the top folder, instead of all")
    parser.add_argument("--list", action="store_true", help="run nothing; list the blocks")
    parser.add_argument("--jobs", type=int, default=2, help="pages whose blocks run at the same time (2)")
    known = parser.parse_args(arguments)
    blocks = [block for block in find_blocks(ROOT) if not known.pages or block.page in known.pages]
    missing = set(known.pages) - {block.page for block in blocks}
    if missing:
        parser.error(f"no block of Bash in {', '.join(sorted(missing))}")
    if known.list:
        for block in blocks:
            print(f"{block.place}: {block.reason or 'is run'}")
        return 0
    pages: dict[str, list[Block]] = {}
    for block in blocks:
        if block.reason is None:
            pages.setdefault(block.page, []).append(block)
    threads = max(1, (os.cpu_count() or 1) // known.jobs)
    with ThreadPoolExecutor(known.jobs) as pool:
        ran = pool.map(lambda some: run_page(some, ROOT, threads), pages.values())
        outcomes = [outcome for page in ran for outcome in page]
    return report(outcomes, [block for block in blocks if block.reason is not None])


if __name__ == "__main__":
    sys.exit(main())
