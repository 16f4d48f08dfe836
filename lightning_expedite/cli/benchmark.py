"""``benchmark``: time models with their reducers against the same models without."""

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from rich.console import Console

from ..benchmarking.benchmark import Benchmark
from ..benchmarking.crops import CropSource, Samples
from ..benchmarking.kernels import describe_kernels
from ..benchmarking.sides import forget_compiled
from ..benchmarking.tables import benchmark_csv, benchmark_table
from ..benchmarking.untrained import calibrate_queries, scale_queries, untrained_segmenter
from ..benchmarking.whole_images import measure_whole_images
from ..data.base import SegmentationDataModule
from ..data.demo import Demo
from ..errors import CheckpointError, DataError, ExpediteError
from ..evaluation.compiling import CompiledWindows, one_graph
from ..evaluation.device_memory import free_cached_memory, out_of_memory
from ..evaluation.environment import describe_environment
from ..evaluation.output import claim_output
from ..files import write_atomically
from ..models.segmenter import Architecture, Segmenter, build_segmenter, read_checkpoint
from ..models.segmenter.weights import known_weights, resolve_checkpoint
from ..reducers import ACT
from .benchmark_options import BenchmarkCLI, Options, config_name, read_options, split_configs

RESULTS_FILE = "benchmark.json"
CSV_FILE = "benchmark.csv"
TABLE_WIDTH = 110
UNTRAINED_NOTE = (
    "the weights are untrained: scores would be meaningless, and what a method that adapts to content (ACT) saves "
    "depends on the weights"
)


def run(arguments: Sequence[str]) -> int:
    """Benchmark every config; configs that fail are reported after the others are done."""
    configs, words = split_configs(arguments)
    clis = [BenchmarkCLI([*before, *words]) for before in ([["--config", config] for config in configs] or [[]])]
    options = read_options(clis, words)
    if clis[0].config.threads is not None:
        torch.set_num_threads(clis[0].config.threads)
    output = Path(clis[0].config.output or Path("runs") / f"benchmark_{clis[0].output.name}")
    results_file = output / RESULTS_FILE
    claim_output(output, results_file, clis[0].config.overwrite or without_rows(results_file))
    results = Results(output, describe(clis, options), ModelCache())
    for number, cli in enumerate(clis, start=1):
        results.add(cli, options, f"[{number}/{len(clis)}] {config_name(cli)}")
    return results.finish()


def without_rows(results: Path) -> bool:
    """Tell whether a results file is of a call in which every config failed: it holds nothing to lose."""
    try:
        return json.loads(results.read_bytes())["rows"] == []
    except (OSError, ValueError, KeyError, TypeError):
        return False


class ModelCache:
    """Keeps the weights that were read last: configs in a row mostly share them."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._model: Segmenter | None = None

    def load(self, module: Any, untrained: bool) -> Segmenter:
        """Give a copy, in float32 on the CPU, of a config's model with its reducer.

        Raises:
            CheckpointError: The checkpoint is missing or damaged.
            ReducerError: The reducer cannot apply to the model.
        """
        key = (module.checkpoint, module.weights_folder, module.convention, untrained)
        if self._model is None or key != self._key:
            self._model = None  # gone before the next one is read: two large models may not fit
            self._model, self._key = (make_untrained if untrained else read_model)(module), key
        model = copy.deepcopy(self._model)
        model.reducer = module.reducer
        return model


def read_model(module: Any) -> Segmenter:
    """Read the weights of a config."""
    known = known_weights(module.checkpoint)
    try:
        path = resolve_checkpoint(module.checkpoint, module.weights_folder)
    except CheckpointError as error:
        if known is None:
            raise
        raise CheckpointError(f"{error} To measure speed alone, without these weights: --untrained true.") from error
    return build_segmenter(read_checkpoint(path), None, module.convention)


def make_untrained(module: Any) -> Segmenter:
    """Make a config's model with random weights: of the sizes that its name stands for, or its file has."""
    return untrained_segmenter(architecture_of(module), module.convention or "mmseg")


