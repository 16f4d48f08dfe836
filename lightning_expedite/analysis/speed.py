"""The figures of a benchmark's row that a choice goes by, each with a conservative one beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from .runs import Speed


@dataclass(frozen=True)
class SpeedFigures:
    """Speed of one setting in one environment.

    ``slow_latency_ms`` is the third quartile of the latencies, ``low_throughput`` the images per second at the third
    quartile of the batches' times: three quarters of all passes were at least as fast. Speed-ups are medians, with
    quartiles, of the ratios within pairs of an unreduced and a reduced pass.
    """

    gflops: float
    latency_ms: float
    slow_latency_ms: float
    speedup: tuple[float, float, float]  # median and quartiles
    pairs: int
    throughput: float
    low_throughput: float
    batch_size: int
    batch_speedup: float
    memory_mib: float | None


def figures_of(speed: Speed, unreduced: bool = False) -> SpeedFigures:
    """Take the figures out of a row.

    Args:
        speed: The row.
        unreduced: Whether those of its unreduced side are wanted, which every row has.

    Raises:
        DataError: The row lacks one.
    """
    try:
        return _figures(speed.row, unreduced or speed.reducer is None)
    except (KeyError, TypeError) as error:
        raise DataError(f"{speed.path}: a row lacks its {error}: run benchmark again") from error


def _figures(row: Mapping[str, Any], unreduced: bool) -> SpeedFigures:
    side = "unreduced" if unreduced else "reduced"
    latency, throughput = row["latency"], row["throughput"]
    pairs = latency["speedup"]
    return SpeedFigures(
        gflops=row["gflops"][side],
        latency_ms=latency[side]["median_ms"],
        slow_latency_ms=latency[side]["q3_ms"],
        speedup=(1.0, 1.0, 1.0) if unreduced else (pairs["median"], pairs["q1"], pairs["q3"]),
        pairs=len(latency["seconds"][side]),
        throughput=throughput[side],
        low_throughput=throughput["batch_size"] / _third_quartile(throughput["seconds"][side]),
        batch_size=throughput["batch_size"],
        batch_speedup=1.0 if unreduced else throughput["speedup"]["median"],
        memory_mib=(row.get("peak_memory_mib") or {}).get(side),
    )


def _third_quartile(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.75))
