"""A recommendation on the terminal."""

from collections.abc import Iterator

import yaml
from rich.console import Console
from rich.table import Table

from ..text import literal
from .recommend import Recommendation, Row, commands_of
from .results import config_of

MAX_ROWS = 8
WIDTH = 120  # of the table where the output is not a terminal
_LIMITS = {
    "max_loss": "at most {:g} points of mIoU lost",
    "min_throughput": "at least {:g} images/s",
    "max_latency": "at most {:g} ms at batch 1",
    "max_memory": "at most {:g} MiB at batch 1",
}
_WANTED = {  # and how a better setting is called
    "latency": ("the shortest latency", "is faster"),
    "throughput": ("the most images/s", "is faster"),
    "gflops": ("the fewest GFLOPs", "has fewer GFLOPs"),
    "memory": ("the least memory", "needs less memory"),
}


def print_recommendation(found: Recommendation, console: Console) -> None:
    """Print the answer, the table of the best settings, and what to keep in mind."""
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    remarks = [f"warning: {warning}" for warning in found.warnings] + [f"note: {note}" for note in found.notes]
    remarks += [f"left out: {name}: {reason}" for name, reason in found.left_out]
    for part in (*map(literal, _answer(found)), _table(found), *map(literal, remarks)):
        console.print(part, soft_wrap=not isinstance(part, Table))


def _answer(found: Recommendation) -> Iterator[str]:
    goal, chosen = found.goal, found.chosen
    limits = ", ".join(_LIMITS[name].format(limit) for name, limit in goal.limits.items())
    yield f"goal: {limits}; then {_WANTED[goal.by][0] if goal.fastest else 'the best mIoU'}"
    if found.environment:
        yield f"times: {found.environment}"
    if chosen is None or chosen["is_baseline"]:
        yield from _keep_baseline(found)
    if chosen is None:
        return
    if not chosen["is_baseline"]:
        yield f"recommended: {chosen['label']} ({chosen['name']})"
        yield from (f"  {line}" for line in _certainty(chosen, found))
        reducer = {"model": {"reducer": chosen["reducer"].model_dump()}}
        yield from (f"  {line}" for line in yaml.safe_dump(reducer, sort_keys=False, allow_unicode=True).splitlines())
    yield f"config: {config_of(chosen['evaluation'].path)}"
    yield from (f"  {command}" for command in commands_of(chosen).values())


def _keep_baseline(found: Recommendation) -> Iterator[str]:
    goal = found.goal
    if found.chosen is None:
        yield "recommended: nothing; neither a reduced setting nor the baseline meets all limits"
    elif len(found.kept) > 1:
        better = _WANTED[goal.by][1] if goal.fastest else "has a better mIoU"
        yield f"recommended: keep the baseline. No setting within the limits {better}"
    else:
        yield "recommended: keep the baseline. No reduced setting meets all limits"
    nearest = next((row for row in found.nearest if not row["is_baseline"]), None)
    if nearest is not None:
        speed = f" ({nearest['speedup']:.2f} times as fast)" if nearest["speedup"] else ""
        yield f"nearest: {nearest['label']} ({nearest['name']}): {', '.join(nearest['misses'])}{speed}"
        if goal.max_loss is not None and nearest["bound"] > goal.max_loss >= nearest["loss"]:
            yield (
                f"  its estimated loss, {nearest['loss']:.2f} points, is within the limit, but that is not certain: "
                "test more images, or accept the estimate with --by_estimate"
            )


def _certainty(row: Row, found: Recommendation) -> Iterator[str]:
    goal, (low, high), loss = found.goal, row["interval"], row["loss"]
    yield (
        f"mIoU {row['counts'].miou:.2f} %, {abs(loss):.2f} points {'less' if loss >= 0 else 'more'} than "
        f"the baseline; {goal.confidence:g} confidence interval of the loss {low:.2f} to {high:.2f}"
    )
    yield (
        f"at confidence {goal.confidence:g} the loss is at most {row['bound']:.2f} points; that holds for all "
        f"{found.compared} settings at once, so for whichever is chosen"
    )
    if row["within"] is not None:
        yield f"probability that it alone loses at most {goal.max_loss:g} points: {row['within']:.1%}"
    if row["speedup"] is None:
        yield f"{row['gflops']:.4g} GFLOPs" if row["gflops"] else "speed not known"
        return
    yield (
        f"{row['speedup']:.2f} times as fast at batch 1 (quartiles {row['speedup_q1']:.2f} to "
        f"{row['speedup_q3']:.2f}): {row['latency_ms']:.4g} ms, three quarters within {row['latency_ms_q3']:.4g} ms"
    )
    low_rate = row["throughput_low"]
    rest = "" if low_rate is None else f", three quarters of the batches at {low_rate:.4g} or more"
    rate = f"{row['throughput_images_per_s']:.4g} images/s at batch {row['throughput_batch_size']}"
    yield f"{rate}{rest}; {row['gflops']:.4g} GFLOPs"


def _table(found: Recommendation) -> Table:
    """Return the settings that meet the limits, best first, then the nearest others."""
    by_bounds = "the bound of the loss and by third quartiles of times"
    judged = "estimates: loss and medians" if found.goal.by_estimate else by_bounds
    caption = (
        "loss: points of mIoU from the baseline; interval: of one setting alone, at confidence "
        f"{found.goal.confidence:g}; bound: of all losses at once, at the same confidence; P: probability that the "
        "loss of one setting alone is within the limit; speed-up and ms: medians at batch 1; images/s: three quarters "
        "of the batches were as fast; GFLOPs: multiply-adds in the published convention; limits are judged by "
    )
    table = Table(
        title="Settings",
        title_justify="left",
        caption=literal(caption + judged, "table.caption"),
        caption_justify="left",
    )
    table.add_column("setting", overflow="fold")
    for column in ("mIoU %", "loss", "interval", "bound", "P", "speed-up", "ms", "images/s", "GFLOPs"):
        table.add_column(column, justify="right")
    table.add_column("limits")

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for row in [*found.kept[:MAX_ROWS], *found.nearest[: max(MAX_ROWS - len(found.kept), 3)]]:
        low, high = row["interval"]
        scores = [f"{row['counts'].miou:.2f}", f"{row['loss']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['bound']:.2f}"]
        speed = [cell(row[name], ".4g") for name in ("latency_ms", "throughput_low", "gflops")]
        cells = [row["name"], *scores, cell(row["within"], ".1%"), cell(row["speedup"], ".2f"), *speed]
        limits = ", ".join(row["misses"]) or "met"
        table.add_row(*map(literal, [*cells, limits]), style="bold" if row is found.chosen else "")
    return table
