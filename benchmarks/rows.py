"""Benchmark the published rows (Liang et al. 2022): ViT-L/16 with each of the reducers, at each data set's window.

    python benchmarks/rows.py --output benchmarks/results/cpu_32-true.json --precision 32-true

runs ``python -m lightning_expedite benchmark`` on the configs of the rows and collects the results in one file; rows
that are in the file already are kept. All further options are passed on to ``benchmark``.

Weights are untrained: they are as fast as trained ones. ACT's cost depends on them, so its queries are scaled until it
costs what the published row says (``scaled_queries.py``). The input is crops of photographs in ADE20K's layout where
``--images`` names their folder, else of the bundled demo scenes.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaled_queries import save_scaled

from lightning_expedite.cli import main as command_line
from lightning_expedite.files import write_atomically

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "tests" / "data" / "published.json"
WINDOWS = {"pascal_context": ("pcontext", 480), "ade20k": ("ade", 640), "cityscapes": ("city", 768)}
METHODS = ("ours", "evit", "tome", "act")
ALIKE = {
    "environment": ("device", "threads", "torch", "kernels"),
    "settings": ("precision", "compile", "input_size", "untrained"),
}
"""What all rows of a file must have in common: one header describes them."""


def config_of(data_set: str, row: dict[str, Any]) -> str:
    """Return the name of a published row's config."""
    setting = row["setting"]
    suffix = {
        "ours": lambda: f"ours_h{setting['alpha']}",
        "evit": lambda: f"evit_k{round(100 * setting['keep_rate'])}",
        "tome": lambda: f"tome_r{round(100 * setting['ratio'])}",
        "act": lambda: f"act_q{setting['query_hashes']}",
    }[row["method"]]
    return f"{WINDOWS[data_set][0]}_{suffix()}"


def groups(demo: bool = False) -> list[tuple[str, list[str], float | None]]:
    """Return the calls: data set, names of configs and, for ACT (one config a call), the published GFLOPs."""
    if demo:
        return [("", [f"demo_{method}" for method in METHODS], None)]
    rows = json.loads(PUBLISHED.read_text())["rows"]
    calls: list[tuple[str, list[str], float | None]] = []
    for data_set in WINDOWS:
        for method in METHODS:
            gflops = {config_of(data_set, row): row["gflops"] for row in rows[data_set] if row["method"] == method}
            if method == "act":
                calls += [(data_set, [name], gflops[name]) for name in gflops]
            else:
                calls.append((data_set, list(gflops), None))
    return calls


def options(data_set: str, images: str | None) -> list[str]:
    """Return the words that a call of ``benchmark`` needs besides the user's."""
    if not data_set or not images:
        return []
    window = WINDOWS[data_set][1]
    words = ["--data", "ADE20K", "--data.root", images]
    return [*words, "--data.short_side", str(window), "--data.long_side", str(16 * window)]


def benchmark(names: Sequence[str], act_gflops: float | None, words: Sequence[str], part: Path) -> None:
    """Benchmark configs on untrained weights; ACT, alone in a call, on weights with which it costs ``act_gflops``."""
    configs = [word for name in names for word in ("--config", str(ROOT / "configs" / f"{name}.yaml"))]
    target = ["--output", str(part), "--overwrite"]
    if act_gflops is None:
        untrained = [] if names[0].startswith("demo") else ["--untrained", "true"]
        command_line(["benchmark", *configs, *words, *untrained, *target])
        return
    with tempfile.TemporaryDirectory() as folder:
        factor, window, stride = save_scaled([*configs, *words], act_gflops, Path(folder))
        model = ["--model.checkpoint", folder, "--model.window", str(window), "--model.stride", str(stride)]
        command_line(["benchmark", *configs, *words, *model, *target])
    written = part / "benchmark.json"
    content = json.loads(written.read_text())
    content["settings"]["untrained"] = True
    for row in content["rows"]:
        row["model"] |= {"checkpoint": "untrained, queries scaled", "untrained": True, "query_scale": factor}
    write_atomically(written, json.dumps(content).encode())


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Add a call's rows to those of a file; every row keeps the commit at which it was measured.

    Raises:
        SystemExit: The two were measured under different conditions.
    """
    if old:
        differing = [
            f"{name} {old[part].get(name)} and {new[part].get(name)}"
            for part, names in ALIKE.items()
            for name in names
            if old[part].get(name) != new[part].get(name)
        ]
        if differing:
            sys.exit(f"error: all rows of a file must be measured alike: {'; '.join(differing)}. Move the file away.")
    rows = [
        {"commit": content["environment"]["commit"], **row} for content in (old, new) for row in content.get("rows", [])
    ]
    settings = {key: value for key, value in new["settings"].items() if key != "configs"}
    notes = sorted({*old.get("notes", []), *new["notes"]})
    unique = {row["config"]: row for row in reversed(rows)}  # the first of each name
    return {**new, "settings": settings, "notes": notes, "rows": list(reversed(unique.values())), "failed": []}


def gather(part: Path, output: Path) -> dict[str, Any]:
    """Move the rows of a call, finished or interrupted, to the output; return the output's content."""
    content: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    written = part / "benchmark.json"
    if written.exists():
        content = merge(content, json.loads(written.read_text()))
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, json.dumps(content, indent=1, allow_nan=False).encode())
        shutil.rmtree(part)
    return content


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are not in the output yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--images", help="folder with photographs in ADE20K's layout")
    parser.add_argument("--only", nargs="+", default=[], help="names of configs, instead of all")
    parser.add_argument("--demo", action="store_true", help="the demo configs instead of the published rows, to try it")
    known, words = parser.parse_known_args(arguments)
    calls = groups(known.demo)
    unknown = set(known.only) - {name for _, names, _ in calls for name in names}
    if unknown:
        parser.error(f"--only names no row: {', '.join(sorted(unknown))}")
    part = known.output.with_suffix(".part")  # survives a killed run: its finished rows are kept
    content = gather(part, known.output)
    for data_set, names, act_gflops in calls:
        done = {row["config"] for row in content.get("rows", [])}
        names = [name for name in names if name not in done and (not known.only or name in known.only)]
        if names:
            benchmark(names, act_gflops, [*words, *options(data_set, known.images)], part)
            content = gather(part, known.output)
    done = {row["config"] for row in content.get("rows", [])}
    wanted = known.only or [name for _, names, _ in calls for name in names]
    missing = [name for name in wanted if name not in done]
    if missing:
        sys.exit(f"error: not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main()
