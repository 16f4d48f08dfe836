"""Tables on screen."""

from pathlib import Path
from typing import Any

from rich.table import Table

from ..text import literal


def per_class_table(results: dict[str, Any]) -> Table:
    """Return the table of IoU and accuracy per class from ``results.json``'s content."""
    table = Table(title="Per class", title_justify="left")
    table.add_column("class")
    for column in ("IoU %", "Acc %", "labelled pixels"):
        table.add_column(column, justify="right")
    for row, label in zip(results["per_class"], results["label"], strict=True):
        table.add_row(literal(row["name"]), percent(row["IoU"]), percent(row["Acc"]), f"{label:,}")
    return table


def summary_table(results: dict[str, Any], output: Path) -> Table:
    """Return the table of overall scores, with what affects how to read them."""
    table = Table(title="Summary", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in results["scores"].items():
        table.add_row(name, f"{percent(value)} %")
    resumed = results.get("images_resumed", 0)
    computed = results["images"] - resumed
    speed = f"{computed} in {results['seconds']:.1f} s ({computed / results['seconds']:.2f} images/s)"
    table.add_row("images", f"{results['images']}: {resumed} of an interrupted run, {speed}" if resumed else speed)
    if results["windows_unreduced"]:
        table.add_row("windows", f"{results['windows_unreduced']} of {results['windows']} were not reduced")
    if not results["complete"]:
        of = f"{results['images']} of {results['images_total']} images"
        table.add_row("INCOMPLETE", f"only {of}: these are not the data set's scores", style="bold red")
    for name, text in profile_rows(results.get("profile", {})):
        table.add_row(name, literal(text))
    table.add_row("results", literal(output / "results.json"))
    return table


def profile_rows(profile: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the main figures of a run's profilers, as rows of the summary."""
    rows = []
    latency, flops, memory = (profile.get(name, {}) for name in ("latency", "flops", "memory"))
    if latency.get("images"):
        median, model = latency["per_image"]["median_ms"], 100 * latency["model_share"]
        rows.append(("latency", f"{median:.1f} ms an image (median), {model:.1f} % of the time in the model"))
    if "gflops_per_image" in flops:
        less = f"{flops['reduction_percent']:.1f} % less than the baseline"
        rows.append(("GFLOPs", f"{flops['gflops_per_image']:.2f} an image, {less}"))
    peak = memory.get("peak_allocated_mib", memory.get("host_peak_mib"))
    if peak is not None:
        rows.append(("memory", f"{peak:,.0f} MiB at most"))
    return rows


def percent(value: float | None) -> str:
    """Format a percentage; a class that does not occur has none."""
    return "-" if value is None else f"{value:.2f}"
