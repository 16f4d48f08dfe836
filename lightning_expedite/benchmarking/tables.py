"""Benchmarks as tables: on screen and as CSV."""

import importlib
import inspect
from typing import Any

import pandas
from rich.table import Table

from ..text import literal

_COLUMNS = ("tokens", "GFLOPs", "FLOP\nratio", "ms", "speed-up", "efficiency", "images/s", "batch", "MiB")


def benchmark_table(results: dict[str, Any]) -> Table:
    """Return the table of ``benchmark.json``'s content: one row per config, the reduced model below the baseline."""
    below = literal(caption(results), "table.caption")
    table = Table(title="Benchmark", title_justify="left", caption=below, caption_justify="left")
    table.add_column("config")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in results["rows"]:
        baseline, reduced = _variants(row["latency"])
        table.add_row(
            literal(f"{row['config']}\n{reducer_text(row['reducer'])}"),
            _tokens_text(row["tokens"], row["reducer"] is not None),
            _stacked(*_variants(row["gflops"]), ".4g"),
            _number(row["gflops"]["ratio"], ".2f"),
            _stacked(baseline["median_ms"], reduced and reduced["median_ms"], ".4g"),
            _speedup_text(row),
            _number(row["efficiency"], ".2f"),
            _stacked(*_variants(row["throughput"]), ".4g"),
            str(row["throughput"]["batch_size"]),
            _stacked(*_variants(row["peak_memory_mib"]), ".0f"),
            end_section=True,
        )
    return table


def caption(results: dict[str, Any]) -> str:
    """Return the legend of the columns, the settings, the device and the input."""
    environment, settings = results["environment"], results["settings"]
    inputs = {
        f"{row['input']['source']} {row['input']['size'][0]} x {row['input']['size'][1]}" for row in results["rows"]
    }
    uncompiled = any(row["peak_memory_pass"] == "uncompiled" for row in results["rows"])
    of_pass = " of the pass before it is compiled" if uncompiled else ""
    lines = [
        "baseline above, reduced below; tokens: of attention and MLP in the last layer; GFLOPs: multiply-adds in the "
        "published convention; ms: median latency at batch 1; speed-up: median of the pairs' ratios, and quartiles; "
        f"efficiency: speed-up / FLOP ratio; images/s: at the batch beside it; MiB: peak memory at batch 1{of_pass}",
        f"precision {settings['precision']}, compile {str(settings['compile']).lower()}, "
        f"{environment['threads']} threads, {environment['device']}, input: {', '.join(sorted(inputs))}",
        *(f"note: {note}" for note in results["notes"]),
    ]
    return "\n".join(lines)


def benchmark_csv(results: dict[str, Any]) -> str:
    """Return the main figures as CSV: one line per config, empty without rows."""
    if not results["rows"]:
        return ""
    text: str = pandas.DataFrame([_flat(row, results) for row in results["rows"]]).to_csv(index=False)
    return text


def _flat(row: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    latency, throughput, memory = row["latency"], row["throughput"], row["peak_memory_mib"]
    baseline, reduced = _variants(latency)
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
        "latency_ms_unreduced": baseline["median_ms"],
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


def reducer_text(reducer: dict[str, Any] | None) -> str:
    """Return a reducer's class name with the settings that differ from the defaults."""
    if reducer is None:
        return "none"
    settings = (reducer.get("init_args") or {}).items()
    module, _, name = reducer["class_path"].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    given = (f"{key}={value}" for key, value in settings if key not in parameters or parameters[key].default != value)
    return f"{name}({', '.join(given)})"


def _variants(values: dict[str, Any]) -> tuple[Any, Any]:
    return values["unreduced"], values["reduced"]


def _stacked(baseline: float | None, reduced: float | None, form: str) -> str:
    return _number(baseline, form) if reduced is None else f"{_number(baseline, form)}\n{_number(reduced, form)}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _speedup_text(row: dict[str, Any]) -> str:
    speedup = row["latency"]["speedup"]
    if row["latency"]["reduced"] is None:
        return "1"
    return f"{speedup['median']:.2f}\n{speedup['q1']:.2f}-{speedup['q3']:.2f}"


def _tokens_text(tokens: dict[str, Any], reduced: bool) -> str:
    """Return the baseline's tokens per layer, and below them those of the last layer's attention and MLP."""
    last = sorted({tokens["attention"][-1], tokens["mlp"][-1]})
    return f"{tokens['unreduced']}\n{'/'.join(map(str, last))}" if reduced else str(tokens["unreduced"])
