"""A recommendation on the terminal."""

from collections.abc import Iterator

import yaml
from rich.console import Console
from rich.table import Table

from ..text import literal
from .recommend import Recommendation, Verdict

MAX_ROWS = 8
WIDTH = 120  # of the table where the output is not a terminal
_LIMITS = {
    "max_loss": "at most {:g} points of mIoU lost",
    "min_throughput": "at least {:g} images/s",
    "max_latency": "at most {:g} ms at batch 1",
    "max_memory": "at most {:g} MiB at batch 1",
}
_WANTED = {
    "latency": "the shortest latency",
    "throughput": "the most images/s",
    "gflops": "the fewest GFLOPs",
    "memory": "the least memory",
}
_BETTER = {
    "latency": "is faster",
    "throughput": "is faster",
    "gflops": "has fewer GFLOPs",
    "memory": "needs less memory",
}


def print_recommendation(found: Recommendation, console: Console) -> None:
    """Print the answer, the table of the best settings, and what to keep in mind."""
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for line in _answer(found):
        console.print(literal(line), soft_wrap=True)
    console.print(_table(found))
    for line in _remarks(found):
        console.print(literal(line), soft_wrap=True)


def _answer(found: Recommendation) -> Iterator[str]:
    goal = found.goal
    limits = ", ".join(_LIMITS[name].format(getattr(goal, name)) for name in goal.limits)
    yield f"goal: {limits}; then {_WANTED[goal.by] if goal.fastest else 'the best mIoU'}"
    if found.environment:
        yield f"times: {found.environment}"
    chosen = found.chosen
    if chosen is None or chosen.candidate.is_baseline:
        yield from _keep_baseline(found)
    if chosen is None:
        return
    if not chosen.candidate.is_baseline:
        yield f"recommended: {chosen.candidate.row['label']} ({chosen.candidate.name})"
        yield from (f"  {line}" for line in _certainty(chosen, found))
        reducer = {"model": {"reducer": chosen.candidate.row["run"].reducer.model_dump()}}
        yield from (f"  {line}" for line in yaml.safe_dump(reducer, sort_keys=False, allow_unicode=True).splitlines())
    yield f"config: {chosen.candidate.config}"
    yield from (f"  {command}" for command in chosen.candidate.commands.values())


def _keep_baseline(found: Recommendation) -> Iterator[str]:
    goal = found.goal
    if found.chosen is None:
        yield "recommended: nothing; neither a reduced setting nor the baseline meets all limits"
    elif len(found.kept) > 1:
        better = _BETTER[goal.by] if goal.fastest else "has a better mIoU"
        yield f"recommended: keep the baseline. No setting within the limits {better}"
    else:
        yield "recommended: keep the baseline. No reduced setting meets all limits"
    nearest = next((verdict for verdict in found.nearest if not verdict.candidate.is_baseline), None)
    if nearest is not None:
        speedup = nearest.candidate.row["speedup"]
        speed = f" ({speedup:.2f} times as fast)" if speedup else ""
        missed = ", ".join(text for text, _ in nearest.misses)
        yield f"nearest: {nearest.candidate.row['label']} ({nearest.candidate.name}): {missed}{speed}"
        if goal.max_loss is not None and nearest.bound > goal.max_loss >= nearest.loss:
            yield (
                f"  its estimated loss, {nearest.loss:.2f} points, is within the limit, but that is not certain: test "
                "more images, or accept the estimate with --by_estimate"
            )


def _certainty(verdict: Verdict, found: Recommendation) -> Iterator[str]:
    goal, row = found.goal, verdict.candidate.row
    (low, high), loss = verdict.interval, verdict.loss
    yield (
        f"mIoU {verdict.candidate.counts.miou:.2f} %, {abs(loss):.2f} points {'less' if loss >= 0 else 'more'} than "
        f"the baseline; {goal.confidence:g} confidence interval of the loss {low:.2f} to {high:.2f}"
    )
    yield (
        f"at confidence {goal.confidence:g} the loss is at most {verdict.bound:.2f} points; that holds for all "
        f"{len(found.reduced)} settings at once, so for whichever is chosen"
    )
    if verdict.within is not None:
        yield f"probability that it alone loses at most {goal.max_loss:g} points: {verdict.within:.1%}"
    if not verdict.candidate.timed:
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
    goal = found.goal
    judged = (
        "limits are judged by estimates: loss and medians"
        if goal.by_estimate
        else "limits are judged by the bound of the loss and by third quartiles of times"
    )
    caption = (
        f"loss: points of mIoU from the baseline; interval: of one setting alone, at confidence {goal.confidence:g}; "
        "bound: of all losses at once, at the same confidence; P: probability that the loss of one setting alone is "
        "within the limit; speed-up and ms: medians at batch 1; images/s: three quarters of the batches were as fast; "
        f"GFLOPs: multiply-adds in the published convention; {judged}"
    )
    table = Table(
        title="Settings", title_justify="left", caption=literal(caption, "table.caption"), caption_justify="left"
    )
    table.add_column("setting", overflow="fold")
    for column in ("mIoU %", "loss", "interval", "bound", "P", "speed-up", "ms", "images/s", "GFLOPs"):
        table.add_column(column, justify="right")
    table.add_column("limits")
    for verdict in [*found.kept[:MAX_ROWS], *found.nearest[: max(MAX_ROWS - len(found.kept), 3)]]:
        table.add_row(*map(literal, _cells(verdict)), style="bold" if verdict is found.chosen else "")
    return table


def _cells(verdict: Verdict) -> list[str]:
    row = verdict.candidate.row

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        verdict.candidate.name,
        f"{verdict.candidate.counts.miou:.2f}",
        f"{verdict.loss:.2f}",
        f"{verdict.interval[0]:.2f} to {verdict.interval[1]:.2f}",
        f"{verdict.bound:.2f}",
        cell(verdict.within, ".1%"),
        cell(row["speedup"], ".2f"),
        *(cell(row[name], ".4g") for name in ("latency_ms", "throughput_low", "gflops")),
        ", ".join(text for text, _ in verdict.misses) or "met",
    ]


def _remarks(found: Recommendation) -> Iterator[str]:
    yield from (f"warning: {warning}" for warning in found.warnings)
    yield from (f"note: {note}" for note in found.notes)
    yield from (f"left out: {name}: {reason}" for name, reason in found.left_out)
