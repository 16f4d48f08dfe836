"""Benchmarks as tables: on screen and as comma-separated values."""

import csv
import importlib
import inspect
import io
from typing import Any

from rich.table import Table

from ..evaluation.tables import literal

_COLUMNS = ("tokens", "GFLOPs", "FLOP\nratio", "ms", "speed-up", "efficiency", "images/s", "batch", "MiB")


def benchmark_table(results: dict[str, Any]) -> Table:
    """Make the table of ``benchmark.json``'s content: one row per config, the reduced side below the unreduced."""
    below = literal(caption(results), "table.caption")
    table = Table(title="Benchmark", title_justify="left", caption=below, caption_justify="left")
    table.add_column("config")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in results["rows"]:
        unreduced, reduced = sides(row["latency"])
        table.add_row(
            literal(f"{row['config']}\n{reducer_text(row['reducer'])}"),
            tokens_text(row["tokens"], row["reducer"] is not None),
            stacked(*sides(row["gflops"]), ".4g"),
            number(row["gflops"]["ratio"], ".2f"),
            stacked(unreduced["median_ms"], reduced and reduced["median_ms"], ".4g"),
            speedup_text(row),
            number(row["efficiency"], ".2f"),
            stacked(*sides(row["throughput"]), ".4g"),
            str(row["throughput"]["batch_size"]),
            stacked(*sides(row["peak_memory_mib"]), ".0f"),
            end_section=True,
        )
    return table


def caption(results: dict[str, Any]) -> str:
    """Say what the figures are: convention, batch, precision, device and input."""
    environment, settings = results["environment"], results["settings"]
    inputs = {
        f"{row['input']['source']} {row['input']['size'][0]} x {row['input']['size'][1]}" for row in results["rows"]
    }
    uncompiled = any(row["peak_memory_pass"] == "uncompiled" for row in results["rows"])
    of_pass = " of the pass before it is compiled" if uncompiled else ""
    lines = [
        "unreduced above, reduced below; tokens: of attention and MLP in the last layer; GFLOPs: multiply-adds in the "
        "published convention; ms: median latency at batch 1; speed-up: median of the pairs' ratios, and quartiles; "
        f"efficiency: speed-up / FLOP ratio; images/s: at the batch beside it; MiB: peak memory at batch 1{of_pass}",
        f"precision {settings['precision']}, compile {str(settings['compile']).lower()}, "
        f"{environment['threads']} threads, {environment['device']}, input: {', '.join(sorted(inputs))}",
        *(f"note: {note}" for note in results["notes"]),
    ]
    return "\n".join(lines)


def benchmark_csv(results: dict[str, Any]) -> str:
    """Give the main figures as comma-separated values: one line per config, empty where there is no value.

    Without rows there is nothing, not even a header.
    """
    if not results["rows"]:
        return ""
    lines = [_flat(row, results) for row in results["rows"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    latency, throughput, memory = row["latency"], row["throughput"], row["peak_memory_mib"]
    unreduced, reduced = sides(latency)
    return {
        "config": row["config"],
        "reducer": reducer_text(row["reducer"]),
        "checkpoint": row["model"]["checkpoint"],
        "untrained": row["model"]["untrained"],
        "input": row["input"]["source"],
        "height": row["input"]["size"][0],
        "width": row["input"]["size"][1],
        "device": results["environment"]["device"],
        "precision": results["settings"]["precision"],
        "compile": results["settings"]["compile"],
        "gflops_unreduced": row["gflops"]["unreduced"],
        "gflops_reduced": row["gflops"]["reduced"],
        "flop_ratio": row["gflops"]["ratio"],
        "true_gflops_unreduced": row["true_gflops"]["unreduced"],
        "true_gflops_reduced": row["true_gflops"]["reduced"],
        "latency_ms_unreduced": unreduced["median_ms"],
        "latency_ms_reduced": reduced and reduced["median_ms"],
        "speedup": latency["speedup"]["median"],
        "speedup_q1": latency["speedup"]["q1"],
        "speedup_q3": latency["speedup"]["q3"],
        "pairs": latency["speedup"]["pairs"],
        "efficiency": row["efficiency"],
        "batch_size": throughput["batch_size"],
        "images_per_s_unreduced": throughput["unreduced"],
        "images_per_s_reduced": throughput["reduced"],
        "batch_speedup": throughput["speedup"]["median"],
        "batch_efficiency": throughput["efficiency"],
        "peak_mib_unreduced": memory["unreduced"],
        "peak_mib_reduced": memory["reduced"],
        "peak_mib_pass": row["peak_memory_pass"],
        "model_share": row["test_share"] and row["test_share"]["model_share"],
    }


def sides(values: dict[str, Any]) -> tuple[Any, Any]:
    """Give the two sides of a comparison."""
    return values["unreduced"], values["reduced"]


def stacked(unreduced: float | None, reduced: float | None, form: str) -> str:
    """Show the reduced side below the unreduced, or the only one there is."""
    return number(unreduced, form) if reduced is None else f"{number(unreduced, form)}\n{number(reduced, form)}"


def number(value: float | None, form: str) -> str:
    """Show a number; one that there is not as a dash."""
    return "-" if value is None else format(value, form)


def speedup_text(row: dict[str, Any]) -> str:
    """Show the speed-up with its quartiles."""
    speedup = row["latency"]["speedup"]
    if row["latency"]["reduced"] is None:
        return "1"
    return f"{speedup['median']:.2f}\n{speedup['q1']:.2f}-{speedup['q3']:.2f}"


def reducer_text(reducer: dict[str, Any] | None) -> str:
    """Show a reducer's class and settings; those with which the class itself would begin are left out."""
    if reducer is None:
        return "none"
    settings = (reducer.get("init_args") or {}).items()
    usual = _defaults(reducer["class_path"])
    given = ", ".join(f"{name}={value}" for name, value in settings if name not in usual or usual[name] != value)
    return f"{reducer['class_path'].rpartition('.')[2]}({given})"


def _defaults(class_path: str) -> dict[str, Any]:
    module, _, name = class_path.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def tokens_text(tokens: dict[str, Any], reduced: bool) -> str:
    """Show the tokens of an unreduced layer, and below them those of the last layer's attention and MLP."""
    last = sorted({tokens["attention"][-1], tokens["mlp"][-1]})
    return f"{tokens['unreduced']}\n{'/'.join(map(str, last))}" if reduced else str(tokens["unreduced"])
