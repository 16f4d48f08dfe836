"""Names until their users import them from `results`."""

from ..files import BENCHMARK_FILE, FAILURE_FILE, POINT_FILE, RESULTS_FILE

__all__ = ["BENCHMARK_FILE", "FAILURE_FILE", "POINT_FILE", "RESULTS_FILE"]