def architecture_of(module: Any) -> Architecture:
    """Give the sizes of a config's model, without its weights where it is a known one."""
    known = known_weights(module.checkpoint)
    if known is not None and known.architecture is not None:
        return known.architecture
    return read_checkpoint(resolve_checkpoint(module.checkpoint, module.weights_folder)).architecture


@dataclass
class Input:
    """The data that a row was measured with."""

    source: str
    samples: Samples
    crops: CropSource
    notes: list[str] = field(default_factory=list)


def open_data(data: SegmentationDataModule, module: Any) -> Samples:
    """List a data set's images, with labels where there are any, resized as an evaluation does."""
    data.protocol = module.protocol
    try:
        return cast(Samples, data.open_dataset())
    except DataError:
        return cast(Samples, data.open_dataset(labels=False))


def choose_input(cli: BenchmarkCLI, options: Options, window: tuple[int, int]) -> Input:
    """Open a config's data set, or the demo scenes where it is not on this machine.

    Raises:
        DataError: The data set is damaged, or not at the place that the user named.
    """
    size = options.input_size or window
    enlarge = options.input_size is not None
    data = cli.datamodule
    try:
        samples = open_data(data, cli.model)
    except DataError:
        if options.root_given or data.root.exists():
            raise
        note = f"{type(data).__name__} is not at {data.root}: the input is the bundled demo scenes"
        samples = open_data(Demo(short_side=max(size)), cli.model)
        return Input("Demo", samples, CropSource(samples, size, enlarge=True), [note])
    return Input(type(data).__name__, samples, CropSource(samples, size, enlarge))


