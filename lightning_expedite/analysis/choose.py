"""The choice among measured settings: each is judged by the goal's limits, then the best of those that keep them."""

from collections.abc import Sequence
from dataclasses import dataclass

from .bootstrap import Losses
from .candidates import Candidate, Field
from .goals import Cost, Goal


@dataclass(frozen=True)
class Miss:
    """A limit that a setting does not keep: in words, and by what share of the limit."""

    text: str
    share: float


@dataclass(frozen=True)
class Verdict:
    """What is known of a setting, in view of a goal.

    ``loss`` is in points of mIoU, ``interval`` its confidence interval alone, ``bound`` what it stays below together
    with those of all other settings, ``within`` the probability that it is within the goal's limit. ``cost`` is what
    is to be low, relative to the unreduced model for times; ``None`` where it is not known.
    """

    candidate: Candidate
    loss: float
    interval: tuple[float, float]
    bound: float
    within: float | None
    cost: float | None
    misses: tuple[Miss, ...]

    @property
    def keeps(self) -> bool:
        """Whether all limits are kept."""
        return not self.misses


@dataclass(frozen=True)
class Choice:
    """The outcome: ``chosen`` is ``None`` where no setting, nor the unreduced model, keeps the limits.

    ``others`` are the further settings that keep them, best first; ``nearest`` are those that do not, nearest first.
    """

    chosen: Verdict | None
    others: list[Verdict]
    nearest: list[Verdict]
    best_share: float | None


def choose(field: Field, goal: Goal, losses: Losses) -> Choice:
    """Judge all settings and take the best.

    Args:
        field: The settings.
        goal: What is wanted.
        losses: Those of ``field.reduced``, in their order.
    """
    verdicts = judge(field, goal, losses)
    kept = sorted((verdict for verdict in verdicts if verdict.keeps), key=lambda verdict: _rank(verdict, goal))
    nearest = sorted(
        (verdict for verdict in verdicts if not verdict.keeps),
        key=lambda verdict: (len(verdict.misses), sum(miss.share for miss in verdict.misses)),
    )
    chosen = kept[0] if kept else None
    return Choice(chosen, kept[1:], nearest, None if goal.fastest else _best_share(kept, field, losses))


def judge(field: Field, goal: Goal, losses: Losses) -> list[Verdict]:
    """Judge the unreduced model and then every setting."""
    none = Verdict(
        field.unreduced,
        0.0,
        (0.0, 0.0),
        0.0,
        None if goal.max_loss is None else 1.0,
        cost_of(field.unreduced, goal.by),
        misses_of(field.unreduced, 0.0, goal),
    )
    bounds = losses.upper_bounds(goal.confidence)
    verdicts = [none]
    for number, candidate in enumerate(field.reduced):
        loss, bound = float(losses.estimates[number]), float(bounds[number])
        verdicts.append(
            Verdict(
                candidate,
                loss,
                losses.interval(number, goal.confidence),
                bound,
                None if goal.max_loss is None else losses.probability(number, goal.max_loss),
                cost_of(candidate, goal.by),
                misses_of(candidate, loss if goal.by_estimate else bound, goal),
            )
        )
    return verdicts


def misses_of(candidate: Candidate, loss: float, goal: Goal) -> tuple[Miss, ...]:
    """List the limits that a setting does not keep, given the loss that it is judged by."""
    misses: list[Miss] = []
    if goal.max_loss is not None and loss > goal.max_loss:
        what = "loses" if goal.by_estimate else "may lose"
        share = (loss - goal.max_loss) / (goal.max_loss or 1)
        misses.append(Miss(f"{what} {loss:.2f} points", share))
    misses += _speed_misses(candidate, goal)
    needs_cost = goal.fastest and cost_of(candidate, goal.by) is None
    if needs_cost and candidate.speed is not None:
        misses.append(Miss(f"no {goal.by} is known", 1))
    elif needs_cost and not goal.of_speed:
        misses.append(Miss("not benchmarked", 1))
    return tuple(misses)


def _speed_misses(candidate: Candidate, goal: Goal) -> list[Miss]:
    speed = candidate.speed
    if not goal.of_speed:
        return []
    if speed is None:
        return [Miss("not benchmarked", 1)]
    misses = []
    rate = speed.throughput if goal.by_estimate else speed.low_throughput
    if goal.min_throughput is not None and rate < goal.min_throughput:
        misses.append(Miss(f"{rate:.4g} images/s", goal.min_throughput / rate - 1))
    latency = speed.latency_ms if goal.by_estimate else speed.slow_latency_ms
    if goal.max_latency is not None and latency > goal.max_latency:
        misses.append(Miss(f"{latency:.4g} ms", latency / goal.max_latency - 1))
    if goal.max_memory is not None and speed.memory_mib is None:
        misses.append(Miss("its memory is not known", 1))
    elif goal.max_memory is not None and speed.memory_mib is not None and speed.memory_mib > goal.max_memory:
        misses.append(Miss(f"{speed.memory_mib:.4g} MiB", speed.memory_mib / goal.max_memory - 1))
    return misses


def cost_of(candidate: Candidate, by: Cost) -> float | None:
    """Give what a setting costs; of times the share of the unreduced model's that was timed in turns with it."""
    if by == "gflops":
        return candidate.gflops
    if candidate.speed is None:
        return None
    if by == "memory":
        return candidate.speed.memory_mib
    return 1 / (candidate.speed.speedup[0] if by == "latency" else candidate.speed.batch_speedup)


def close_calls(choice: Choice) -> list[Verdict]:
    """List settings that lose less than the chosen one and are as fast as far as the benchmarks can tell.

    Their speed-ups' quartiles overlap with those of the chosen.
    """
    chosen = choice.chosen
    if chosen is None or chosen.candidate.speed is None:
        return []
    slowest = chosen.candidate.speed.speedup[1]
    return [
        other
        for other in choice.others
        if other.candidate.speed is not None
        and other.candidate.reducer is not None
        and other.candidate.speed.speedup[2] >= slowest
        and other.loss < chosen.loss
    ]


def _rank(verdict: Verdict, goal: Goal) -> tuple[float, float]:
    cost = float("inf") if verdict.cost is None else verdict.cost
    return (cost, verdict.loss) if goal.fastest else (verdict.loss, cost)


def _best_share(kept: Sequence[Verdict], field: Field, losses: Losses) -> float | None:
    """Give the probability that the chosen setting has the best mIoU of all that keep the limits."""
    places = {id(candidate): number for number, candidate in enumerate(field.reduced)}
    among = [places[id(verdict.candidate)] for verdict in kept if id(verdict.candidate) in places]
    if not kept or len(among) < len(kept):  # the unreduced model keeps them: it has no loss
        return None
    return losses.share_smallest(among[0], among)
