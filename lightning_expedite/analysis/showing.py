"""A recommendation on screen."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ..evaluation.tables import literal
from .answer import Answer, commands, config_file, reducer_text
from .choose import Verdict
from .goals import Goal

_MOST_ROWS = 8
TABLE_WIDTH = 120


def show(found: Answer, console: Console) -> None:
    """Print the answer, the table of the best settings, and what to keep in mind."""
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    for line in lines_of(found):
        console.print(literal(line), soft_wrap=True)
    console.print(table_of(found))
    for line in remarks(found):
        console.print(literal(line), soft_wrap=True)


def lines_of(found: Answer) -> Iterator[str]:
    """Give the answer in sentences."""
    goal, choice = found.goal, found.choice
    yield f"goal: {goal.words()}"
    if found.field.environment:
        yield f"times: {found.field.environment}"
    chosen = choice.chosen
    if chosen is None or chosen.candidate.reducer is None:
        yield from _no_reduced(found)
    if chosen is None:
        return
    if chosen.candidate.reducer is not None:
        yield f"recommended: {chosen.candidate.label} ({chosen.candidate.name})"
        yield from (f"  {line}" for line in certainty(chosen, found))
        yield from (f"  {line}" for line in reducer_text(chosen.candidate).splitlines())
    yield f"config: {config_file(chosen.candidate)}"
    for command in commands(chosen.candidate).values():
        yield f"  {command}"


def certainty(verdict: Verdict, found: Answer) -> Iterator[str]:
    """Say how good a setting is and how sure that is."""
    goal, speed = found.goal, verdict.candidate.speed
    low, high = verdict.interval
    yield (
        f"mIoU {verdict.candidate.counts.miou:.2f} %, {_points(verdict.loss)} than unreduced; "
        f"{goal.confidence:g} confidence interval of the loss {low:.2f} to {high:.2f}"
    )
    yield (
        f"at confidence {goal.confidence:g} the loss is at most {verdict.bound:.2f} points; that holds for all "
        f"{len(found.field.reduced)} settings at once, so for whichever is chosen"
    )
    if verdict.within is not None:
        yield f"probability that it alone loses at most {goal.max_loss:g} points: {verdict.within:.1%}"
    if speed is None:
        yield f"{verdict.candidate.gflops:.4g} GFLOPs" if verdict.candidate.gflops else "speed not known"
        return
    median, first, third = speed.speedup
    yield (
        f"{median:.2f} times as fast at batch 1 (quartiles of {speed.pairs} pairs {first:.2f} to {third:.2f}): "
        f"{speed.latency_ms:.4g} ms, three quarters within {speed.slow_latency_ms:.4g} ms"
    )
    yield (
        f"{speed.throughput:.4g} images/s at batch {speed.batch_size}, three quarters of the batches at "
        f"{speed.low_throughput:.4g} or more; {speed.gflops:.4g} GFLOPs"
    )


def table_of(found: Answer) -> Table:
    """Make the table: the settings that keep the limits, best first, then those nearest to it."""
    choice, goal = found.choice, found.goal
    table = Table(
        title="Settings", title_justify="left", caption=literal(_caption(goal), "table.caption"), caption_justify="left"
    )
    table.add_column("setting", overflow="fold")
    for column in ("mIoU %", "loss", "interval", "bound", "P", "speed-up", "ms", "images/s", "GFLOPs"):
        table.add_column(column, justify="right")
    table.add_column("limits")
    kept = [choice.chosen, *choice.others] if choice.chosen else []
    for verdict in [*kept[:_MOST_ROWS], *choice.nearest[: max(_MOST_ROWS - len(kept), 3)]]:
        table.add_row(*map(literal, _row(verdict)), style="bold" if verdict is choice.chosen else "")
    return table


def remarks(found: Answer) -> Iterator[str]:
    """Give warnings, notes and what was left out."""
    for warning in found.field.warnings:
        yield f"warning: {warning}"
    for note in found.notes:
        yield f"note: {note}"
    for name, reason in found.field.left_out:
        yield f"left out: {name}: {reason}"


def _no_reduced(found: Answer) -> Iterator[str]:
    choice, chosen = found.choice, found.choice.chosen
    reduced = [verdict for verdict in choice.others if verdict.candidate.reducer is not None]
    if chosen is None:
        yield "recommended: nothing; neither a reduced setting nor the unreduced model keeps all limits"
    elif reduced:
        yield "recommended: the unreduced model; no reduced setting that keeps the limits is better"
    else:
        yield "recommended: the unreduced model; no reduced setting keeps all limits"
    nearest = next((verdict for verdict in choice.nearest if verdict.candidate.reducer is not None), None)
    if nearest is not None and not reduced:
        missed = ", ".join(miss.text for miss in nearest.misses)
        yield f"nearest: {nearest.candidate.label} ({nearest.candidate.name}): {missed}"
        if nearest.bound > (found.goal.max_loss or 0) >= nearest.loss and found.goal.max_loss is not None:
            yield (
                f"  its estimated loss, {nearest.loss:.2f} points, is within the limit, but that is not sure: test "
                "more images, or take the estimate for enough with --by_estimate"
            )


def _row(verdict: Verdict) -> list[str]:
    candidate, speed = verdict.candidate, verdict.candidate.speed
    return [
        candidate.name,
        f"{candidate.counts.miou:.2f}",
        f"{verdict.loss:.2f}",
        f"{verdict.interval[0]:.2f} to {verdict.interval[1]:.2f}",
        f"{verdict.bound:.2f}",
        "-" if verdict.within is None else f"{verdict.within:.1%}",
        "-" if speed is None else f"{speed.speedup[0]:.2f}",
        "-" if speed is None else f"{speed.latency_ms:.4g}",
        "-" if speed is None else f"{speed.low_throughput:.4g}",
        "-" if candidate.gflops is None else f"{candidate.gflops:.4g}",
        "kept" if verdict.keeps else ", ".join(miss.text for miss in verdict.misses),
    ]


def _caption(goal: Goal) -> str:
    judged = (
        "limits are judged by estimates: loss and medians"
        if goal.by_estimate
        else "limits are judged by the bound of the loss and by third quartiles of times"
    )
    return (
        f"loss: points of mIoU against unreduced; interval: of one setting alone, at confidence {goal.confidence:g}; "
        "bound: of all losses at once, at the same confidence; P: probability that the loss of one setting alone is "
        "within the limit; speed-up and ms: medians at batch 1; images/s: three quarters of the batches were as fast; "
        f"GFLOPs: multiply-adds in the published convention; {judged}"
    )


def _points(loss: float) -> str:
    return f"{abs(loss):.2f} points {'less' if loss >= 0 else 'more'}"