def measure(cli: BenchmarkCLI, options: Options, cache: ModelCache, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure one config.

    Returns:
        Its row of the results, with the notes that apply to it as ``notes``.
    """
    module, settings = cli.model, options.settings
    progress("loading")
    model = cache.load(module, options.untrained)
    windows = module.build_sliding_window(model)
    if settings.compiled:
        mode = "default" if settings.compiled is True else settings.compiled
        forward = CompiledWindows(windows.window, windows.batch_size, mode, one_graph(model.reducer))
        windows = replace(windows, forward=forward)
    given = choose_input(cli, options, (windows.window, windows.window))
    model.to(settings.device)
    scale = set_queries(model, given, options, progress)
    benchmark = Benchmark(model, given.crops, settings, progress)
    figures = benchmark.measure()
    share = None
    if options.whole_images:
        progress("whole images")
        share = measure_whole_images(
            given.samples, options.whole_images, benchmark.sides[-1], windows, benchmark.stopwatch
        )
    return {
        "config": config_name(cli),
        "reducer": reducer_settings(cli.config.model.reducer),
        "settings": own_settings(cli),
        "model": {
            "checkpoint": module.checkpoint,
            "untrained": options.untrained,
            "query_scale": scale,
        },
        "input": {"source": given.source, "size": list(given.crops.size), "crops": given.crops.count},
        **figures,
        "test_share": share,
        "notes": [*given.notes, *([UNTRAINED_NOTE] if options.untrained else [])],
    }


def set_queries(model: Segmenter, given: Input, options: Options, progress: Callable[[str], None]) -> float:
    """Scale the queries as the options say; gives the factor."""
    if options.act_gflops is None or not isinstance(model.reducer, ACT):
        if options.query_scale != 1:
            scale_queries(model, options.query_scale)
        return options.query_scale
    progress("scaling the queries")
    return calibrate_queries(model, given.crops.batch(0, 1).to(options.settings.device), options.act_gflops)


def reducer_settings(reducer: Any) -> dict[str, Any] | None:
    """Give a reducer's class and settings as JSON takes them."""
    if reducer is None:
        return None
    settings: dict[str, Any] = json.loads(json.dumps(reducer.as_dict(), default=str))
    return settings


def own_settings(cli: BenchmarkCLI) -> dict[str, Any]:
    """Give all of a config's settings of model and data, as ``test`` stores them."""
    settings = yaml.safe_load(cli.resolved_config())
    return {name: settings[name] for name in ("model", "data")}


def describe(clis: Sequence[BenchmarkCLI], options: Options) -> dict[str, Any]:
    """Give what holds for all rows: environment and settings."""
    settings = options.settings
    return {
        "kind": "benchmark",
        "environment": {
            **describe_environment(settings.device, settings.precision),
            "kernels": describe_kernels(settings.device),
        },
        "settings": describe_settings(clis, options),
    }


def describe_settings(clis: Sequence[BenchmarkCLI], options: Options) -> dict[str, Any]:
    """Give the settings that hold for all rows."""
    settings = options.settings
    return {
        "configs": [config_name(cli) for cli in clis],
        "device": str(settings.device),
        "precision": settings.precision,
        "batch_size": settings.batch_size,
        "input_size": options.input_size and list(options.input_size),
        "compile": settings.compiled,
        "iterations": settings.iterations,
        "seconds": settings.seconds,
        "warmup": settings.warmup,
        "threads": clis[0].config.threads,
        "whole_images": options.whole_images,
        "untrained": options.untrained,
        "query_scale": options.query_scale,
        "act_gflops": options.act_gflops,
    }


def mendable(error: Exception) -> str | None:
    """Tell what to change after an error of PyTorch's that other options avoid; ``None`` for any other."""
    if out_of_memory(error):
        return "memory ran out; give a smaller --input_size or another --precision"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"it cannot be compiled ({reason}); leave --compile out"
    return None


class Results:
    """The rows so far; written after each, so that an interruption loses at most the row in hand."""

    def __init__(self, output: Path, common: dict[str, Any], cache: ModelCache) -> None:
        self.output = output
        self.content = {**common, "notes": [], "rows": [], "failed": []}
        self.cache = cache

    def add(self, cli: BenchmarkCLI, options: Options, title: str) -> None:
        """Measure a config and write its row, or remember why there is none."""
        progress = partial(_say, title)
        try:
            row = measure(cli, options, self.cache, progress)
        except ExpediteError as error:
            self._fail(config_name(cli), str(error))
        except Exception as error:
            message = mendable(error)
            if message is None:
                raise
            self._fail(config_name(cli), message)
        else:
            notes = [note for note in row.pop("notes") if note not in self.content["notes"]]
            self.content["notes"] += notes
            self.content["rows"].append(row)
            self._write()
        finally:  # here neither the models nor an error that holds them are left
            if options.settings.compiled:
                forget_compiled()
            free_cached_memory()

    def finish(self) -> int:
        """Show the table, and the errors after it; gives the exit status."""
        self._write()  # in any case: an earlier call's results are not this one's
        if self.content["rows"]:
            console = Console()
            if not console.is_terminal:
                console.width = max(console.width, TABLE_WIDTH)  # rich takes a file for a narrow terminal
            console.print(benchmark_table(self.content))
            print(f"results are in {self.output / RESULTS_FILE} and {self.output / CSV_FILE}")
        for failure in self.content["failed"]:
            print(f"error: {failure['config']}: {failure['error']}", file=sys.stderr)
        return 2 if self.content["failed"] else 0

    def _fail(self, config: str, error: str) -> None:
        self.content["failed"].append({"config": config, "error": error})

    def _write(self) -> None:
        write_atomically(self.output / RESULTS_FILE, json.dumps(self.content, indent=1, allow_nan=False).encode())
        write_atomically(self.output / CSV_FILE, benchmark_csv(self.content).encode())


def _say(title: str, text: str) -> None:
    print(f"{title}: {text}", file=sys.stderr, flush=True)
